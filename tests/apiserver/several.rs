//! Several API servers of one cluster: one is enough.

use std::path::Path;
use std::time::Duration;

use kube_dnat::planner::model::ObjectKind;
use kube_dnat::watch::apiserver::{ClientSettings, WatchTimeouts};

use super::objects::service;
use super::seen::{DEADLINE, Seen, TIMEOUTS, settings};
use super::server::{Fault, Garbage, Server};

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

/// The other server would forbid it, too.
#[tokio::test]
async fn a_server_that_forbids_one_kind_is_not_left() {
    let servers = start();
    let mut seen = Seen::listed_with(&of([&servers.0, &servers.1]), TIMEOUTS).await;
    let (followed, idle) = followed(servers);
    let requests = followed.requests("servicecidrs").len();

    followed.bar("servicecidrs", 403);
    followed.close_watches();
    followed.until_requested("servicecidrs", requests + 1).await;
    // The next requests follow the answer.
    for number in 2..5 {
        let requests = followed.requests("services").len();
        followed.close_watches();
        followed.until_requested("services", requests + 1).await;
        let name = format!("shop/cart-{number}");
        followed.apply(service(&name, &format!("10.96.0.{number}")));
        seen.until_exists(ObjectKind::Service, &name).await;
    }

    assert_eq!(idle.connections().accepted, 0);
}

/// The server answers pings of HTTP/2 and nothing else, as one whose etcd hangs does.
#[tokio::test]
async fn a_server_that_never_answers_is_left() {
    let servers = start();
    for kind in KINDS {
        servers.0.fail(kind, "", Fault::Silence, 1_000);
    }
    servers.1.go_down();
    let timeouts = WatchTimeouts {
        answer: Duration::from_millis(500),
        ..TIMEOUTS
    };
    let mut seen = Seen::with(&of([&servers.0, &servers.1]), timeouts).await;
    servers.0.until_requested("services", 1).await;
    servers.1.come_up();

    seen.until_exists(ObjectKind::Service, "shop/cart").await;
}

/// The same, but its answers begin.
#[tokio::test]
async fn a_server_whose_lists_do_not_end_is_left() {
    let servers = start();
    for kind in KINDS {
        let fault = Fault::Garbage(Garbage::Unfinished);
        servers.0.fail(kind, "", fault, 1_000);
    }
    servers.1.go_down();
    let timeouts = WatchTimeouts {
        answer: Duration::from_millis(500),
        streaming_list: Duration::from_millis(500),
        ..TIMEOUTS
    };
    let mut seen = Seen::with(&of([&servers.0, &servers.1]), timeouts).await;
    servers.0.until_requested("services", 1).await;
    servers.1.come_up();

    seen.until("all kinds are listed", |seen| seen.listed.len() == 4)
        .await;
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

/// The watches stay at a server that is left, but not at one that is removed.
#[tokio::test]
async fn every_connection_to_a_removed_server_is_closed() {
    let (server, replica) = start();
    let file = server.write("servers", &server.url());
    let seen = Seen::listed_with(&from_file(&server, &file), TIMEOUTS).await;
    server.write("servers", &format!("{}\n{}\n", server.url(), replica.url()));

    // The reader of Services retries until it knows the other server; the others stay.
    server.fail("services", "", Fault::Status(503), 1_000);
    server.send_garbage("services", Garbage::Random);
    replica.until_watched("services", 1).await;
    server.write("servers", &replica.url());

    // The watches would last much longer.
    let closed = tokio::time::timeout(DEADLINE, server.until_open(0));
    closed.await.expect("the connections are closed");
    drop(seen);
}

/// The watches of the other kinds stay at the first server, while new requests go to the other one.
#[tokio::test]
async fn a_silent_watch_is_a_failure_of_its_own_server() {
    let servers = start();
    let timeouts = WatchTimeouts {
        watch: 3,
        ..TIMEOUTS
    };
    let _seen = Seen::listed_with(&of([&servers.0, &servers.1]), timeouts).await;
    let (silent, other) = followed(servers);
    silent.fail("services", "", Fault::Status(503), 1_000);
    silent.send_garbage("services", Garbage::Random);
    other.until_watched("services", 1).await;

    silent.hang_watches();
    let requests = silent.requests("endpointslices").len();

    other.until_watched("endpointslices", 1).await;
    other.until_watched("nodes", 1).await;
    assert_eq!(silent.requests("endpointslices").len(), requests);
}

/// Configuration management replaces whole directories.
#[tokio::test]
async fn a_file_whose_directory_is_replaced_is_followed() {
    let (server, replica) = start();
    let directory = server.directory().join("etc");
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("servers");
    std::fs::write(&file, server.url()).unwrap();
    let mut seen = Seen::listed_with(&from_file(&server, &file), TIMEOUTS).await;

    std::fs::remove_dir_all(&directory).unwrap();
    // Time to notice that the directory is missing, which nothing shows. The rest holds without it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(&file, replica.url()).unwrap();

    replica.until_watched("services", 1).await;
    server.apply(service("shop/till", "10.96.0.2"));
    seen.until_exists(ObjectKind::Service, "shop/till").await;
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
