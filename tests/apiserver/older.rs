//! API servers that lag behind, and an etcd that is restored from a backup.

use std::time::Duration;

use kube_dnat::planner::model::{InterruptReason, ObjectKind};
use kube_dnat::watch::apiserver::WatchTimeouts;

use super::objects::service;
use super::seen::{DEADLINE, Seen, TIMEOUTS};
use super::server::{Gone, Server, StreamingLists};

/// The reader checks the versions soon, and accepts older ones soon.
const SOON: WatchTimeouts = WatchTimeouts {
    confirmation: Duration::from_millis(300),
    older_lists: Duration::from_secs(1),
    ..TIMEOUTS
};

/// The same, but the reader does not accept older versions within the test.
const NEVER: WatchTimeouts = WatchTimeouts {
    older_lists: DEADLINE.saturating_mul(10),
    ..SOON
};

/// Starts a cluster whose backup has one Service more, and one less, than now.
fn start() -> (Server, u64) {
    let server = Server::start();
    server.apply(service("shop/stays", "10.96.0.1"));
    server.apply(service("shop/deleted", "10.96.0.2"));
    let backup = server.version();
    server.delete("services", "shop/deleted");
    server.apply(service("shop/created", "10.96.0.3"));
    (server, backup)
}

#[tokio::test]
async fn a_restored_etcd_is_followed() {
    for streaming_lists in [StreamingLists::Served, StreamingLists::Refused] {
        let (server, backup) = start();
        server.set_streaming_lists(streaming_lists);
        let mut seen = Seen::listed(&server.kubeconfig(), SOON).await;

        server.restore(backup);

        seen.until_deleted(ObjectKind::Service, "shop/created")
            .await;
        seen.until_exists(ObjectKind::Service, "shop/deleted").await;
        assert_eq!(seen.deleted, ["Service shop/created"]);
        let older =
            |&(kind, reason): &_| kind == ObjectKind::Service && reason == InterruptReason::Older;
        assert!(seen.interrupted.iter().any(older));
        // The versions grow from the older ones on.
        server.delete("services", "shop/stays");
        seen.until_deleted(ObjectKind::Service, "shop/stays").await;
    }
}

#[tokio::test]
async fn an_older_list_adds_and_deletes_nothing() {
    for streaming_lists in [StreamingLists::Served, StreamingLists::Refused] {
        let (server, backup) = start();
        server.set_streaming_lists(streaming_lists);
        let mut seen = Seen::listed(&server.kubeconfig(), NEVER).await;

        server.restore(backup);
        // Nothing can be watched from now on, so the reader lists.
        server.apply(service("shop/new", "10.96.0.4"));
        server.compact(Gone::Status);

        seen.until_exists(ObjectKind::Service, "shop/new").await;
        seen.until_exists(ObjectKind::Service, "shop/deleted").await;
        seen.until_interrupted(ObjectKind::Service, InterruptReason::Older)
            .await;
        assert_eq!(seen.deleted, [""; 0]);
        assert!(seen.has(ObjectKind::Service, "shop/created"));

        // When the versions are as new as before, the list is asked for again, and deletes.
        for number in 0..10 {
            server.apply(service("shop/last", &format!("10.96.1.{number}")));
        }
        seen.until_deleted(ObjectKind::Service, "shop/created")
            .await;
        seen.until_exists(ObjectKind::Service, "shop/last").await;
        assert_eq!(seen.deleted, ["Service shop/created"]);
    }
}

#[tokio::test]
async fn a_server_that_lags_deletes_nothing() {
    let (server, _) = start();
    let mut seen = Seen::listed(&server.kubeconfig(), NEVER).await;
    server.lag();
    server.apply(service("shop/unseen", "10.96.0.5"));
    server.close_watches();
    server.compact(Gone::Event);
    server.restart();
    server.until_watched("services", 1).await;

    server.catch_up();

    seen.until_exists(ObjectKind::Service, "shop/unseen").await;
    assert_eq!(seen.deleted, [""; 0]);
}

#[tokio::test]
async fn a_watch_that_is_confirmed_is_not_listed_again() {
    let (server, _) = start();
    let mut seen = Seen::listed(&server.kubeconfig(), SOON).await;
    server.restart();
    server.until_requested("services", 3).await;
    server.apply(service("shop/till", "10.96.0.5"));

    seen.until_exists(ObjectKind::Service, "shop/till").await;
    let requests = server.requests("services");
    // A list, the watch after the restart, and a list of one Service for its version.
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(requests[2].asks("limit", "1"), "{requests:?}");
    assert_eq!(seen.deleted, [""; 0]);
}
