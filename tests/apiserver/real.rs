//! The same against the real API server.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::objects::{node, service, service_cidr, slice};
use super::real_server::Real;
use super::scenarios::{ApiServer, lists_and_follows, outlives_a_restart, selects};
use super::server::protobuf;
use super::wire::{at, frames, text};

impl ApiServer for Real {
    fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig()
    }

    async fn apply(&self, object: Value) {
        self.apply(object).await;
    }

    async fn delete(&self, plural: &str, key: &str) {
        self.delete(plural, key).await;
    }

    async fn restart(&mut self) {
        self.restart().await;
    }
}

#[tokio::test]
#[ignore = "needs KUBEBUILDER_ASSETS: etcd and kube-apiserver"]
async fn the_real_api_server_is_listed_followed_and_outlived() {
    let mut real = Real::start("10.96.0.0/24").await;
    lists_and_follows(&real).await;
    selects(&real).await;
    outlives_a_restart(&mut real).await;
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";
/// The length of the mark before `runtime.Unknown`.
const ENVELOPE: usize = b"k8s\0".len();
const JSON: &str = "application/json";

/// Returns an object in protobuf as the tests' own API server writes it.
fn ours(object: &Value) -> Vec<u8> {
    let field = |name: &str| object[name].as_str().expect("a kind and its API");
    let message = protobuf::object(field("kind"), object);
    protobuf::envelope(field("apiVersion"), field("kind"), &message)
}

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}

/// Objects with as many fields as the API server accepts.
fn rich() -> [Value; 4] {
    let mut cart = service("default/cart", "10.96.0.40");
    cart["metadata"]["annotations"] = json!({"b": "", "a": "annotated"});
    cart["spec"]["type"] = json!("LoadBalancer");
    cart["spec"]["externalIPs"] = json!(["192.0.2.80", "192.0.2.81"]);
    cart["spec"]["externalTrafficPolicy"] = json!("Local");
    cart["spec"]["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
    cart["spec"]["loadBalancerClass"] = json!("example.com/class");
    cart["spec"]["trafficDistribution"] = json!("PreferClose");
    cart["spec"]["sessionAffinity"] = json!("ClientIP");
    cart["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 300}});
    cart["spec"]["publishNotReadyAddresses"] = json!(true);
    cart["spec"]["ports"] = json!([
        {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30080},
        {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": "dns", "appProtocol": "dns"},
    ]);
    let mut cart_1 = slice("default/cart-1", "cart", "10.0.0.1");
    cart_1["ports"][0]["appProtocol"] = json!("http");
    cart_1["endpoints"] = json!([{
        "addresses": ["10.0.0.1"], "hostname": "cart-0", "nodeName": "node-1", "zone": "a",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "node-1"}]},
        "deprecatedTopology": {"kubernetes.io/rack": "1"},
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "cart-0", "uid": "1-2"},
    }, {"addresses": ["10.0.0.2"], "conditions": {}}]);
    let mut node_1 = node("node-1", "192.0.2.1");
    node_1["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": "a"});
    node_1["spec"] = json!({
        "podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "providerID": "tests://1",
        "taints": [{"key": "tests", "value": "yes", "effect": "NoSchedule"}],
    });
    node_1["status"]["capacity"] = json!({"cpu": "4", "memory": "16Gi", "pods": "110"});
    node_1["status"]["conditions"] = json!([{
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-02T03:04:05Z",
    }]);
    node_1["status"]["images"] = json!([{"names": ["a", "b"], "sizeBytes": 7_000_000_000_u64}]);
    node_1["status"]["nodeInfo"] = json!({
        "machineID": "m", "systemUUID": "s", "bootID": "b", "kernelVersion": "6.1",
        "osImage": "o", "containerRuntimeVersion": "c", "kubeletVersion": "v1.36.2",
        "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
    });
    [cart, cart_1, node_1, service_cidr("second", "10.97.0.0/24")]
}

#[tokio::test]
#[ignore = "needs KUBEBUILDER_ASSETS: etcd and kube-apiserver"]
async fn the_protobuf_of_both_api_servers_is_equal() {
    let real = Real::start("10.96.0.0/24").await;
    for object in rich() {
        real.apply(object).await;
    }
    let services = "/api/v1/namespaces/default/services";
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    for path in [
        &format!("{services}/cart"),
        &format!("{slices}/cart-1"),
        "/api/v1/nodes/node-1",
        "/apis/networking.k8s.io/v1/servicecidrs/second",
        // A Status.
        &format!("{services}/missing"),
    ] {
        let (_, in_json) = real.get(path, JSON).await;
        let (_, in_protobuf) = real.get(path, PROTOBUF).await;
        assert_eq!(ours(&json(&in_json)), in_protobuf, "{path}");
    }
}

#[tokio::test]
#[ignore = "needs KUBEBUILDER_ASSETS: etcd and kube-apiserver"]
async fn the_lists_and_watches_of_both_api_servers_are_equal() {
    let real = Real::start("10.96.0.0/24").await;
    for object in rich() {
        real.apply(object).await;
    }
    // Other objects may change at any time.
    let path = "/api/v1/services?fieldSelector=metadata.name%3Dcart";
    let mut list = json(&real.get(path, JSON).await.1);
    let real_list = real.get(path, PROTOBUF).await.1;
    let version = text(&real_list[ENVELOPE..], &[2, 1, 2]);
    list["metadata"]["resourceVersion"] = json!(version);
    let items = list["items"].as_array().expect("items");
    let items = items.iter().map(|item| protobuf::object("Service", item));
    let items: Vec<_> = items.collect();
    let message = protobuf::list(&list["metadata"], items.iter().map(Vec::as_slice));
    let ours_in_protobuf = protobuf::envelope("v1", "ServiceList", &message);
    assert_eq!(real_list, ours_in_protobuf);

    let path = "/api/v1/services?fieldSelector=metadata.name%3Dcart&watch=true\
        &sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1";
    let (_, in_json) = real.get(path, JSON).await;
    let (_, in_protobuf) = real.get(path, STREAM).await;
    let real_frames = frames(&in_protobuf).expect("frames");
    let events = in_json.split(|byte| *byte == b'\n');
    let mut ended = false;
    for (real_frame, event) in real_frames.iter().zip(events) {
        let mut event = json(event);
        let kind = event["type"].as_str().expect("a type").to_owned();
        let object = &mut event["object"];
        if kind == "BOOKMARK" {
            // The two requests may see different versions.
            let enveloped = at(real_frame, &[2, 1]).remove(0);
            let version = text(&enveloped[ENVELOPE..], &[2, 1, 6]);
            object["metadata"]["resourceVersion"] = json!(version);
        }
        let mut our_frame = Vec::new();
        protobuf::event(&mut our_frame, &kind, &ours(object));
        assert_eq!(
            frames(&our_frame).expect("a frame"),
            std::slice::from_ref(real_frame)
        );
        if kind == "BOOKMARK" {
            ended = true;
            break;
        }
    }
    assert!(ended, "{in_json:?}");
}
