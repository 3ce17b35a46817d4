//! The tests' own API server itself: its answers in protobuf.

use serde_json::json;

use super::objects::{node, service, service_cidr, slice};
use super::raw::Raw;
use super::server::{Encodings, Server, StreamingLists};
use super::wire::{Field, at, fields, frames, text};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const SERVICES: &str = "/api/v1/services";
const STREAMING: &str = "/api/v1/services?watch=true&sendInitialEvents=true\
    &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=0";

/// The field numbers of metadata.name in an object.
const NAME: [u64; 2] = [1, 1];

/// Returns the API version, the kind and the message in an envelope.
fn opened(bytes: &[u8]) -> (String, String, Vec<u8>) {
    let unknown = bytes.strip_prefix(b"k8s\0").expect("an envelope");
    let message = at(unknown, &[2]).remove(0);
    (text(unknown, &[1, 1]), text(unknown, &[1, 2]), message)
}

/// Returns the type of an event and its object.
fn event(frame: &[u8]) -> (String, Vec<u8>) {
    (text(frame, &[1]), at(frame, &[2, 1]).remove(0))
}

#[tokio::test]
async fn lists_are_in_protobuf_in_every_group() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    server.apply(slice("shop/cart-1", "cart", "10.0.0.1"));
    server.apply(node("node-1", "192.0.2.1"));
    server.apply(service_cidr("kubernetes", "10.96.0.0/12"));
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;

    for (path, api_version, kind, name) in [
        (SERVICES, "v1", "ServiceList", "cart"),
        (
            "/apis/discovery.k8s.io/v1/endpointslices",
            "discovery.k8s.io/v1",
            "EndpointSliceList",
            "cart-1",
        ),
        ("/api/v1/nodes", "v1", "NodeList", "node-1"),
        (
            "/apis/networking.k8s.io/v1/servicecidrs",
            "networking.k8s.io/v1",
            "ServiceCIDRList",
            "kubernetes",
        ),
    ] {
        let answer = connection.get(path, PROTOBUF).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.content_type, PROTOBUF);
        let (of, list, message) = opened(&answer.body);
        assert_eq!((&*of, &*list), (api_version, kind));
        assert_eq!(text(&message, &[1, 2]), "5");
        assert_eq!(text(&message, &[2, NAME[0], NAME[1]]), name);
    }
}

#[tokio::test]
async fn the_fields_of_a_service_have_their_numbers() {
    let server = Server::start();
    let mut cart = service("shop/cart", "10.96.0.1");
    cart["spec"]["ports"][0]["targetPort"] = json!("web");
    cart["metadata"]["managedFields"] = json!([{"manager": "tests", "fieldsV1": {"f:spec": {}}}]);
    server.apply(cart);
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;

    let answer = connection.get(SERVICES, PROTOBUF).await;

    let (_, _, list) = opened(&answer.body);
    let [service] = &at(&list, &[2])[..] else {
        panic!("{list:?}");
    };
    assert_eq!(text(service, &[1, 3]), "shop");
    assert_eq!(text(service, &[1, 17, 7, 1]), r#"{"f:spec":{}}"#);
    assert_eq!(text(service, &[2, 18]), "10.96.0.1");
    assert_eq!(text(service, &[2, 2, 1]), "app");
    assert_eq!(text(service, &[2, 2, 2]), "shop");
    assert_eq!(text(service, &[2, 1, 4, 3]), "web");
    let port = fields(&at(service, &[2, 1])[0]).unwrap();
    assert!(port.contains(&(3, Field::Number(80))), "{port:?}");
    let created = fields(&at(service, &[1, 8])[0]).unwrap();
    assert!(
        created.contains(&(1, Field::Number(1_767_225_600))),
        "{created:?}"
    );
}

#[tokio::test]
async fn pages_continue_in_protobuf() {
    let server = Server::start();
    for number in 1..=3 {
        server.apply(service(&format!("shop/{number}"), "10.96.0.1"));
    }
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;

    let first = connection.get("/api/v1/services?limit=2", PROTOBUF).await;
    let (_, _, first) = opened(&first.body);
    let token = text(&first, &[1, 3]).replace(' ', "+");
    let path = format!("/api/v1/services?limit=2&continue={token}");
    let (_, _, second) = opened(&connection.get(&path, PROTOBUF).await.body);

    assert_eq!(at(&first, &[2]).len(), 2);
    assert_eq!(text(&second, &[2, 1, 1]), "3");
    assert_eq!(text(&second, &[1, 3]), "");
}

#[tokio::test]
async fn a_streaming_list_in_protobuf_ends_with_a_bookmark() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;

    let answer = connection.get(STREAMING, STREAM).await;

    assert_eq!(answer.content_type, STREAM);
    let frames = frames(&answer.body).unwrap();
    let [cart, end] = &frames[..] else {
        panic!("{frames:?}");
    };
    let (kind, object) = event(cart);
    let (api_version, of, service) = opened(&object);
    assert_eq!((&*kind, &*api_version, &*of), ("ADDED", "v1", "Service"));
    assert_eq!(text(&service, &NAME), "cart");
    let (kind, object) = event(end);
    let (_, _, bookmark) = opened(&object);
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(text(&bookmark, &[1, 6]), "2");
    assert_eq!(text(&bookmark, &[1, 12, 1]), "k8s.io/initial-events-end");
}

#[tokio::test]
async fn errors_are_in_protobuf() {
    let server = Server::start();
    server.set_streaming_lists(StreamingLists::Refused);
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;

    let answer = connection.get(STREAMING, STREAM).await;

    assert_eq!((answer.status, &*answer.content_type), (422, PROTOBUF));
    let (api_version, kind, status) = opened(&answer.body);
    assert_eq!((&*api_version, &*kind), ("v1", "Status"));
    assert_eq!(text(&status, &[4]), "Invalid");
    assert!(fields(&status).unwrap().contains(&(6, Field::Number(422))));
}

#[tokio::test]
async fn a_server_may_have_no_protobuf() {
    let server = Server::start();
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;
    let both = format!("{PROTOBUF},application/json");

    server.set_encodings(Encodings::Json);
    let answer = connection.get(SERVICES, &both).await;
    assert_eq!(
        (answer.status, &*answer.content_type),
        (200, "application/json")
    );

    server.set_encodings(Encodings::RejectAny);
    let answer = connection.get(SERVICES, &both).await;
    assert_eq!(
        (answer.status, &*answer.content_type),
        (406, "application/json")
    );
}

#[tokio::test]
async fn a_malformed_field_affects_one_object() {
    let server = Server::start();
    let mut broken = service("shop/broken", "10.96.0.2");
    broken["spec"]["ports"] = json!("eighty");
    server.apply(broken);
    server.apply(service("shop/whole", "10.96.0.1"));
    let mut connection = Raw::new(&server, &["h2"]).connect(&server).await;

    let (_, _, list) = opened(&connection.get(SERVICES, PROTOBUF).await.body);

    let services = at(&list, &[2]);
    let [broken, whole] = &services[..] else {
        panic!("{services:?}");
    };
    assert_eq!(text(broken, &NAME), "broken");
    assert_eq!(fields(&at(broken, &[2, 1])[0]), None);
    assert!(fields(&at(whole, &[2, 1])[0]).is_some());
}
