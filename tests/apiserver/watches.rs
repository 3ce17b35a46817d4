//! The continuation of a watch that ends, falls silent or expires.

use kube_dnat::planner::model::ObjectKind;
use kube_dnat::watch::apiserver::WatchTimeouts;

use super::objects::{service, slice};
use super::seen::{DEADLINE, Seen, TIMEOUTS};
use super::server::{Gone, Server};

/// Returns whether the objects were listed again after the first list, as a stream or in pages.
fn was_listed_again(server: &Server, plural: &str) -> bool {
    let requests = server.requests(plural);
    let lists = requests
        .iter()
        .filter(|request| !request.is_watch() || request.asks("sendInitialEvents", "true"));
    lists.count() > 1
}

#[tokio::test]
async fn a_closed_watch_continues_from_its_resource_version() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    for (name, address) in [("shop/a", "10.96.0.2"), ("shop/b", "10.96.0.3")] {
        server.close_watches();
        server.apply(service(name, address));
        seen.until_exists(ObjectKind::Service, name).await;
    }

    assert_eq!(seen.deleted, [""; 0]);
    assert!(!was_listed_again(&server, "services"));
}

#[tokio::test]
async fn a_broken_watch_continues_from_its_resource_version() {
    let server = Server::start();
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;
    server.apply(slice("shop/cart-1", "cart", "10.0.0.1"));
    seen.until_exists(ObjectKind::EndpointSlice, "shop/cart-1")
        .await;

    server.cut_watches();
    server.delete("endpointslices", "shop/cart-1");

    seen.until_deleted(ObjectKind::EndpointSlice, "shop/cart-1")
        .await;
    assert!(!was_listed_again(&server, "endpointslices"));
}

#[tokio::test]
async fn a_watch_that_ends_at_once_is_resumed_after_a_pause() {
    let server = Server::start();
    let timeouts = WatchTimeouts {
        first_pause: DEADLINE * 10,
        ..TIMEOUTS
    };
    let mut seen = Seen::listed(&server.kubeconfig(), timeouts).await;
    server.until_watched("services", 1).await;
    let before = server.requests("services").len();

    server.end_watches_at_once("services");
    server.until_watched("services", 0).await;

    // Meanwhile other kinds are followed.
    for number in 0..20 {
        let name = format!("shop/cart-{number}");
        server.apply(slice(&name, "cart", "10.0.0.1"));
        seen.until_exists(ObjectKind::EndpointSlice, &name).await;
    }
    assert_eq!(server.requests("services").len(), before);
}

#[tokio::test]
async fn watches_that_end_at_once_are_listed_again_after_a_while() {
    let server = Server::start();
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    server.end_watches_at_once("services");
    // Six watches with growing pauses, and then a list.
    server.until_requested("services", 8).await;
    server.apply(service("shop/cart", "10.96.0.1"));
    seen.until_exists(ObjectKind::Service, "shop/cart").await;
}

#[tokio::test]
async fn a_silent_watch_times_out_and_continues_from_its_resource_version() {
    let server = Server::start();
    let timeouts = WatchTimeouts {
        watch: 1,
        ..TIMEOUTS
    };
    let mut seen = Seen::listed(&server.kubeconfig(), timeouts).await;

    server.hang_watches();
    server.apply(service("shop/cart", "10.96.0.1"));

    seen.until_exists(ObjectKind::Service, "shop/cart").await;
    assert!(!was_listed_again(&server, "services"));
}

#[tokio::test]
async fn a_bookmark_saves_a_relist() {
    let server = Server::start();
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    // Without the bookmark, changes of another kind would expire the watch of Services.
    server.apply(slice("shop/cart-1", "cart", "10.0.0.1"));
    seen.until_exists(ObjectKind::EndpointSlice, "shop/cart-1")
        .await;
    server.send_bookmarks();
    server.close_watches();
    server.until_requested("services", 2).await;
    server.until_watched("services", 1).await;
    server.compact(Gone::Event);
    server.apply(service("shop/cart", "10.96.0.1"));

    seen.until_exists(ObjectKind::Service, "shop/cart").await;
    assert!(!was_listed_again(&server, "services"));
    let requests = server.requests("services");
    assert!(requests[1].asks("resourceVersion", "2"), "{requests:?}");
}

#[tokio::test]
async fn an_expired_watch_is_listed_again() {
    for gone in [Gone::Event, Gone::Status] {
        let server = Server::start();
        server.apply(service("shop/stays", "10.96.0.1"));
        server.apply(service("shop/goes", "10.96.0.2"));
        let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

        server.go_down();
        server.until_watched("services", 0).await;
        server.delete("services", "shop/goes");
        server.apply(service("shop/comes", "10.96.0.3"));
        server.compact(gone);
        server.come_up();

        seen.until_deleted(ObjectKind::Service, "shop/goes").await;
        assert_eq!(
            seen.names(ObjectKind::Service),
            ["shop/comes", "shop/stays"]
        );
        assert_eq!(seen.deleted, ["Service shop/goes"]);
        assert!(was_listed_again(&server, "services"));
    }
}

/// No request reached a server, so nothing says that a watch cannot continue.
#[tokio::test]
async fn a_long_outage_causes_no_list() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    server.go_down();
    let of_services = |seen: &Seen| {
        let kinds = seen.interrupted.iter();
        kinds
            .filter(|(kind, _)| *kind == ObjectKind::Service)
            .count()
    };
    seen.until("eight failures", |seen| of_services(seen) >= 8)
        .await;
    server.come_up();
    server.apply(service("shop/till", "10.96.0.2"));
    seen.until_exists(ObjectKind::Service, "shop/till").await;

    assert!(!was_listed_again(&server, "services"));
}
