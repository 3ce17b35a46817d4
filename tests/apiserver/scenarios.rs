//! The scenarios that run against the tests' own API server and against the real one.

use std::path::PathBuf;

use kube_dnat::planner::model::{Object, ObjectKind};
use serde_json::Value;

use super::objects::{labelled, node, service, service_cidr, slice};
use super::seen::{OUR_NODE, Seen, TIMEOUTS};
use super::server::Server;

/// An API server whose `ClusterIPs` are in 10.96.0.0/24, with the namespace `default`.
pub(crate) trait ApiServer {
    fn kubeconfig(&self) -> PathBuf;
    async fn apply(&self, object: Value);
    async fn delete(&self, plural: &str, key: &str);
    async fn restart(&mut self);
}

impl ApiServer for Server {
    fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig()
    }

    async fn apply(&self, object: Value) {
        self.apply(object);
    }

    async fn delete(&self, plural: &str, key: &str) {
        self.delete(plural, key);
    }

    async fn restart(&mut self) {
        self.go_down();
        self.until_watched("services", 0).await;
        self.come_up();
    }
}

/// Lists objects and follows their changes.
pub(crate) async fn lists_and_follows(server: &impl ApiServer) {
    server.apply(service("default/one", "10.96.0.11")).await;
    server
        .apply(slice("default/one-1", "one", "10.0.0.1"))
        .await;
    server.apply(node(OUR_NODE, "192.0.2.1")).await;

    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;
    assert!(seen.has(ObjectKind::Service, "default/one"));
    assert!(seen.has(ObjectKind::EndpointSlice, "default/one-1"));
    assert!(seen.has(ObjectKind::Node, OUR_NODE));

    server.apply(service("default/two", "10.96.0.12")).await;
    seen.until_exists(ObjectKind::Service, "default/two").await;
    server.apply(service_cidr("second", "10.97.0.0/24")).await;
    seen.until_exists(ObjectKind::ServiceCidr, "second").await;
    server
        .apply(slice("default/one-1", "one", "10.0.0.2"))
        .await;
    seen.until("the changed endpoint", |seen| {
        let mut objects = seen.objects.values();
        objects.any(|object| format!("{object:?}").contains("10.0.0.2"))
    })
    .await;

    server.delete("services", "default/one").await;
    seen.until_deleted(ObjectKind::Service, "default/one").await;
    server.delete("endpointslices", "default/one-1").await;
    seen.until_deleted(ObjectKind::EndpointSlice, "default/one-1")
        .await;
    server.delete("servicecidrs", "second").await;
    seen.until_deleted(ObjectKind::ServiceCidr, "second").await;
    server.delete("services", "default/two").await;
    server.delete("nodes", OUR_NODE).await;
    seen.until_deleted(ObjectKind::Node, OUR_NODE).await;
}

const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Ignores headless Services, Services of another proxy, slices of headless Services and other
/// Nodes.
///
/// An object that gets or loses the label disappears or appears.
pub(crate) async fn selects(server: &impl ApiServer) {
    let ours = service("default/ours", "10.96.0.21");
    let others = service("default/others", "10.96.0.22");
    let our_slice = slice("default/ours-1", "ours", "10.0.0.1");
    let headless_slice = slice("default/headless-1", "headless", "10.0.0.2");
    server.apply(service("default/headless", "None")).await;
    server
        .apply(labelled(others.clone(), OTHER_PROXY, "mesh"))
        .await;
    server.apply(ours.clone()).await;
    server.apply(labelled(headless_slice, HEADLESS, "")).await;
    server.apply(our_slice.clone()).await;
    server.apply(node("node-2", "192.0.2.2")).await;
    server.apply(node(OUR_NODE, "192.0.2.1")).await;

    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;
    assert!(seen.has(ObjectKind::Service, "default/ours"));
    assert!(!seen.has(ObjectKind::Service, "default/headless"));
    assert!(!seen.has(ObjectKind::Service, "default/others"));
    assert!(seen.has(ObjectKind::EndpointSlice, "default/ours-1"));
    assert!(!seen.has(ObjectKind::EndpointSlice, "default/headless-1"));
    assert_eq!(seen.names(ObjectKind::Node), [OUR_NODE]);

    let labelled_ours = labelled(ours.clone(), OTHER_PROXY, "mesh");
    server.apply(labelled_ours).await;
    seen.until_deleted(ObjectKind::Service, "default/ours")
        .await;
    server.apply(ours).await;
    seen.until_exists(ObjectKind::Service, "default/ours").await;
    server.apply(labelled(our_slice, HEADLESS, "")).await;
    seen.until_deleted(ObjectKind::EndpointSlice, "default/ours-1")
        .await;
    // The label matters on slices only.
    server.apply(labelled(others, HEADLESS, "")).await;
    seen.until_exists(ObjectKind::Service, "default/others")
        .await;

    for name in ["ours", "others", "headless"] {
        server.delete("services", &format!("default/{name}")).await;
    }
    for name in ["ours-1", "headless-1"] {
        let key = format!("default/{name}");
        server.delete("endpointslices", &key).await;
    }
    server.delete("nodes", "node-2").await;
    server.delete("nodes", OUR_NODE).await;
    seen.until_deleted(ObjectKind::Node, OUR_NODE).await;
}

/// Survives a restart of the API server: no object is deleted, and later changes are followed.
pub(crate) async fn outlives_a_restart(server: &mut impl ApiServer) {
    server.apply(service("default/before", "10.96.0.31")).await;
    let mut seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;
    seen.deleted.clear();

    server.restart().await;
    server.apply(service("default/after", "10.96.0.32")).await;
    seen.until_exists(ObjectKind::Service, "default/after")
        .await;
    assert_eq!(seen.deleted, [""; 0]);

    server.delete("services", "default/before").await;
    seen.until_deleted(ObjectKind::Service, "default/before")
        .await;
    server.delete("services", "default/after").await;
    seen.until_deleted(ObjectKind::Service, "default/after")
        .await;
}

#[tokio::test]
async fn objects_are_listed_and_their_changes_followed() {
    lists_and_follows(&Server::start()).await;
}

#[tokio::test]
async fn unselected_objects_are_never_sent() {
    let server = Server::start();
    selects(&server).await;
    assert!(server.has_sent("services", "default/ours"));
    assert!(!server.has_sent("services", "default/headless"));
    assert!(!server.has_sent("endpointslices", "default/headless-1"));
    assert!(!server.has_sent("nodes", "node-2"));
}

#[tokio::test]
async fn a_restart_of_the_api_server_loses_nothing() {
    outlives_a_restart(&mut Server::start()).await;
}

#[tokio::test]
async fn fields_arrive_as_they_were_sent() {
    let server = Server::start();
    server.apply(node(OUR_NODE, "192.0.2.1"));
    server.apply(service_cidr("kubernetes", "10.96.0.0/12"));

    let seen = Seen::listed(&server.kubeconfig(), TIMEOUTS).await;

    let objects: Vec<&Object> = seen.objects.values().collect();
    let [Object::Node(node), Object::ServiceCidr(service_cidr)] = objects[..] else {
        panic!("{objects:?}");
    };
    assert_eq!(
        node.addresses,
        ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(service_cidr.cidrs, ["10.96.0.0/12".parse().unwrap()]);
}
