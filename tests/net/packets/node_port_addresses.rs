//! The addresses of the node that serve node ports: `--nodeport-addresses`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::{Cluster, Daemon, Family, Host, Protocol, names, servers};
use crate::lab::{Service, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::node_port_addresses;
    crate::trials!(node_port_addresses:
        all_serves_every_address_except_loopback,
        ranges_limit_the_addresses,
        a_family_without_a_range_serves_all_its_addresses,
        added_and_removed_addresses_are_followed,
        node_ports_at_a_load_balancer_ip_do_not_bypass_its_source_ranges,
        without_a_node_object_the_default_route_selects_the_address,
    )
}

fn start<'a>(shop: &'a Shop, addresses: &str) -> Daemon<'a> {
    start_with(shop, addresses, &cart().node_port(NODE_PORT))
}

fn start_with<'a>(shop: &'a Shop, addresses: &str, service: &Service) -> Daemon<'a> {
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"]));
    shop.manifests
        .write("shop.yaml", &(service.yaml() + &slices.yaml()));
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--cluster-cidr", &cidrs, "--nodeport-addresses", addresses];
    Daemon::start_with(&shop.cluster, &shop.manifests, &flags)
}

/// Asserts whether the address serves the node port to every source in both protocols.
fn assert_serves(shop: &Shop, address: IpAddr, serves: bool) {
    let cluster = &shop.cluster;
    for protocol in Protocol::ALL {
        for source in [&cluster.client, &cluster.node, cluster.pod("pod-3")] {
            let probe = source.probe(protocol, (address, NODE_PORT));
            if serves {
                let all = names(["pod-1:8080", "remote-1:8080"]);
                assert_eq!(servers(&probe), all, "{probe}");
            } else {
                assert!(probe.send().is_refused_at_once(), "{probe}");
            }
        }
    }
}

fn all_serves_every_address_except_loopback() {
    let shop = Shop::new();
    let _daemon = start(&shop, "all");
    for family in Family::ALL {
        assert_serves(&shop, family.lan(2), true);
        assert_serves(&shop, Cluster::secondary_ip(family), true);
        for protocol in Protocol::ALL {
            let end_of_link = (family.pod(1, 1), NODE_PORT);
            let probe = shop.cluster.pod("pod-3").probe(protocol, end_of_link);
            let all = names(["pod-1:8080", "remote-1:8080"]);
            assert_eq!(servers(&probe), all, "{probe}");
            let probe = shop
                .cluster
                .node
                .probe(protocol, (loopback(family), NODE_PORT));
            assert!(probe.send().is_refused_at_once(), "{probe}");
        }
    }
}

pub(super) fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

fn ranges_limit_the_addresses() {
    let shop = Shop::new();
    let [v4, v6] = Family::ALL.map(Cluster::secondary_ip);
    let _daemon = start(&shop, &format!("{v4}/32,127.0.0.0/8,{v6}/128,::1/128"));
    for family in Family::ALL {
        assert_serves(&shop, Cluster::secondary_ip(family), true);
        assert_serves(&shop, family.lan(2), false);
        let probe = shop
            .cluster
            .node
            .probe(Protocol::Tcp, (loopback(family), NODE_PORT));
        assert!(probe.send().is_refused_at_once(), "{probe}");
    }
}

fn a_family_without_a_range_serves_all_its_addresses() {
    let shop = Shop::new();
    let _daemon = start(&shop, &format!("{}/32", Cluster::secondary_ip(Family::V4)));
    assert_serves(&shop, Family::V4.lan(2), false);
    assert_serves(&shop, Cluster::secondary_ip(Family::V4), true);
    assert_serves(&shop, Family::V6.lan(2), true);
    assert_serves(&shop, Cluster::secondary_ip(Family::V6), true);
}

/// Waits until the address serves the node port, or no longer serves it.
fn await_served(from: &Host, address: IpAddr, serves: bool) {
    let probe = from.probe(Protocol::Tcp, (address, NODE_PORT)).briefly();
    let what = format!("{probe} is served: {serves}");
    wait_until(&what, || {
        let outcome = probe.send();
        outcome.server().is_some_and(|name| name != "gateway") == serves
    });
}

fn added_and_removed_addresses_are_followed() {
    let shop = Shop::new();
    let _daemon = start(&shop, "192.168.77.0/24,fd00:77::/64");
    let node = &shop.cluster.node.namespace;
    for (family, length) in [(Family::V4, 24), (Family::V6, 64)] {
        let new = family.lan(7);
        for _ in 0..2 {
            node.ip(&format!("addr add {new}/{length} dev eth0\n"));
            node.await_addresses();
            await_served(&shop.cluster.client, new, true);
            assert_serves(&shop, new, true);
            node.ip(&format!("addr del {new}/{length} dev eth0\n"));
            await_served(&shop.cluster.client, new, false);
            assert_serves(&shop, family.lan(2), true);
        }
    }
}

/// The node has a load-balancer IP and an external IP, which the agent of a cloud can add. It
/// serves node ports on all its addresses.
fn node_ports_at_a_load_balancer_ip_do_not_bypass_its_source_ranges() {
    let shop = Shop::new();
    let node = &shop.cluster.node;
    let held = Family::ALL.map(|family| [family.load_balancer_ip(1), family.external_ip(1)]);
    node.hold(&held.concat());
    let gateway = [(Family::V4, 32), (Family::V6, 128)];
    let gateway = gateway.map(|(family, length)| format!("{}/{length}", family.lan(1)));
    let service = cart()
        .load_balancer_ip(1)
        .external_ip(1)
        .node_port(NODE_PORT)
        .spec("loadBalancerSourceRanges", json!(gateway));
    let daemon = start_with(&shop, "all", &service);
    let client = &shop.cluster.client;
    for family in Family::ALL {
        let at = (family.load_balancer_ip(1), 80);
        let probe = client.probe(Protocol::Tcp, at).briefly();
        assert_eq!(probe.send().server(), None, "{probe}");
        assert_serves(&shop, family.load_balancer_ip(1), false);
        assert_serves(&shop, family.external_ip(1), false);
        assert_serves(&shop, family.lan(2), true);
        assert_serves(&shop, Cluster::secondary_ip(family), true);
    }
    // The Service no longer has the addresses, but the node still has them.
    let service = cart().node_port(NODE_PORT);
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"]));
    daemon.apply("shop.yaml", &(service.yaml() + &slices.yaml()));
    for family in Family::ALL {
        assert_serves(&shop, family.load_balancer_ip(1), true);
        assert_serves(&shop, family.external_ip(1), true);
    }
    // A load balancer on the nodes gives the Service the addresses of the node.
    let of_node = json!(Family::ALL.map(|family| family.lan(2)));
    let service = service.spec("externalIPs", of_node);
    daemon.apply("shop.yaml", &(service.yaml() + &slices.yaml()));
    for family in Family::ALL {
        assert_serves(&shop, family.lan(2), true);
    }
}

fn without_a_node_object_the_default_route_selects_the_address() {
    let shop = Shop::new();
    shop.manifests.remove("node.yaml");
    let _daemon = start(&shop, "primary");
    assert_serves(&shop, Family::V4.lan(2), true);
    let (gateway, other) = (Family::V4.lan(1), Cluster::secondary_ip(Family::V4));
    shop.cluster.node.namespace.ip(&format!(
        "route replace default via {gateway} src {other}\n"
    ));
    await_served(&shop.cluster.client, other, true);
    assert_serves(&shop, other, true);
    assert_serves(&shop, Family::V4.lan(2), false);
}
