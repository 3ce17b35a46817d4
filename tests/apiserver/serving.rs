//! The tests' own API server itself: its connections.

use super::objects::service;
use super::raw::Raw;
use super::server::{Connections, Server};

const JSON: &str = "application/json";

#[tokio::test]
async fn the_client_chooses_between_http2_and_http1() {
    let server = Server::start();
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
        let mut connection = Raw::new(&server, protocols).connect(&server).await;
        let answer = connection.get("/api/v1/services", JSON).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.content_type, JSON);
    }
    let connections = server.connections();
    assert_eq!((connections.accepted, connections.http2), (3, 1));

    server.offer_only_http1();
    let both = Raw::new(&server, &["h2", "http/1.1"]);
    both.connect(&server)
        .await
        .get("/api/v1/services", JSON)
        .await;
    server.until_open(0).await;
    let connections = server.connections();
    assert_eq!((connections.accepted, connections.http2), (4, 1));
}

#[tokio::test]
async fn many_watches_share_one_http2_connection() {
    let server = Server::start();
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        let watch = connection.open("/api/v1/services?watch=true", JSON).await;
        answers.push(watch.unwrap());
    }
    server.until_watched("services", 20).await;
    let connections = server.connections();
    assert_eq!((connections.accepted, connections.open), (1, 1));

    drop(answers);
    server.until_watched("services", 0).await;
}

#[tokio::test]
async fn a_tls_session_is_resumed() {
    let server = Server::start();
    let client = Raw::new(&server, &["h2"]);
    let mut first = client.connect(&server).await;
    first.get("/api/v1/services", JSON).await;
    assert!(!first.is_resumed);

    let mut second = client.connect(&server).await;
    second.get("/api/v1/services", JSON).await;

    assert!(second.is_resumed);
    let counted = Connections {
        accepted: 2,
        open: 2,
        http2: 2,
        resumed: 1,
    };
    assert_eq!(server.connections(), counted);
}

#[tokio::test]
async fn the_bytes_of_answers_are_counted() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;

    let answer = connection.get("/api/v1/services", JSON).await;

    let sent = u64::try_from(answer.body.len()).unwrap();
    assert_eq!(server.body_bytes("services"), sent);
    assert_eq!(server.body_bytes("nodes"), 0);
    assert!(server.wire_bytes() > sent);
}
