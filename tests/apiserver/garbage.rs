//! The tests' own API server itself: the answers that no client accepts.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::objects::service;
use super::raw::{Raw, RawConnection};
use super::server::{Fault, Garbage, Server};
use super::wire::{fields, frames};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: &str = "application/json";
const LIST: &str = "/api/v1/services";
const WATCH: &str = "/api/v1/services?watch=true";

/// Long enough for what has been sent to arrive.
const PAUSE: Duration = Duration::from_millis(300);

/// The bytes that arrived, and whether they ended.
async fn received(mut body: Incoming) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.expect("a frame").into_data() {
                bytes.extend_from_slice(&data);
            }
        }
    };
    let ended = timeout(PAUSE, reading).await.is_ok();
    (bytes, ended)
}

async fn connected(server: &Server) -> RawConnection {
    server.apply(service("shop/cart", "10.96.0.1"));
    Raw::new(server, &["h2"]).connect(server).await
}

#[tokio::test]
async fn garbage_instead_of_a_watch() {
    let server = Server::start();
    let mut connection = connected(&server).await;
    for (garbage, is_complete, ends) in [
        (Garbage::Truncated, false, true),
        (Garbage::Random, true, true),
        (Garbage::UnknownWireType, true, true),
        (Garbage::TooLarge, false, false),
        (Garbage::Unfinished, false, false),
        (Garbage::Endless, false, false),
    ] {
        server.fail("services", "watch", Fault::Garbage(garbage), 1);
        let answer = connection.open(WATCH, PROTOBUF).await.unwrap();
        let (bytes, ended) = received(answer.into_body()).await;

        assert_eq!(ended, ends, "{garbage:?}");
        let frames = frames(&bytes);
        assert_eq!(frames.is_some(), is_complete, "{garbage:?}");
        for frame in frames.into_iter().flatten() {
            assert_eq!(fields(&frame), None, "{garbage:?}");
        }
    }
    server.fail("services", "", Fault::Garbage(Garbage::TooLarge), 1);
    let answer = connection.open(WATCH, PROTOBUF).await.unwrap();
    let (bytes, _) = received(answer.into_body()).await;
    assert_eq!(bytes, 67_108_865_u32.to_be_bytes());
}

#[tokio::test]
async fn garbage_instead_of_a_list() {
    let server = Server::start();
    let mut connection = connected(&server).await;
    let whole = connection.get(LIST, PROTOBUF).await;
    for garbage in [
        Garbage::Truncated,
        Garbage::Random,
        Garbage::UnknownWireType,
    ] {
        server.fail("services", "", Fault::Garbage(garbage), 1);
        let cut = connection.get(LIST, PROTOBUF).await;
        assert_eq!(cut.status, 200);
        let message = cut.body.strip_prefix(b"k8s\0").expect("an envelope");
        assert_eq!(fields(message), None, "{garbage:?}");

        server.fail("services", "", Fault::Garbage(garbage), 1);
        let cut = connection.get(LIST, JSON).await;
        serde_json::from_slice::<serde_json::Value>(&cut.body).unwrap_err();
    }
    assert_eq!(connection.get(LIST, PROTOBUF).await.body, whole.body);
}

#[tokio::test]
async fn garbage_in_an_open_watch() {
    let server = Server::start();
    let mut connection = connected(&server).await;
    let whole = connection
        .get(&format!("{WATCH}&timeoutSeconds=0"), PROTOBUF)
        .await;
    let watch = connection.open(WATCH, PROTOBUF).await.unwrap();
    let slices = "/apis/discovery.k8s.io/v1/endpointslices?watch=true";
    let _other = connection.open(slices, PROTOBUF).await.unwrap();
    server.until_watched("services", 1).await;

    server.send_garbage("services", Garbage::UnknownWireType);

    let (bytes, ended) = received(watch.into_body()).await;
    assert!(ended);
    let rest = bytes
        .strip_prefix(&whole.body[..])
        .expect("the first events");
    assert_eq!(frames(rest).unwrap(), [[0x0f, 0x01]]);
    server.until_watched("services", 0).await;
    server.until_watched("endpointslices", 1).await;
}
