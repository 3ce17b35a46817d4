//! The lists of existing objects, as streams or in pages.

use std::time::Duration;

use kube_dnat::config::AcceptedTypes;
use kube_dnat::planner::model::{ObjectKind, RejectReason};
use kube_dnat::watch::apiserver::{ClientSettings, WatchTimeouts};
use serde_json::json;

use super::objects::{service, service_cidr};
use super::seen::{Seen, TIMEOUTS, key, settings};
use super::server::{Fault, Gone, Request, Server, StreamingLists};

/// The number of Services, which is more than two pages.
const MANY: usize = 1100;

fn apply_services(server: &Server, count: usize) {
    for number in 0..count {
        let address = format!("10.96.{}.{}", number / 250, number % 250 + 1);
        let name = format!("shop/service-{number}");
        server.apply(service(&name, &address));
    }
}

#[tokio::test]
async fn a_list_is_one_stream() {
    let server = Server::start();
    apply_services(&server, 10_000);

    let seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    assert_eq!(seen.names(ObjectKind::Service).len(), 10_000);
    let requests = server.requests("services");
    assert_eq!(requests.len(), 1);
    assert!(requests[0].asks("sendInitialEvents", "true"));
    assert!(requests[0].asks("allowWatchBookmarks", "true"));
}

#[tokio::test]
async fn a_server_that_rejects_streaming_lists_is_listed_in_pages() {
    let server = Server::start();
    server.set_streaming_lists(StreamingLists::Refused);
    apply_services(&server, MANY);

    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    assert_eq!(seen.names(ObjectKind::Service).len(), MANY);
    let requests = server.requests("services");
    let lists: Vec<_> = requests.iter().filter(|it| !it.is_watch()).collect();
    // The cache of the API server answers with one page.
    assert!(lists.len() == 1 && lists[0].asks("resourceVersion", "0"));

    server.apply(service("shop/cart", "10.97.0.1"));
    seen.until_exists(ObjectKind::Service, "shop/cart").await;
    server.delete("services", "shop/service-0");
    seen.until_deleted(ObjectKind::Service, "shop/service-0")
        .await;

    // The cache may be older than what was seen.
    server.go_down();
    server.until_watched("services", 0).await;
    server.delete("services", "shop/service-1");
    server.compact(Gone::Event);
    server.come_up();
    seen.until_deleted(ObjectKind::Service, "shop/service-1")
        .await;
    let requests = server.requests_after("services", requests.len());
    let lists: Vec<_> = requests.iter().filter(|it| !it.is_watch()).collect();
    assert_eq!(lists.len(), 3, "{lists:?}");
    assert!(!lists.iter().any(|it| it.asks("resourceVersion", "0")));
}

/// Some API servers send what changes before the end of the list.
#[tokio::test]
async fn an_object_that_is_deleted_within_a_list_is_deleted() {
    let server = Server::start();
    apply_services(&server, 3);
    server.delete_within_lists("services", "shop/service-1");

    let seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    let names = ["shop/service-0", "shop/service-2"];
    assert_eq!(seen.names(ObjectKind::Service), names);
    assert_eq!(server.requests("services").len(), 1);
}

#[tokio::test]
async fn streaming_lists_are_tried_again_after_a_while() {
    let server = Server::start();
    server.set_streaming_lists(StreamingLists::Refused);
    apply_services(&server, 1);
    let timeouts = WatchTimeouts {
        fallback: Duration::from_secs(1),
        ..TIMEOUTS
    };
    let mut seen = Seen::listed(&server.kubeconfig(), timeouts).await;
    server.set_streaming_lists(StreamingLists::Served);

    let before = server.requests("services").len();
    let is_stream = |request: &Request| request.asks("sendInitialEvents", "true");
    let asks = |_: &Seen| {
        server
            .requests_after("services", before)
            .iter()
            .any(is_stream)
    };
    // The version is compacted again and again, so that each watch ends with a list.
    seen.until_with("another streaming list", asks, || {
        server.apply(service("shop/service-0", "10.96.0.9"));
        server.compact(Gone::Status);
        server.close_watches();
    })
    .await;
}

#[tokio::test]
async fn a_server_that_ignores_streaming_lists_is_listed_in_pages_after_a_while() {
    let server = Server::start();
    server.set_streaming_lists(StreamingLists::Ignored);
    apply_services(&server, MANY);
    let timeouts = WatchTimeouts {
        streaming_list: Duration::from_millis(500),
        ..TIMEOUTS
    };

    let mut seen = Seen::listed(&server.kubeconfig(), timeouts).await;

    assert_eq!(seen.names(ObjectKind::Service).len(), MANY);
    let requests = server.requests("services");
    assert!(requests.iter().any(|request| !request.is_watch()));
    server.apply(service("shop/cart", "10.97.0.1"));
    seen.until_exists(ObjectKind::Service, "shop/cart").await;
    assert_eq!(seen.deleted, [""; 0]);
}

#[tokio::test]
async fn a_server_that_closes_streaming_lists_is_listed_in_pages() {
    let server = Server::start();
    server.set_streaming_lists(StreamingLists::Ignored);
    apply_services(&server, 1);
    let timeouts = WatchTimeouts {
        watch: 1,
        ..TIMEOUTS
    };

    let seen = Seen::listed(&server.kubeconfig(), timeouts).await;

    assert_eq!(seen.names(ObjectKind::Service), ["shop/service-0"]);
}

#[tokio::test]
async fn a_list_that_expires_between_pages_starts_over() {
    let server = Server::start();
    server.set_streaming_lists(StreamingLists::Refused);
    apply_services(&server, MANY);
    // The list that follows a failed one has pages.
    let cached = "limit=500&resourceVersion=0";
    server.fail("services", cached, Fault::Status(500), 1);
    server.fail("services", "continue=", Fault::Status(410), 1);

    let seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    assert_eq!(seen.names(ObjectKind::Service).len(), MANY);
    assert_eq!(seen.deleted, [""; 0]);
}

#[tokio::test]
async fn a_relist_that_breaks_off_loses_nothing() {
    let server = Server::start();
    server.set_streaming_lists(StreamingLists::Refused);
    apply_services(&server, MANY);
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    server.go_down();
    server.until_watched("services", 0).await;
    server.delete("services", "shop/service-7");
    server.compact(Gone::Event);
    server.fail("services", "continue=", Fault::Status(500), 1);
    server.come_up();

    seen.until_deleted(ObjectKind::Service, "shop/service-7")
        .await;
    assert_eq!(seen.deleted, ["Service shop/service-7"]);
    assert_eq!(seen.names(ObjectKind::Service).len(), MANY - 1);
}

#[tokio::test]
async fn a_kind_is_reported_as_listed_once() {
    let server = Server::start();
    server.apply(service_cidr("kubernetes", "10.96.0.0/12"));
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    server.go_down();
    server.until_watched("services", 0).await;
    server.until_watched("servicecidrs", 0).await;
    server.delete("servicecidrs", "kubernetes");
    server.apply(service("shop/cart", "10.96.0.1"));
    server.compact(Gone::Event);
    server.apply(service("shop/till", "10.96.0.2"));
    server.come_up();

    seen.until_deleted(ObjectKind::ServiceCidr, "kubernetes")
        .await;
    seen.until_exists(ObjectKind::Service, "shop/till").await;
    assert!(seen.has(ObjectKind::Service, "shop/cart"));
    assert_eq!(seen.listed.len(), 4, "{:?}", seen.listed);
}

#[tokio::test]
async fn a_malformed_object_does_not_affect_the_others() {
    // The requests are a rejected stream, a page and a watch. In protobuf two lists fail before
    // the one in JSON.
    for (streaming_lists, accepted, requests) in [
        (StreamingLists::Served, AcceptedTypes::JsonOnly, 1),
        (StreamingLists::Refused, AcceptedTypes::JsonOnly, 3),
        (StreamingLists::Served, AcceptedTypes::ProtobufFirst, 3),
        (StreamingLists::Refused, AcceptedTypes::ProtobufFirst, 5),
    ] {
        let server = Server::start();
        server.set_streaming_lists(streaming_lists);
        let mut broken = service("shop/broken", "10.96.0.2");
        broken["spec"]["ports"] = json!("eighty");
        server.apply(service("shop/a", "10.96.0.1"));
        server.apply(broken.clone());
        server.apply(service("shop/z", "10.96.0.3"));

        let settings = ClientSettings {
            accepted,
            ..settings(&server.kubeconfig())
        };
        let mut seen = Seen::listed_with(&settings, TIMEOUTS).await;

        assert_eq!(seen.names(ObjectKind::Service), ["shop/a", "shop/z"]);
        let rejected = seen
            .rejected
            .remove(&key(ObjectKind::Service, "shop/broken"));
        assert!(matches!(
            rejected.as_deref(),
            Some([RejectReason::Malformed(_)])
        ));

        broken["metadata"]["name"] = json!("broken-later");
        server.apply(broken);
        server.apply(service("shop/later", "10.96.0.4"));
        seen.until_exists(ObjectKind::Service, "shop/later").await;
        let later = key(ObjectKind::Service, "shop/broken-later");
        assert!(seen.rejected.contains_key(&later));
        assert_eq!(server.requests("services").len(), requests);
    }
}
