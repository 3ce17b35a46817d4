//! Problems are reported once in each place: in the log, in `status`, and in the gauge of problem
//! objects.

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use serde_json::Value;

use super::admin::{await_sync, metric};
use super::commands::json;
use super::explain::run;
use super::shop::{Shop, cart, cart_slices};
use super::{Daemon, Family};
use crate::lab::{manifest, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::silence;
    crate::trials!(silence:
        an_unknown_node_name_is_reported,
        a_local_endpoint_outside_the_pod_ranges_is_reported,
    )
}

/// Reads the gauge of problem objects for a reason.
pub(super) fn objects_not_served(shop: &Shop, reason: &str) -> f64 {
    let name = format!("kube_dnat_objects_not_served{{reason=\"{reason}\"}}");
    metric(shop, &name).unwrap_or_else(|| panic!("no {name}"))
}

fn an_unknown_node_name_is_reported() {
    let shop = Shop::new();
    shop.manifests.remove("node.yaml");
    let elsewhere = cart_slices(shop.pods(["remote-1"])).yaml();
    let daemon = shop.start(&(cart().yaml() + &elsewhere));
    let what = "there is no Node of this name, and no endpoint is on one";
    let logged = || daemon.diagnostics("Node node-1", "UnknownNode").len();
    wait_until("the problem is logged", || logged() == 1);
    assert_eq!(daemon.logged(LogEvent::NodeUnknown).len(), 1);
    await_sync(&shop);
    assert!((objects_not_served(&shop, "UnknownNode") - 1.0).abs() < f64::EPSILON);
    let (_, answer) = json(&shop, &["status"]);
    let wrong = answer["daemon"]["problems"]["Node node-1"][0].as_str();
    assert!(wrong.is_some_and(|wrong| wrong.contains(what)), "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(
        out.contains(&format!("PROBLEM    Node node-1: {what}")),
        "{out}"
    );
    // One endpoint on this node confirms the name.
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    daemon.apply("shop.yaml", &(cart().yaml() + &slices));
    await_sync(&shop);
    assert!(objects_not_served(&shop, "UnknownNode").abs() < f64::EPSILON);
    // The Node object confirms the name too.
    daemon.apply("shop.yaml", &(cart().yaml() + &elsewhere));
    wait_until("the problem is logged again", || logged() == 2);
    let internal_ips = Family::ALL.map(|family| family.lan(2));
    daemon.apply("node.yaml", &manifest::node(&internal_ips));
    await_sync(&shop);
    assert!(objects_not_served(&shop, "UnknownNode").abs() < f64::EPSILON);
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(
        answer["daemon"]["problems"],
        Value::Object(serde_json::Map::new())
    );
    assert_eq!(answer["daemon"]["eligible"], true, "{answer}");
    // A Node that the autoscaler removes is reported as not eligible.
    let leaving = serde_json::json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
        "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": Family::V4.lan(2)}]},
    });
    daemon.apply("node.yaml", &leaving.to_string());
    await_sync(&shop);
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(
        (code, &answer["daemon"]["eligible"]),
        (2, &Value::Bool(false)),
        "{answer}"
    );
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.contains("NOT ready for load balancers"), "{out}");
}

fn a_local_endpoint_outside_the_pod_ranges_is_reported() {
    let shop = Shop::new();
    let slices = |pods: &[&str]| cart_slices(pods.iter().map(|pod| shop.cluster.pod(pod))).yaml();
    shop.manifests.write(
        "shop.yaml",
        &(cart().yaml() + &slices(&["pod-1", "pod-2", "remote-1"])),
    );
    let flags = ["--cluster-cidr=10.32.0.0/16"];
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    let logged = || daemon.diagnostics("Service shop/cart", "EndpointOutsidePodRanges");
    wait_until("the problem is logged", || logged().len() == 1);
    let line = logged().remove(0);
    let address = shop.cluster.pod("pod-1").ip(Family::V4).to_string();
    assert!(line.contains(&address), "{line}");
    await_sync(&shop);
    assert!((objects_not_served(&shop, "EndpointOutsidePodRanges") - 1.0).abs() < f64::EPSILON);
    // Endpoints on other nodes can have any address.
    daemon.apply("shop.yaml", &(cart().yaml() + &slices(&["remote-1"])));
    await_sync(&shop);
    assert!(objects_not_served(&shop, "EndpointOutsidePodRanges").abs() < f64::EPSILON);
    assert_eq!(logged().len(), 1);
}
