//! A slice as the `EndpointSlice` controller creates it.

use serde_json::{Value, json};

use super::cluster::{Cluster, ENDPOINT_PORT};

/// Returns the slice of a Service whose first endpoint is number `first`.
pub(crate) fn json(
    cluster: Cluster,
    number: u32,
    first: u32,
    endpoints: impl IntoIterator<Item = u32>,
) -> Value {
    let name = format!("service-{number}");
    let is_bare = std::env::var_os("FLEET_BARE").is_some();
    let endpoint = |endpoint: u32| {
        let node = endpoint % 100;
        let mut object = json!({
            "addresses": [cluster.endpoint(number, endpoint).to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{node}"), "zone": "zone-a",
            "targetRef": {
                "kind": "Pod", "namespace": "default", "name": format!("{name}-7c5ddbdf54-{endpoint:05}"),
                "uid": format!("8d1c6a52-3f5e-4a0e-9d0b-{number:06}{endpoint:06}"),
            },
        });
        if is_bare && let Some(fields) = object.as_object_mut() {
            fields.remove("targetRef");
        }
        object
    };
    let endpoints: Vec<_> = endpoints.into_iter().map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default", "name": format!("{name}-{first}"), "generation": 1,
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": name, "controller": true,
                "uid": format!("5b1c6a52-3f5e-4a0e-9d0b-{number:012}"),
            }],
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": cluster.protocol.to_string().to_uppercase(), "port": ENDPOINT_PORT}],
        "endpoints": endpoints,
    })
}
