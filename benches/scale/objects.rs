//! The objects of a cluster, as an API server stores them.

use serde_json::{Value, json};

use super::api_server::ApiServer;
use super::cluster::{self, Cluster, ENDPOINT_PORT, PORT, SLICE};
use super::slice;

/// Creates all objects of a cluster on a server, except the `ServiceCIDR`, which it has.
pub(crate) fn fill(server: &ApiServer, cluster: Cluster) {
    server.apply([node()]);
    server.apply(services(cluster));
    server.apply(slices(cluster));
}

/// Returns the Node that the programs run on.
pub(crate) fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]},
    })
}

/// Returns all Services of a cluster.
pub(crate) fn services(cluster: Cluster) -> impl Iterator<Item = Value> {
    (0..cluster.services).map(move |number| service(cluster, number))
}

/// Returns all slices of a cluster.
pub(crate) fn slices(cluster: Cluster) -> impl Iterator<Item = Value> {
    (0..cluster.services).flat_map(move |number| {
        let starts = (0..cluster.endpoints).step_by(SLICE as usize);
        starts.map(move |first| {
            let last = cluster.endpoints.min(first + SLICE);
            slice::json(cluster, number, first, first..last)
        })
    })
}

/// Returns the key of the slice of a Service whose first endpoint is number `first`.
pub(crate) fn slice_name(number: u32, first: u32) -> String {
    format!("default/service-{number}-{first}")
}

/// Returns a Service's first slice, in which every second change replaces the first endpoint.
pub(crate) fn replaced(cluster: Cluster, number: u32) -> Value {
    let service = (number / 2) % cluster.services;
    slice::json(cluster, service, 0, cluster.replacing(number))
}

/// Returns a Service of a cluster.
pub(crate) fn service(cluster: Cluster, number: u32) -> Value {
    let name = format!("service-{number}");
    let cluster_ip = cluster::cluster_ip(number).to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "labels": {"app": name}},
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"name": "http", "protocol": cluster.protocol.to_string().to_uppercase(), "port": PORT, "targetPort": ENDPOINT_PORT}],
            "selector": {"app": name},
        },
        "status": {"loadBalancer": {}},
    })
}
