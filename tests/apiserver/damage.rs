//! Answers that no client accepts: the watch is dropped with a reason and resumed, and nothing is
//! deleted.

use std::time::Duration;

use kube_dnat::planner::model::{InterruptReason, ObjectKind};
use kube_dnat::watch::apiserver::WatchTimeouts;

use super::objects::{service, slice};
use super::seen::{Seen, TIMEOUTS};
use super::server::{Fault, Garbage, Server, StreamingLists};

const GARBAGE: [Garbage; 6] = [
    Garbage::Truncated,
    Garbage::Random,
    Garbage::UnknownWireType,
    Garbage::TooLarge,
    Garbage::Unfinished,
    Garbage::Endless,
];

/// A watch, a page or a streaming list that does not end is dropped soon.
const SOON: WatchTimeouts = WatchTimeouts {
    watch: 2,
    answer: Duration::from_secs(3),
    streaming_list: Duration::from_secs(3),
    ..TIMEOUTS
};

fn start() -> Server {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    server.apply(slice("shop/cart-1", "cart", "10.0.0.1"));
    server
}

async fn a_damaged_watch(garbage: Garbage) {
    let server = start();
    let mut seen = Seen::listed(&server.kubeconfig(), SOON).await;

    server.send_garbage("services", garbage);
    seen.until("the interruption", |seen| {
        let mut kinds = seen.interrupted.iter().map(|(kind, _)| *kind);
        kinds.any(|kind| kind == ObjectKind::Service)
    })
    .await;
    server.apply(service("shop/till", "10.96.0.2"));

    seen.until_exists(ObjectKind::Service, "shop/till").await;
    assert_eq!(seen.deleted, [""; 0], "{garbage:?}");
    let reason = match garbage {
        Garbage::Truncated => InterruptReason::Closed,
        Garbage::Random | Garbage::UnknownWireType | Garbage::TooLarge => {
            InterruptReason::Malformed
        }
        Garbage::Unfinished | Garbage::Endless => InterruptReason::Silent,
    };
    let expected = (ObjectKind::Service, reason);
    assert!(
        seen.interrupted.contains(&expected),
        "{garbage:?}: {:?}",
        seen.interrupted
    );
}

#[tokio::test]
async fn a_damaged_watch_is_dropped_and_resumed() {
    futures::future::join_all(GARBAGE.map(a_damaged_watch)).await;
}

async fn a_damaged_list(garbage: Garbage, streaming_lists: StreamingLists) {
    let server = start();
    server.set_streaming_lists(streaming_lists);
    let part = match streaming_lists {
        StreamingLists::Served => "sendInitialEvents",
        StreamingLists::Refused | StreamingLists::Ignored => "limit",
    };
    server.fail("services", part, Fault::Garbage(garbage), 1);

    let seen = Seen::listed(&server.kubeconfig(), SOON).await;

    assert_eq!(
        seen.names(ObjectKind::Service),
        ["shop/cart"],
        "{garbage:?}"
    );
    assert_eq!(seen.deleted, [""; 0], "{garbage:?}");
}

#[tokio::test]
async fn a_damaged_list_is_asked_for_again() {
    let streams = GARBAGE.map(|garbage| a_damaged_list(garbage, StreamingLists::Served));
    let pages = GARBAGE.map(|garbage| a_damaged_list(garbage, StreamingLists::Refused));
    futures::future::join(
        futures::future::join_all(streams),
        futures::future::join_all(pages),
    )
    .await;
}
