//! Several API servers of one cluster: one is enough.

use std::path::Path;

use kube_dnat::planner::model::ObjectKind;
use kube_dnat::watch::apiserver::ClientSettings;

use super::objects::service;
use super::seen::{Seen, TIMEOUTS, settings};
use super::server::{Fault, Server};

const KINDS: [&str; 4] = ["services", "endpointslices", "nodes", "servicecidrs"];

/// Starts a cluster with two servers.
fn start() -> (Server, Server) {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    let replica = server.replica();
    (server, replica)
}

fn of(servers: [&Server; 2]) -> ClientSettings {
    ClientSettings {
        masters: servers.map(Server::url).to_vec(),
        ..settings(&servers[0].kubeconfig())
    }
}

fn from_file(server: &Server, file: &Path) -> ClientSettings {
    ClientSettings {
        servers_file: Some(file.to_owned()),
        ..settings(&server.kubeconfig())
    }
}

/// Returns the server that serves the watches first, and the other one.
fn followed(servers: (Server, Server)) -> (Server, Server) {
    let (one, other) = servers;
    if one.requests("services").is_empty() {
        (other, one)
    } else {
        (one, other)
    }
}

#[tokio::test]
async fn one_server_is_followed() {
    let servers = start();
    let _seen = Seen::listed_with(&of([&servers.0, &servers.1]), TIMEOUTS).await;

    let (_, idle) = followed(servers);

    assert_eq!(idle.connections().accepted, 0);
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_passed_over() {
    let servers = start();
    servers.0.go_down();
    let mut seen = Seen::listed_with(&of([&servers.0, &servers.1]), TIMEOUTS).await;

    servers.1.apply(service("shop/till", "10.96.0.2"));

    seen.until_exists(ObjectKind::Service, "shop/till").await;
}

#[tokio::test]
async fn the_watches_continue_at_another_server_without_a_list() {
    let servers = start();
    let mut seen = Seen::listed_with(&of([&servers.0, &servers.1]), TIMEOUTS).await;
    let (lost, other) = followed(servers);

    lost.go_down();
    other.apply(service("shop/till", "10.96.0.2"));

    seen.until_exists(ObjectKind::Service, "shop/till").await;
    assert_eq!(seen.deleted, [""; 0]);
    for kind in KINDS {
        other.until_watched(kind, 1).await;
        let requests = other.requests(kind);
        assert!(
            !requests
                .iter()
                .any(|request| request.asks("sendInitialEvents", "true"))
        );
    }

    // And back again.
    lost.come_up();
    other.go_down();
    lost.apply(service("shop/third", "10.96.0.3"));
    seen.until_exists(ObjectKind::Service, "shop/third").await;
    assert_eq!(seen.deleted, [""; 0]);
}

#[tokio::test]
async fn a_server_that_rejects_or_fails_is_left() {
    for status in [401, 403, 429, 500, 503] {
        let servers = start();
        for kind in KINDS {
            servers.0.fail(kind, "", Fault::Status(status), 1_000);
        }
        let mut seen = Seen::listed_with(&of([&servers.0, &servers.1]), TIMEOUTS).await;
        servers.1.apply(service("shop/till", "10.96.0.2"));
        seen.until_exists(ObjectKind::Service, "shop/till").await;
    }
}

#[tokio::test]
async fn the_servers_of_a_file_are_followed_as_it_changes() {
    let (server, replica) = start();
    let file = server.write("servers", &format!("# one\n{}\n", server.url()));
    let mut seen = Seen::listed_with(&from_file(&server, &file), TIMEOUTS).await;
    assert_eq!(replica.connections().accepted, 0);

    // The connection to a server that is not in the file any more is closed.
    server.write("servers", &format!("{}\n", replica.url()));
    server.until_open(0).await;
    replica.until_watched("services", 1).await;
    server.apply(service("shop/till", "10.96.0.2"));
    seen.until_exists(ObjectKind::Service, "shop/till").await;

    // An invalid file changes nothing, and the next valid one has an effect.
    server.write("servers", "192.0.2.1\n");
    server.write(
        "servers",
        &format!("\n{}\n{}\n", replica.url(), server.url()),
    );
    server.come_up();
    replica.go_down();
    server.until_watched("services", 1).await;
    server.apply(service("shop/third", "10.96.0.3"));
    seen.until_exists(ObjectKind::Service, "shop/third").await;
    assert_eq!(seen.deleted, [""; 0]);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_stops_the_start_with_a_sentence() {
    let server = Server::start();
    let missing = server.directory().join("missing");
    let invalid = server.write("invalid", "https://192.0.2.1\n\n192.0.2.2:6443\n");
    let empty = server.write("empty", "# none\n");
    for (file, expected) in [
        (missing, "cannot read the API servers from"),
        (invalid, "line 3 of"),
        (empty, "names no API server"),
    ] {
        let error = kube_dnat::watch::apiserver::client(&from_file(&server, &file)).await;
        let text = error.err().expect("an error").to_string();
        assert!(text.contains(expected), "{text}");
        assert!(text.contains(file.to_str().unwrap()), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}
