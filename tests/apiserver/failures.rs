//! An API server that is unreachable, rejects requests or fails: nothing is lost, and requests are
//! retried.

use std::time::Duration;

use kube_dnat::planner::model::ObjectKind;
use kube_dnat::watch::apiserver::WatchTimeouts;

use super::objects::{node, service, service_cidr};
use super::seen::{OUR_NODE, Seen, TIMEOUTS};
use super::server::{Fault, Server};

#[tokio::test]
async fn errors_of_the_server_are_retried() {
    let retried = async |status| {
        let server = Server::start();
        server.apply(service("shop/cart", "10.96.0.1"));
        server.fail("services", "", Fault::Status(status), 1);

        let seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

        assert_eq!(seen.names(ObjectKind::Service), ["shop/cart"]);
        assert_eq!(server.requests("services").len(), 2, "{status}");
    };
    tokio::join!(retried(429), retried(500), retried(503));
}

#[tokio::test]
async fn a_watch_that_cannot_continue_is_retried_and_loses_nothing() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    server.fail("services", "watch=true", Fault::Status(500), 2);
    server.close_watches();
    server.until_requested("services", 2).await;
    server.apply(service("shop/till", "10.96.0.2"));

    seen.until_exists(ObjectKind::Service, "shop/till").await;
    assert_eq!(seen.deleted, [""; 0]);
}

#[tokio::test]
async fn a_resource_version_that_keeps_failing_causes_a_relist() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;
    let lists = || {
        let requests = server.requests("services").into_iter();
        let from_a_place = |query: &std::collections::BTreeMap<String, String>| {
            query
                .get("resourceVersion")
                .is_some_and(|place| place != "0")
        };
        requests
            .filter(|request| !from_a_place(&request.query))
            .count()
    };
    assert_eq!(lists(), 1);

    server.fail("services", "resourceVersion=2", Fault::Status(500), 1_000);
    let asked = server.requests("services").len();
    server.close_watches();
    server.until_requested("services", asked + 1).await;
    server.delete("services", "shop/cart");

    seen.until_deleted(ObjectKind::Service, "shop/cart").await;
    assert_eq!(lists(), 2);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_retried() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    server.fail("services", "", Fault::Silence, 1);
    let timeouts = WatchTimeouts {
        answer: Duration::from_secs(1),
        ..TIMEOUTS
    };

    let seen = Seen::listed(&server.kubeconfig(), timeouts).await;

    assert_eq!(seen.names(ObjectKind::Service), ["shop/cart"]);
}

#[tokio::test]
async fn changes_during_an_outage_are_seen_after_it() {
    let server = Server::start();
    server.apply(service("shop/stays", "10.96.0.1"));
    server.apply(service("shop/goes", "10.96.0.2"));
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    server.go_down();
    server.until_watched("services", 0).await;
    server.delete("services", "shop/goes");
    server.apply(service("shop/comes", "10.96.0.3"));
    server.come_up();

    seen.until_exists(ObjectKind::Service, "shop/comes").await;
    assert_eq!(seen.deleted, ["Service shop/goes"]);
}

#[tokio::test]
async fn a_rejected_token_is_retried() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    server.bar("services", 401);
    let mut seen = Seen::watch(&server.kubeconfig(), TIMEOUTS).await;
    server.until_requested("services", 2).await;

    server.admit("services");

    seen.until_exists(ObjectKind::Service, "shop/cart").await;
}

#[tokio::test]
async fn an_unavailable_optional_kind_delays_nothing_and_is_retried_rarely() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    server.bar("servicecidrs", 404);
    server.bar("nodes", 403);

    let seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    assert_eq!(seen.names(ObjectKind::Service), ["shop/cart"]);
    assert_eq!(server.requests("servicecidrs").len(), 1);
    assert_eq!(server.requests("nodes").len(), 1);
}

#[tokio::test]
async fn an_optional_kind_is_seen_once_it_is_available() {
    let server = Server::start();
    server.apply(node(OUR_NODE, "192.0.2.1"));
    server.apply(service_cidr("kubernetes", "10.96.0.0/12"));
    server.bar("servicecidrs", 404);
    server.bar("nodes", 403);
    let timeouts = WatchTimeouts {
        unavailable: Duration::from_millis(200),
        ..TIMEOUTS
    };
    let mut seen = Seen::listed(&server.kubeconfig(), timeouts).await;
    server.until_requested("servicecidrs", 2).await;
    server.until_requested("nodes", 2).await;

    server.admit("servicecidrs");
    server.admit("nodes");

    seen.until_exists(ObjectKind::ServiceCidr, "kubernetes")
        .await;
    seen.until_exists(ObjectKind::Node, OUR_NODE).await;
    assert_eq!(seen.listed.len(), 4, "{:?}", seen.listed);
}

/// An API server that has just started answers 403 until it has loaded its RBAC rules.
#[tokio::test]
async fn a_kind_that_is_forbidden_for_a_moment_is_seen_within_seconds() {
    let server = Server::start();
    server.apply(node(OUR_NODE, "192.0.2.1"));
    server.apply(service_cidr("kubernetes", "10.96.0.0/12"));
    server.bar("servicecidrs", 404);
    server.bar("nodes", 403);
    let timeouts = WatchTimeouts {
        unavailable: WatchTimeouts::default().unavailable,
        ..TIMEOUTS
    };
    let mut seen = Seen::listed(&server.kubeconfig(), timeouts).await;

    server.admit("servicecidrs");
    server.admit("nodes");

    seen.until_exists(ObjectKind::ServiceCidr, "kubernetes")
        .await;
    seen.until_exists(ObjectKind::Node, OUR_NODE).await;
}

#[tokio::test]
async fn forbidden_services_are_not_treated_as_deleted() {
    let server = Server::start();
    server.apply(service("shop/cart", "10.96.0.1"));
    server.bar("services", 403);
    let mut seen = Seen::watch(&server.kubeconfig(), TIMEOUTS).await;
    seen.until("the other kinds are listed", |seen| seen.listed.len() == 3)
        .await;
    server.until_requested("services", 2).await;
    assert!(!seen.listed.contains(&ObjectKind::Service));

    server.admit("services");

    seen.until_exists(ObjectKind::Service, "shop/cart").await;
}
