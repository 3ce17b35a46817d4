//! Builders of objects as the API server stores them.

use serde_json::{Value, json};

/// Builds a Service with a `ClusterIP` (or `None`) and port 80.
pub(crate) fn service(name: &str, cluster_ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
            "selector": {"app": "shop"},
        },
    })
}

/// Builds a slice of Service `of` in the same namespace.
pub(crate) fn slice(name: &str, of: &str, address: &str) -> Value {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata(name),
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    labelled(slice, "kubernetes.io/service-name", of)
}

/// Builds a Node with an internal IP.
pub(crate) fn node(name: &str, internal_ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": internal_ip}]},
    })
}

/// Builds a `ServiceCIDR`.
pub(crate) fn service_cidr(name: &str, cidr: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
        "spec": {"cidrs": [cidr]},
    })
}

/// Adds a label to an object.
pub(crate) fn labelled(mut object: Value, label: &str, value: &str) -> Value {
    object["metadata"]["labels"][label] = json!(value);
    object
}

fn metadata(name: &str) -> Value {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    json!({"namespace": namespace, "name": name})
}
