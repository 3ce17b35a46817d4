//! The setup of most packet tests: a cluster whose Pods all serve port 8080, and the Service
//! `shop/cart`, whose port 80 leads to these Pods in TCP and UDP.

use super::{Cluster, Daemon, Family, Host, IpAddr, Manifests, Server};
use crate::lab::{Service, Slices};

/// The cluster, the manifests, and the servers in the Pods.
pub(super) struct Shop {
    pub(super) cluster: Cluster,
    pub(super) manifests: Manifests,
    _servers: Vec<Server>,
}

/// The node port of `shop/cart`, if it has one.
pub(super) const NODE_PORT: u16 = 30080;

impl Shop {
    /// Creates a cluster without programmed Services.
    pub(super) fn new() -> Self {
        let cluster = Cluster::new();
        let pods = cluster.pods.iter().chain(&cluster.remote_pods);
        let servers = pods.map(|pod| pod.serve(8080)).collect();
        Self {
            cluster,
            manifests: Manifests::new(),
            _servers: servers,
        }
    }

    /// Writes these manifests and starts kube-dnat.
    pub(super) fn start(&self, manifests: &str) -> Daemon<'_> {
        self.manifests.write("shop.yaml", manifests);
        Daemon::start(&self.cluster, &self.manifests)
    }

    /// Starts kube-dnat with tables that it does not own.
    pub(super) fn start_without_owner(&self, manifests: &str) -> Daemon<'_> {
        self.manifests.write("shop.yaml", manifests);
        let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
        let flags = ["--cluster-cidr", &cidrs, "--table-owner=false"];
        Daemon::start_with(&self.cluster, &self.manifests, &flags)
    }

    /// Returns the Pods with these names.
    pub(super) fn pods<const N: usize>(&self, names: [&str; N]) -> [&Host; N] {
        names.map(|name| self.cluster.pod(name))
    }
}

/// Returns the Service `shop/cart` with the first `ClusterIPs`.
pub(super) fn cart() -> Service {
    Service::new("shop/cart", 1).both("http", 80)
}

/// Returns the slices of `shop/cart` with these ready endpoints.
pub(super) fn cart_slices<'a>(ready: impl IntoIterator<Item = &'a Host>) -> Slices {
    Slices::of("shop/cart").both("http", 8080).ready(ready)
}

/// Returns `shop/cart` with a node port, the first external IPs and the first load-balancer IPs.
pub(super) fn cart_on_every_frontend() -> Service {
    cart()
        .node_port(NODE_PORT)
        .external_ip(1)
        .load_balancer_ip(1)
}

/// Returns the names and addresses of the frontends of [`cart_on_every_frontend`].
pub(super) fn frontends(family: Family) -> [(&'static str, (IpAddr, u16)); 4] {
    [
        ("ClusterIP", (family.cluster_ip(1), 80)),
        ("node port", (family.lan(2), NODE_PORT)),
        ("external IP", (family.external_ip(1), 80)),
        ("load-balancer IP", (family.load_balancer_ip(1), 80)),
    ]
}
