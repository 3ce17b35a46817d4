//! Node objects and `ServiceCIDRs`.

use libtest_mimic::Trial;

use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::{Cluster, Family, everywhere, names, servers};
use crate::lab::{Outcome, manifest};

pub(super) fn tests() -> Vec<Trial> {
    use super::node;
    crate::trials!(node:
        without_a_node_object_node_ports_are_on_the_address_of_the_default_route,
        a_node_whose_internal_ips_change_serves_node_ports_on_the_new_ones,
        unallocated_addresses_are_dropped_while_a_service_cidr_exists,
    )
}

fn web(shop: &Shop) -> String {
    cart().node_port(NODE_PORT).yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()
}

fn without_a_node_object_node_ports_are_on_the_address_of_the_default_route() {
    let shop = Shop::new();
    shop.manifests.remove("node.yaml");
    let _daemon = shop.start(&web(&shop));
    for (family, protocol) in everywhere() {
        for source in [&shop.cluster.client, &shop.cluster.node] {
            let probe = source.probe(protocol, (family.lan(2), NODE_PORT));
            assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
        }
        let other = (Cluster::secondary_ip(family), NODE_PORT);
        let probe = shop.cluster.client.probe(protocol, other);
        assert!(probe.send().is_refused_at_once(), "{probe}");
    }
}

fn a_node_whose_internal_ips_change_serves_node_ports_on_the_new_ones() {
    let shop = Shop::new();
    let daemon = shop.start(&web(&shop));
    daemon.apply(
        "node.yaml",
        &manifest::node(&Family::ALL.map(Cluster::secondary_ip)),
    );
    for (family, protocol) in everywhere() {
        let probe = |ip| shop.cluster.client.probe(protocol, (ip, NODE_PORT));
        let new = probe(Cluster::secondary_ip(family));
        assert_eq!(servers(&new), names(["pod-1:8080"]), "{new}");
        let old = probe(family.lan(2));
        assert!(old.send().is_refused_at_once(), "{old}");
    }
}

fn unallocated_addresses_are_dropped_while_a_service_cidr_exists() {
    let shop = Shop::new();
    let daemon = shop.start(&web(&shop));
    let unallocated = |dropped: bool, when: &str| {
        for (family, protocol) in everywhere() {
            let source = shop.cluster.pod("pod-3");
            let probe = source
                .probe(protocol, (family.cluster_ip(200), 80))
                .briefly();
            let outcome = probe.send();
            assert_eq!(
                outcome == Outcome::TimedOut,
                dropped,
                "{probe} {when}: {outcome:?}"
            );
            assert_eq!(
                outcome.server() == Some("gateway"),
                !dropped,
                "{probe} {when}: {outcome:?}"
            );
        }
    };
    unallocated(true, "at the start");
    daemon.remove("service-cidr.yaml");
    unallocated(false, "without a ServiceCIDR");
    daemon.apply("service-cidr.yaml", &manifest::service_cidr());
    unallocated(true, "with a ServiceCIDR again");
}
