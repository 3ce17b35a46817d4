//! Node ports: every source reaches them on the node's primary addresses.

use libtest_mimic::Trial;

use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::{Cluster, Family, Protocol, Server, everywhere, names, servers};
use crate::lab::{Service, Slices, chi};

pub(super) fn tests() -> Vec<Trial> {
    use super::node_port;
    crate::trials!(node_port:
        a_client_outside_draws_endpoints_with_equal_probability,
        pods_and_the_node_itself_reach_a_node_port,
        a_node_port_is_served_on_the_primary_address_only,
        one_number_belongs_to_different_services_in_tcp_and_udp,
        a_node_port_takes_precedence_over_a_server_of_the_host,
    )
}

fn a_client_outside_draws_endpoints_with_equal_probability() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let _daemon =
        shop.start(&(cart().node_port(NODE_PORT).yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .client
            .probe(protocol, (family.lan(2), NODE_PORT));
        let tally = probe.send_times(2_000);
        chi::assert_uniform(
            &tally,
            &["pod-1:8080", "pod-2:8080", "remote-1:8080"],
            &probe.to_string(),
        );
    }
}

fn pods_and_the_node_itself_reach_a_node_port() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    let _daemon =
        shop.start(&(cart().node_port(NODE_PORT).yaml() + &cart_slices(endpoints).yaml()));
    let cluster = &shop.cluster;
    for (family, protocol) in everywhere() {
        for source in [
            &cluster.node,
            cluster.pod("pod-3"),
            cluster.pod("remote-2"),
            &cluster.other_node,
        ] {
            let probe = source.probe(protocol, (family.lan(2), NODE_PORT));
            assert_eq!(
                servers(&probe),
                names(["pod-1:8080", "remote-1:8080"]),
                "{probe}"
            );
        }
    }
}

fn a_node_port_is_served_on_the_primary_address_only() {
    let shop = Shop::new();
    let node = &shop.cluster.node;
    let addresses = Family::ALL.map(|family| (Cluster::secondary_ip(family), NODE_PORT).into());
    let _host_server = Server::start(&node.namespace, "host", &addresses);
    let _daemon =
        shop.start(&(cart().node_port(NODE_PORT).yaml() + &cart_slices(&shop.cluster.pods).yaml()));
    for (family, protocol) in everywhere() {
        for source in [&shop.cluster.client, node, shop.cluster.pod("pod-3")] {
            let probe = source.probe(protocol, (Cluster::secondary_ip(family), NODE_PORT));
            assert_eq!(servers(&probe), names(["host"]), "{probe}");
        }
        let loopback = match family {
            Family::V4 => [127, 0, 0, 1].into(),
            Family::V6 => [0, 0, 0, 0, 0, 0, 0, 1_u16].into(),
        };
        let probe = node.probe(protocol, (loopback, NODE_PORT)).briefly();
        assert!(probe.send().is_refused_at_once(), "{probe}");
    }
}

fn one_number_belongs_to_different_services_in_tcp_and_udp() {
    let shop = Shop::new();
    let [web, dns] = shop.pods(["pod-1", "pod-2"]);
    let service = |name: &str, n, protocol| {
        Service::new(name, n)
            .port("", protocol, 80)
            .node_port(NODE_PORT)
            .yaml()
    };
    let slices = |name: &str, protocol| Slices::of(name).port("", protocol, 8080);
    let _daemon = shop.start(
        &(service("shop/web", 1, Protocol::Tcp)
            + &slices("shop/web", Protocol::Tcp).ready([web]).yaml()
            + &service("shop/dns", 2, Protocol::Udp)
            + &slices("shop/dns", Protocol::Udp).ready([dns]).yaml()),
    );
    for family in Family::ALL {
        let probe = |protocol| {
            shop.cluster
                .client
                .probe(protocol, (family.lan(2), NODE_PORT))
        };
        assert_eq!(
            servers(&probe(Protocol::Tcp)),
            names(["pod-1:8080"]),
            "{family}"
        );
        assert_eq!(
            servers(&probe(Protocol::Udp)),
            names(["pod-2:8080"]),
            "{family}"
        );
    }
}

fn a_node_port_takes_precedence_over_a_server_of_the_host() {
    let shop = Shop::new();
    let addresses = Family::ALL.map(|family| (family.lan(2), NODE_PORT).into());
    let _host_server = Server::start(&shop.cluster.node.namespace, "host", &addresses);
    let endpoints = shop.pods(["pod-1"]);
    let _daemon =
        shop.start(&(cart().node_port(NODE_PORT).yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        for source in [
            &shop.cluster.client,
            &shop.cluster.node,
            shop.cluster.pod("pod-3"),
        ] {
            let probe = source.probe(protocol, (family.lan(2), NODE_PORT));
            assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
        }
    }
}
