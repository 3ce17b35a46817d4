//! The clusters of `cluster`, as an API server stores them.

use serde_json::{Value, json};

use super::cluster::{self, Cluster, ENDPOINT_PORT, PORT, SLICE};
use super::server::Server;
use super::slice;

/// Gives a server everything there is.
pub(crate) fn fill(server: &Server, cluster: Cluster) {
    server.apply(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]},
    }));
    server.apply(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/11"]},
    }));
    for number in 0..cluster.services {
        server.apply(service(number));
        for first in (0..cluster.endpoints).step_by(SLICE as usize) {
            let last = cluster.endpoints.min(first + SLICE);
            server.apply(slice::json(cluster, number, first, first..last));
        }
    }
}

/// A Service's first slice with another endpoint in the place of the first, or with that again.
pub(crate) fn replaced(cluster: Cluster, turn: u32) -> Value {
    let service = (turn / 2) % cluster.services;
    slice::json(cluster, service, 0, cluster.replacing(turn))
}

fn service(number: u32) -> Value {
    let name = format!("service-{number}");
    let cluster_ip = cluster::cluster_ip(number).to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "bench", "name": name, "labels": {"app": name}},
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"name": "http", "protocol": "TCP", "port": PORT, "targetPort": ENDPOINT_PORT}],
            "selector": {"app": name},
        },
        "status": {"loadBalancer": {}},
    })
}
