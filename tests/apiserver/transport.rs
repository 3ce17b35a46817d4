//! The formats of answers, and the connections: as little as the API server offers.

use std::time::Duration;

use kube_dnat::config::AcceptedTypes;
use kube_dnat::planner::model::{InterruptReason, ObjectKind};
use kube_dnat::watch::apiserver::{ClientSettings, HttpVersions, WatchTimeouts};
use serde_json::json;

use super::node::{Node, PACE};
use super::objects::{labelled, node, service, service_cidr, slice};
use super::seen::{OUR_NODE, Seen, TIMEOUTS, settings};
use super::server::{Encodings, Fault, Request, Server, StreamingLists};

const KINDS: [&str; 4] = ["services", "endpointslices", "nodes", "servicecidrs"];

/// Starts a server with objects that have every field that kube-dnat reads.
fn start() -> Server {
    let server = Server::start();
    let mut full = service("shop/full", "10.96.0.1");
    full["metadata"]["creationTimestamp"] = json!("2026-02-03T04:05:06Z");
    full["spec"] = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.1",
        "clusterIPs": ["10.96.0.1", "2001:db8::1"], "externalIPs": ["192.0.2.7"],
        "ports": [
            {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web", "nodePort": 30080},
            {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353, "nodePort": 30053},
        ],
        "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30100, "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "loadBalancerSourceRanges": ["192.0.2.0/24"], "selector": {"app": "shop"},
    });
    full["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "198.51.100.1", "ipMode": "VIP"}, {"ip": "198.51.100.2", "ipMode": "Proxy"},
        {"hostname": "lb.example"},
    ]}});
    server.apply(full);
    server.apply(service("shop/plain", "10.96.0.2"));
    let mut endpoints = slice("shop/full-1", "full", "10.0.0.1");
    endpoints["endpoints"] = json!([
        {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": OUR_NODE,
         "zone": "a", "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": OUR_NODE}]},
         "targetRef": {"kind": "Pod", "namespace": "shop", "name": "full-0", "uid": "0"}},
        {"addresses": ["10.0.0.2"],
         "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.0.0.3"], "conditions": {}},
    ]);
    endpoints["metadata"]["annotations"] =
        json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-02-03T04:05:06Z"});
    server.apply(endpoints);
    let ours = node(OUR_NODE, "192.0.2.1");
    let mut ours = labelled(ours, "topology.kubernetes.io/zone", "a");
    ours["spec"] = json!({"podCIDRs": ["10.244.1.0/24"], "podCIDR": "10.244.1.0/24",
        "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]});
    server.apply(ours);
    server.apply(service_cidr("kubernetes", "10.96.0.0/12"));
    server
}

fn json_only(server: &Server) -> ClientSettings {
    ClientSettings {
        accepted: AcceptedTypes::JsonOnly,
        ..settings(&server.kubeconfig())
    }
}

#[tokio::test]
async fn protobuf_and_json_are_the_same_objects() {
    for streaming_lists in [StreamingLists::Served, StreamingLists::Refused] {
        let server = start();
        server.set_streaming_lists(streaming_lists);

        let json = Seen::listed_with(&json_only(&server), TIMEOUTS).await;
        let of_json = KINDS.map(|kind| server.body_bytes(kind));
        let protobuf = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

        assert_eq!(json.objects.len(), 5);
        assert_eq!(protobuf.objects, json.objects);
        for (kind, of_json) in KINDS.into_iter().zip(of_json) {
            let of_protobuf = server.body_bytes(kind) - of_json;
            assert!(of_protobuf < of_json, "{kind}: {of_protobuf} of {of_json}");
        }
    }
}

#[tokio::test]
async fn every_request_of_objects_accepts_protobuf_first_and_json() {
    let server = start();
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;
    server.close_watches();
    server.apply(service("shop/later", "10.96.0.3"));
    seen.until_exists(ObjectKind::Service, "shop/later").await;

    for kind in KINDS {
        for request in server.requests(kind) {
            let list = "application/vnd.kubernetes.protobuf,application/json";
            let watch = "application/vnd.kubernetes.protobuf;stream=watch,application/json";
            let expected = if request.is_watch() { watch } else { list };
            assert_eq!(request.accept, expected, "{kind}");
        }
    }
}

#[tokio::test]
async fn a_server_without_protobuf_is_followed_in_json() {
    for encodings in [
        Encodings::Json,
        Encodings::RejectFirst,
        Encodings::RejectAny,
    ] {
        for streaming_lists in [StreamingLists::Served, StreamingLists::Refused] {
            let server = start();
            server.set_encodings(encodings);
            server.set_streaming_lists(streaming_lists);

            let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;
            server.apply(service("shop/later", "10.96.0.3"));
            seen.until_exists(ObjectKind::Service, "shop/later").await;

            assert_eq!(seen.objects.len(), 6, "{encodings:?}");
            assert_eq!(seen.deleted, [""; 0], "{encodings:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_loses_protobuf_is_followed_in_json() {
    let server = start();
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    server.set_encodings(Encodings::RejectAny);
    server.close_watches();
    server.apply(service("shop/later", "10.96.0.3"));

    seen.until_exists(ObjectKind::Service, "shop/later").await;
    assert_eq!(seen.deleted, [""; 0]);
}

#[tokio::test]
async fn protobuf_is_tried_again_after_a_while() {
    let server = start();
    server.set_encodings(Encodings::RejectAny);
    let timeouts = WatchTimeouts {
        fallback: Duration::from_secs(1),
        ..TIMEOUTS
    };
    let mut seen = Seen::listed(&server.kubeconfig(), timeouts).await;
    server.set_encodings(Encodings::All);

    let before = server.requests("services").len();
    let is_protobuf = |request: &Request| request.accept.contains("protobuf");
    let asks = |_: &Seen| {
        server
            .requests_after("services", before)
            .iter()
            .any(is_protobuf)
    };
    seen.until_with("another request for protobuf", asks, || {
        server.close_watches();
    })
    .await;
}

#[tokio::test]
async fn everything_is_one_connection() {
    let server = start();
    // A second Service with this ClusterIP is an Event.
    server.apply(service("shop/twin", "10.96.0.2"));
    let _node = Node::started(&server, OUR_NODE, PACE).await;
    server.until_events(1).await;
    for kind in KINDS {
        server.until_watched(kind, 1).await;
    }

    let connections = server.connections();
    assert_eq!((connections.accepted, connections.http2), (1, 1));
}

/// The only server that can be reached rejects one kind.
#[tokio::test]
async fn a_server_that_is_still_connected_is_not_connected_again() {
    let (server, other) = (start(), Server::start());
    other.go_down();
    server.fail("services", "", Fault::Status(503), 1_000);
    let settings = ClientSettings {
        masters: vec![server.url(), other.url()],
        ..settings(&server.kubeconfig())
    };
    let _seen = Seen::with(&settings, TIMEOUTS).await;
    // The pauses sum up to 2.5 s or more, in which the other server is tried again.
    server.until_requested("services", 8).await;

    let connections = server.connections();
    assert_eq!((connections.accepted, connections.open), (1, 1));
}

#[tokio::test]
async fn a_server_without_http2_is_followed_over_http1() {
    let server = start();
    server.offer_only_http1();

    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;
    server.apply(service("shop/later", "10.96.0.3"));
    seen.until_exists(ObjectKind::Service, "shop/later").await;

    let connections = server.connections();
    assert_eq!((connections.open, connections.http2), (4, 0));
}

#[tokio::test]
async fn connections_of_http1_are_used_again() {
    let server = start();
    let settings = ClientSettings {
        versions: HttpVersions::Http1Only,
        ..settings(&server.kubeconfig())
    };
    let mut seen = Seen::listed_with(&settings, TIMEOUTS).await;
    for round in 0..3 {
        let requests = server.requests("services").len();
        server.close_watches();
        server.until_requested("services", requests + 1).await;
        let name = format!("shop/round-{round}");
        server.apply(service(&name, "10.96.0.3"));
        seen.until_exists(ObjectKind::Service, &name).await;
    }
    // A request that comes before the end of the last answer was read needs another connection.
    let accepted = server.connections().accepted;
    assert!((4..=8).contains(&accepted), "{accepted}");
}

#[tokio::test]
async fn a_new_connection_resumes_the_tls_session() {
    let server = start();
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;
    assert_eq!(server.connections().resumed, 0);

    server.go_down();
    server.until_open(0).await;
    server.come_up();
    server.apply(service("shop/later", "10.96.0.3"));

    seen.until_exists(ObjectKind::Service, "shop/later").await;
    let connections = server.connections();
    assert_eq!((connections.accepted, connections.resumed), (2, 1));
}

#[tokio::test]
async fn a_connection_that_goes_away_ends_with_its_watches() {
    let server = start();
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    server.go_away();
    server.apply(service("shop/old", "10.96.0.3"));
    seen.until_exists(ObjectKind::Service, "shop/old").await;
    // Watches that begin before the client knows are still served.
    let mut round = 0;
    while server.connections().accepted < 2 {
        round += 1;
        let name = format!("shop/new-{round}");
        server.close_watches();
        server.apply(service(&name, "10.96.0.4"));
        seen.until_exists(ObjectKind::Service, &name).await;
    }
    server.until_open(1).await;

    assert_eq!(seen.deleted, [""; 0]);
}

/// The server reads and acknowledges everything, as one that hangs does, and answers no ping.
#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = start();
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    server.fall_silent();
    server.speak();
    server.apply(service("shop/later", "10.96.0.3"));

    let deadline = Duration::from_mins(1);
    let interrupted = seen.until_interrupted(ObjectKind::Service, InterruptReason::Closed);
    tokio::time::timeout(deadline, interrupted).await.unwrap();
    seen.until_exists(ObjectKind::Service, "shop/later").await;
    assert_eq!(seen.deleted, [""; 0]);
}
