//! The tests' own API server itself: several servers of one cluster, and their failures.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::objects::service;
use super::raw::Raw;
use super::server::Server;

const JSON: &str = "application/json";
const LIST: &str = "/api/v1/services";
const CACHED: &str = "/api/v1/services?resourceVersion=0";
const STREAM: &str = "/api/v1/services?watch=true&timeoutSeconds=0&sendInitialEvents=true\
    &resourceVersionMatch=NotOlderThan";

/// Long enough for what has been sent to arrive.
const PAUSE: Duration = Duration::from_millis(300);

/// Returns the status, the version and the names of a list.
async fn list(server: &Server, path: &str) -> (u16, String, Vec<String>) {
    let mut connection = Raw::new(server, &["h2"]).connect(server).await;
    let answer = connection.get(path, JSON).await;
    let list: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let version = list["metadata"]["resourceVersion"].as_str();
    let items = list["items"].as_array();
    let names = items.into_iter().flatten();
    let names = names.map(|item| {
        item["metadata"]["name"]
            .as_str()
            .expect("a name")
            .to_owned()
    });
    (
        answer.status,
        version.unwrap_or_default().to_owned(),
        names.collect(),
    )
}

async fn names(server: &Server, path: &str) -> Vec<String> {
    list(server, path).await.2
}

#[tokio::test]
async fn replicas_have_the_same_objects_and_their_own_faults() {
    let server = Server::start();
    server.apply(service("shop/a", "10.96.0.1"));
    let replica = server.replica();
    replica.apply(service("shop/b", "10.96.0.2"));
    assert_eq!(names(&server, LIST).await, ["a", "b"]);
    assert_eq!(names(&replica, LIST).await, ["a", "b"]);

    server.bar_all(403);
    assert_eq!(list(&server, LIST).await.0, 403);
    assert_eq!(list(&replica, LIST).await.0, 200);
    server.admit_all();
    assert_eq!(list(&server, LIST).await.0, 200);
    assert_eq!(server.requests("services").len(), 3);
    assert_eq!(replica.requests("services")[0].accept, JSON);
}

#[tokio::test]
async fn a_server_that_lags_serves_old_lists_until_it_catches_up() {
    let server = Server::start();
    let lagging = server.replica();
    server.apply(service("shop/old", "10.96.0.1"));
    lagging.lag();
    server.apply(service("shop/new", "10.96.0.2"));

    let (_, version, seen) = list(&lagging, CACHED).await;
    assert_eq!((&*version, &seen[..]), ("2", &["old".to_owned()][..]));
    assert_eq!(names(&server, CACHED).await, ["new", "old"]);
    // Only the store answers lists without a version.
    assert_eq!(names(&lagging, LIST).await, ["new", "old"]);

    let mut connection = Raw::new(&lagging, &["h2"]).connect(&lagging).await;
    let stream = connection
        .get(&format!("{STREAM}&resourceVersion=0"), JSON)
        .await;
    assert!(!String::from_utf8_lossy(&stream.body).contains("\"new\""));
    let too_new = connection
        .get(&format!("{STREAM}&resourceVersion=3"), JSON)
        .await;
    assert_eq!(too_new.status, 504);

    let waiting = tokio::spawn(async move { connection.get(STREAM, JSON).await });
    tokio::time::sleep(PAUSE).await;
    lagging.catch_up();
    let stream = waiting.await.unwrap();
    assert_eq!(stream.status, 200);
    assert!(String::from_utf8_lossy(&stream.body).contains("\"new\""));
}

#[tokio::test]
async fn a_restored_store_goes_back_and_cuts_all_connections() {
    let server = Server::start();
    let replica = server.replica();
    server.apply(service("shop/deleted", "10.96.0.1"));
    let backup = server.version();
    server.delete("services", "shop/deleted");
    server.apply(service("shop/created", "10.96.0.2"));
    let mut connection = Raw::new(&replica, &["h2"]).connect(&replica).await;
    connection.get(LIST, JSON).await;

    server.restore(backup);

    server.until_open(0).await;
    replica.until_open(0).await;
    assert_eq!(server.version(), backup);
    assert_eq!(names(&replica, LIST).await, ["deleted"]);
    server.apply(service("shop/later", "10.96.0.3"));
    assert_eq!(list(&server, LIST).await.1, (backup + 1).to_string());

    // A watch from a version that does not exist any more is silent until that version is passed.
    let path = format!(
        "{LIST}?watch=true&timeoutSeconds=2&resourceVersion={}",
        backup + 2
    );
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;
    let watching = tokio::spawn(async move { connection.get(&path, JSON).await });
    server.until_watched("services", 1).await;
    server.apply(service("shop/unseen", "10.96.0.4"));
    server.apply(service("shop/seen", "10.96.0.5"));
    let seen = watching.await.unwrap();
    let seen = String::from_utf8_lossy(&seen.body).into_owned();
    assert!(
        seen.contains("\"seen\"") && !seen.contains("\"unseen\""),
        "{seen}"
    );
}

#[tokio::test]
async fn a_restart_cuts_connections_and_forgets_tls_sessions() {
    let server = Server::start();
    let client = Raw::new(&server, &["h2"]);
    client.connect(&server).await.get(LIST, JSON).await;

    server.restart();
    server.until_open(0).await;

    let mut connection = client.connect(&server).await;
    assert_eq!(connection.get(LIST, JSON).await.status, 200);
    assert!(!connection.is_resumed);
}

#[tokio::test]
async fn a_silent_connection_stays_silent() {
    let server = Server::start();
    let client = Raw::new(&server, &["h2"]);
    let mut silent = client.connect(&server).await;
    silent.get(LIST, JSON).await;

    server.fall_silent();
    timeout(PAUSE, silent.open(LIST, JSON)).await.unwrap_err();
    timeout(PAUSE, client.connect(&server)).await.err().unwrap();
    server.speak();

    timeout(PAUSE, silent.open(LIST, JSON)).await.unwrap_err();
    let answer = client.connect(&server).await.get(LIST, JSON).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_connection_that_goes_away_serves_open_watches() {
    let server = Server::start();
    let client = Raw::new(&server, &["h2"]);
    let mut old = client.connect(&server).await;
    let path = "/api/v1/services?watch=true&timeoutSeconds=1";
    let watch = old.open(path, JSON).await.unwrap();
    server.until_watched("services", 1).await;

    server.go_away();
    tokio::time::sleep(PAUSE).await;
    server.apply(service("shop/cart", "10.96.0.1"));

    assert!(old.open(LIST, JSON).await.is_err());
    let body = http_body_util::BodyExt::collect(watch.into_body()).await;
    let body = body.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("\"cart\""));
    server.until_open(0).await;
    assert_eq!(names(&server, LIST).await, ["cart"]);
}
