//! The connection settings of a kubeconfig: address, CA and credentials.

use std::path::Path;

use kube_dnat::planner::model::ObjectKind;
use kube_dnat::watch::apiserver::{ClientSettings, WatchTimeouts, client, watch_with};
use serde_json::json;
use tokio::sync::mpsc::channel;

use super::objects::service;
use super::seen::{Seen, TIMEOUTS, settings};
use super::server::Server;

async fn error(kubeconfig: Option<&Path>, master: Option<&str>) -> String {
    let settings = ClientSettings {
        kubeconfig: kubeconfig.map(Path::to_owned),
        masters: master.map(str::to_owned).into_iter().collect(),
        ..ClientSettings::default()
    };
    let error = client(&settings).await.err().expect("an error");
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    text
}

#[tokio::test]
async fn an_invalid_kubeconfig_is_named_in_the_error() {
    let server = Server::start();
    let missing = server.directory().join("missing");
    let text = error(Some(&missing), None).await;
    assert!(text.contains("/missing"), "{text}");
    assert!(text.contains("No such file"), "{text}");

    let invalid = server.write("invalid", "clusters: [\n  {name: x\n");
    let text = error(Some(&invalid), None).await;
    assert!(text.contains("/invalid"), "{text}");

    let no_context = server.write("no-context", "{apiVersion: v1, kind: Config}");
    let text = error(Some(&no_context), None).await;
    assert!(text.contains("/no-context"), "{text}");

    let user = json!({"client-certificate": "missing.crt", "client-key": "missing.key"});
    let no_certificate = server.write_kubeconfig("no-certificate", &user);
    let text = error(Some(&no_certificate), None).await;
    assert!(text.contains("/no-certificate"), "{text}");
    assert!(text.contains("missing.crt"), "{text}");
}

#[tokio::test]
async fn an_invalid_master_is_named_in_the_error() {
    for master in [
        "",
        "192.0.2.1:6443",
        "https://",
        "ftp://192.0.2.1",
        "https://a b",
        "https://:6443",
        "https://192.0.2.1:",
        "https://192.0.2.1:644300",
        "https://admin:password@192.0.2.1:6443",
    ] {
        let text = error(None, Some(master)).await;
        assert!(
            text.contains(&format!("--master {master} is not")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_proxy_is_rejected() {
    let server = Server::start();
    let text = std::fs::read_to_string(server.kubeconfig()).unwrap();
    let text = text.replace(
        r#""server":"#,
        r#""proxy-url":"http://192.0.2.1:3128","server":"#,
    );
    let path = server.write("proxy", &text);
    assert!(error(Some(&path), None).await.contains("proxy-url"));
}

#[tokio::test]
async fn a_token_file_is_used() {
    let server = Server::start();
    server.set_token("from-a-file");
    server.write("token", "from-a-file");
    server.apply(service("shop/cart", "10.96.0.1"));
    let kubeconfig = server.write_kubeconfig("with-file", &json!({"tokenFile": "token"}));

    let seen = Seen::listed(&kubeconfig, TIMEOUTS).await;

    assert!(seen.has(ObjectKind::Service, "shop/cart"));
}

#[tokio::test]
async fn a_token_file_with_a_line_break_is_rejected() {
    let server = Server::start();
    server.write("token", "a-token\n");
    let kubeconfig = server.write_kubeconfig("with-file", &json!({"tokenFile": "token"}));
    let text = error(Some(&kubeconfig), None).await;
    assert!(text.contains("token ends in a line break"), "{text}");

    let kubeconfig = server.write_kubeconfig("no-file", &json!({"tokenFile": "no-token"}));
    let text = error(Some(&kubeconfig), None).await;
    assert!(text.contains("no-token"), "{text}");
}

#[tokio::test]
async fn a_client_certificate_is_used() {
    let server = Server::start();
    let identity = server.authority().identity("node-1");
    let certificate = server.write("client.crt", &identity.certificate);
    let key = server.write("client.key", &identity.key);
    let user = json!({"client-certificate": certificate, "client-key": key});
    server.apply(service("shop/cart", "10.96.0.1"));
    let kubeconfig = server.write_kubeconfig("with-certificate", &user);

    let seen = Seen::listed(&kubeconfig, TIMEOUTS).await;

    assert!(seen.has(ObjectKind::Service, "shop/cart"));
}

#[tokio::test]
async fn a_renewed_client_certificate_is_used() {
    let server = Server::start();
    let write = |name: &str| {
        let identity = server.authority().identity(name);
        let certificate = server.write("client.crt", &identity.certificate);
        let key = server.write("client.key", &identity.key);
        json!({"client-certificate": certificate, "client-key": key})
    };
    let kubeconfig = server.write_kubeconfig("with-certificate", &write("node-1"));
    let mut seen = Seen::listed(&kubeconfig, TIMEOUTS).await;
    let connected = server.connections().accepted;

    // The certificate before stays in use while the new one is invalid.
    server.write("client.crt", "half of a certif");
    let mut watched_again = async |name| {
        let requests = server.requests("services").len();
        server.close_watches();
        server.until_requested("services", requests + 1).await;
        server.apply(service(name, "10.96.0.1"));
        seen.until_exists(ObjectKind::Service, name).await;
    };
    watched_again("shop/cart").await;
    assert_eq!(server.connections().accepted, connected);

    write("node-1");
    watched_again("shop/till").await;
    assert!(server.connections().accepted > connected);
}

#[tokio::test]
async fn a_master_overrides_the_server_of_the_kubeconfig() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    let text = std::fs::read_to_string(server.kubeconfig()).unwrap();
    let text = text.replace(&server.url(), "https://192.0.2.1:6443");
    let kubeconfig = server.write("elsewhere", &text);

    let settings = ClientSettings {
        masters: vec![server.url()],
        ..settings(&kubeconfig)
    };
    let client = client(&settings).await.unwrap();
    let (sender, mut events) = channel(16);
    let timeouts = WatchTimeouts::default();
    tokio::spawn(watch_with(timeouts, client, "node-1".into(), sender));

    events.recv().await.unwrap();
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (server, other) = (Server::start(), Server::start());
    let text = std::fs::read_to_string(server.kubeconfig()).unwrap();
    let text = text.replace(&server.url(), &other.url());
    let kubeconfig = server.write("other", &text);

    let client = client(&settings(&kubeconfig)).await.unwrap().kube();
    let error = client.apiserver_version().await.unwrap_err();

    assert!(
        format!("{error:?}").contains("InvalidCertificate"),
        "{error:?}"
    );
    assert_eq!(other.requests("services").len(), 0);
}

#[tokio::test]
async fn the_watch_ends_when_the_receiver_is_dropped() {
    let server = Server::start();
    let client = client(&settings(&server.kubeconfig())).await.unwrap();
    let (sender, events) = channel(16);
    let watch = tokio::spawn(watch_with(TIMEOUTS, client, "node-1".into(), sender));
    server.until_watched("services", 1).await;

    drop(events);

    watch.await.unwrap();
    server.until_watched("services", 0).await;
}
