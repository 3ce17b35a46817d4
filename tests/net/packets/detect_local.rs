//! The detection of local Pods: the modes of `--detect-local-mode` other than `ClusterCIDR`.

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices};
use super::{Cluster, Daemon, Family, Host, everywhere, names, servers};
use crate::lab::manifest;

pub(super) fn tests() -> Vec<Trial> {
    use super::detect_local;
    crate::trials!(detect_local:
        with_node_cidrs_pods_of_other_nodes_are_not_local,
        changed_node_cidrs_apply_at_once,
        in_a_family_without_a_node_cidr_cluster_ips_do_not_masquerade,
        with_an_interface_prefix_sources_behind_other_interfaces_are_not_local,
        with_a_bridge_sources_behind_other_interfaces_are_not_local,
    )
}

/// Starts kube-dnat with a cart of external policy Local, a local endpoint and a remote endpoint.
fn start<'a>(shop: &'a Shop, flags: &[&str]) -> Daemon<'a> {
    let service = cart_on_every_frontend().spec("externalTrafficPolicy", json!("Local"));
    let slices = cart_slices(shop.pods(["pod-2", "remote-1"]));
    shop.manifests
        .write("shop.yaml", &(service.yaml() + &slices.yaml()));
    Daemon::start_with(&shop.cluster, &shop.manifests, flags)
}

/// Asserts whether kube-dnat treats a source as a local Pod.
///
/// A local Pod keeps its source address on a `ClusterIP`, and reaches every endpoint of policy
/// Local through a node port. Any other source is masqueraded, and reaches local endpoints only.
fn assert_treated_as_pod(source: &Host, is_pod: bool) {
    let (here, all) = (
        names(["pod-2:8080"]),
        names(["pod-2:8080", "remote-1:8080"]),
    );
    for (family, protocol) in everywhere() {
        let cluster_ip = source.probe(protocol, (family.cluster_ip(1), 80));
        assert_eq!(servers(&cluster_ip), all, "{cluster_ip}");
        for _ in 0..10 {
            let answer = cluster_ip.send().answer();
            assert_eq!(answer.keeps_source(), is_pod, "{cluster_ip}: {answer:?}");
        }
        let node_port = source.probe(protocol, (family.lan(2), NODE_PORT));
        let expected = if is_pod { &all } else { &here };
        assert_eq!(&servers(&node_port), expected, "{node_port}");
        for _ in 0..10 {
            let answer = node_port.send().answer();
            assert!(answer.keeps_source(), "{node_port}: {answer:?}");
        }
    }
}

/// Asserts that the node itself is masqueraded and reaches every endpoint. Its packets have no
/// input interface and no Pod as their source.
fn assert_node_is_no_pod(cluster: &Cluster) {
    for (family, protocol) in everywhere() {
        for to in [(family.cluster_ip(1), 80), (family.lan(2), NODE_PORT)] {
            let probe = cluster.node.probe(protocol, to);
            let probe = probe.source_ip(Cluster::secondary_ip(family));
            assert_eq!(
                servers(&probe),
                names(["pod-2:8080", "remote-1:8080"]),
                "{probe}"
            );
            for _ in 0..10 {
                let answer = probe.send().answer();
                assert!(!answer.keeps_source(), "{probe}: {answer:?}");
            }
        }
    }
}

fn with_node_cidrs_pods_of_other_nodes_are_not_local() {
    let shop = Shop::new();
    let _daemon = start(&shop, &["--detect-local-mode", "NodeCIDR"]);
    assert_treated_as_pod(shop.cluster.pod("pod-1"), true);
    assert_treated_as_pod(&shop.cluster.client, false);
    assert_node_is_no_pod(&shop.cluster);
    for (family, protocol) in everywhere() {
        let pod = shop.cluster.pod("remote-2");
        let probe = pod.probe(protocol, (family.cluster_ip(1), 80));
        for _ in 0..10 {
            let answer = probe.send().answer();
            assert!(
                Cluster::is_node(answer.seen_from.ip()),
                "{probe}: {answer:?}"
            );
        }
    }
}

fn changed_node_cidrs_apply_at_once() {
    let shop = Shop::new();
    let ips = Family::ALL.map(|family| family.lan(2));
    let node = |cidrs: [&str; 2]| manifest::node_with_pod_cidrs(&ips, &cidrs.map(str::to_owned));
    shop.manifests
        .write("node.yaml", &node(["10.250.0.0/24", "fd00:250::/64"]));
    let daemon = start(&shop, &["--detect-local-mode", "NodeCIDR"]);
    assert_treated_as_pod(shop.cluster.pod("pod-1"), false);
    daemon.apply("node.yaml", &manifest::node(&ips));
    assert_treated_as_pod(shop.cluster.pod("pod-1"), true);
}

fn in_a_family_without_a_node_cidr_cluster_ips_do_not_masquerade() {
    let shop = Shop::new();
    let ips = Family::ALL.map(|family| family.lan(2));
    let cidrs = [String::from("10.244.1.0/24")];
    shop.manifests
        .write("node.yaml", &manifest::node_with_pod_cidrs(&ips, &cidrs));
    let local = cart_on_every_frontend().spec("externalTrafficPolicy", json!("Local"));
    let slices = cart_slices(shop.pods(["pod-2"]));
    shop.manifests
        .write("shop.yaml", &(local.yaml() + &slices.yaml()));
    let flags = ["--detect-local-mode", "NodeCIDR"];
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    for (family, protocol) in everywhere() {
        let client = shop
            .cluster
            .client
            .probe(protocol, (family.cluster_ip(1), 80));
        let answer = client.send().answer();
        assert_eq!(
            answer.keeps_source(),
            family == Family::V6,
            "{client}: {answer:?}"
        );
    }
    // Policy Local still sends both families to the local endpoint.
    let slices = cart_slices(shop.pods(["pod-2", "remote-1"]));
    daemon.apply("shop.yaml", &(local.yaml() + &slices.yaml()));
    for (family, protocol) in everywhere() {
        let client = shop
            .cluster
            .client
            .probe(protocol, (family.lan(2), NODE_PORT));
        assert_eq!(servers(&client), names(["pod-2:8080"]), "{client}");
    }
}

fn with_an_interface_prefix_sources_behind_other_interfaces_are_not_local() {
    let shop = Shop::new();
    let mode = ["--detect-local-mode", "InterfaceNamePrefix"];
    let _daemon = start(
        &shop,
        &[&mode[..], &["--pod-interface-name-prefix", "pod-"]].concat(),
    );
    assert_treated_as_pod(shop.cluster.pod("pod-1"), true);
    assert_treated_as_pod(shop.cluster.pod("pod-3"), true);
    assert_treated_as_pod(&shop.cluster.client, false);
    assert_node_is_no_pod(&shop.cluster);
}

fn with_a_bridge_sources_behind_other_interfaces_are_not_local() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    let bridged = shop.cluster.pod("pod-1");
    node.ip("link add cni0 type bridge\nlink set cni0 up\nlink set pod-1 master cni0\n");
    for family in Family::ALL {
        let (pod, gateway) = (bridged.ip(family), family.pod(1, 1));
        let length = if pod.is_ipv4() { 32 } else { 128 };
        node.ip(&format!(
            "addr add {gateway}/{length} dev cni0\nroute replace {pod}/{length} dev cni0\n"
        ));
    }
    node.await_addresses();
    let mode = ["--detect-local-mode", "BridgeInterface"];
    let _daemon = start(
        &shop,
        &[&mode[..], &["--pod-bridge-interface", "cni0"]].concat(),
    );
    assert_treated_as_pod(bridged, true);
    assert_treated_as_pod(shop.cluster.pod("pod-3"), false);
    assert_treated_as_pod(&shop.cluster.client, false);
    assert_node_is_no_pod(&shop.cluster);
}
