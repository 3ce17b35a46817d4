//! External IPs: no interface has them, and the node serves them on every interface.

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::{Cluster, Family, everywhere, names, servers};
use crate::lab::{Service, Slices, chi, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::external_ip;
    crate::trials!(external_ip:
        an_external_ip_is_served_to_every_source,
        a_client_outside_draws_endpoints_with_equal_probability,
        other_ports_and_addresses_pass_untouched,
        two_services_share_one_external_ip_by_port,
        an_external_ip_can_be_an_address_of_the_node,
        the_older_service_keeps_a_port_of_a_node_address,
    )
}

fn an_external_ip_is_served_to_every_source() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    let _daemon = shop.start(&(cart().external_ip(1).yaml() + &cart_slices(endpoints).yaml()));
    let cluster = &shop.cluster;
    for (family, protocol) in everywhere() {
        for source in [
            &cluster.client,
            &cluster.node,
            cluster.pod("pod-3"),
            cluster.pod("remote-2"),
        ] {
            let probe = source.probe(protocol, (family.external_ip(1), 80));
            assert_eq!(
                servers(&probe),
                names(["pod-1:8080", "remote-1:8080"]),
                "{probe}"
            );
        }
    }
}

fn a_client_outside_draws_endpoints_with_equal_probability() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let _daemon = shop.start(&(cart().external_ip(1).yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .client
            .probe(protocol, (family.external_ip(1), 80));
        let tally = probe.send_times(2_000);
        chi::assert_uniform(
            &tally,
            &["pod-1:8080", "pod-2:8080", "remote-1:8080"],
            &probe.to_string(),
        );
    }
}

fn other_ports_and_addresses_pass_untouched() {
    let shop = Shop::new();
    let _daemon =
        shop.start(&(cart().external_ip(1).yaml() + &cart_slices(&shop.cluster.pods).yaml()));
    for (family, protocol) in everywhere() {
        for to in [(family.external_ip(1), 81), (family.external_ip(2), 80)] {
            let probe = shop.cluster.client.probe(protocol, to);
            assert_eq!(servers(&probe), names(["gateway"]), "{probe}");
        }
    }
}

fn two_services_share_one_external_ip_by_port() {
    let shop = Shop::new();
    let [first, second] = shop.pods(["pod-1", "pod-2"]);
    let other = Service::new("shop/list", 2).both("http", 81).external_ip(1);
    let other_slices = Slices::of("shop/list").both("http", 8080).ready([second]);
    let cart = cart().external_ip(1).yaml() + &cart_slices([first]).yaml();
    let _daemon = shop.start(&(cart + &other.yaml() + &other_slices.yaml()));
    for (family, protocol) in everywhere() {
        let probe = |port| {
            shop.cluster
                .client
                .probe(protocol, (family.external_ip(1), port))
        };
        assert_eq!(servers(&probe(80)), names(["pod-1:8080"]), "{}", probe(80));
        assert_eq!(servers(&probe(81)), names(["pod-2:8080"]), "{}", probe(81));
    }
}

fn an_external_ip_can_be_an_address_of_the_node() {
    let shop = Shop::new();
    let node_ips = Family::ALL
        .map(|family| [family.lan(2), Cluster::secondary_ip(family)])
        .concat();
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    let service = cart().spec("externalIPs", json!(node_ips));
    let _daemon = shop.start(&(service.yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        for to in [family.lan(2), Cluster::secondary_ip(family)] {
            for source in [
                &shop.cluster.client,
                &shop.cluster.node,
                shop.cluster.pod("pod-3"),
            ] {
                let probe = source.probe(protocol, (to, 80));
                assert_eq!(
                    servers(&probe),
                    names(["pod-1:8080", "remote-1:8080"]),
                    "{probe}"
                );
            }
        }
    }
}

/// One Service has the node's address as its external IP. The other has a node port with the same
/// number.
fn the_older_service_keeps_a_port_of_a_node_address() {
    let shop = Shop::new();
    let [first, second] = shop.pods(["pod-1", "pod-2"]);
    let addresses = Family::ALL.map(|family| [family.lan(2), family.external_ip(1)]);
    let cart = Service::new("shop/cart", 1).both("http", NODE_PORT);
    let cart = cart.spec("externalIPs", json!(addresses.concat()));
    let cart = cart.spec("externalTrafficPolicy", json!("Local"));
    let mail = Service::new("shop/mail", 2)
        .both("http", 80)
        .node_port(NODE_PORT);
    let slices = Slices::of("shop/mail").both("http", 8080).ready([second]);
    let slices = cart_slices([first]).yaml() + &slices.yaml();
    let manifests = |cart_created, mail_created| {
        let services = [
            cart.clone().created(cart_created),
            mail.clone().created(mail_created),
        ];
        services.map(|service| service.yaml()).concat() + &slices
    };
    let [older, younger] = ["2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"];
    let daemon = shop.start(&manifests(older, younger));
    let has = |name: &str, source_kept: bool| {
        for (family, protocol) in everywhere() {
            let client = &shop.cluster.client;
            let probe = client.probe(protocol, (family.lan(2), NODE_PORT));
            assert_eq!(servers(&probe), names([name]), "{probe}");
            assert_eq!(probe.send().answer().keeps_source(), source_kept, "{probe}");
            // No other Service contests the port at another external IP.
            let probe = client.probe(protocol, (family.external_ip(1), NODE_PORT));
            assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
        }
    };
    has("pod-1:8080", true);
    // The daemon logs one conflict for each family and protocol.
    let await_conflicts = |loser: &str, winner: &str| {
        wait_until("the conflicts are logged", || {
            let conflicts = daemon.diagnostics(loser, "FrontendConflict");
            conflicts.len() == 4 && conflicts.iter().all(|line| line.contains(winner))
        });
    };
    await_conflicts("Service shop/mail", "Service shop/cart");
    daemon.apply("shop.yaml", &manifests(younger, older));
    has("pod-2:8080", false);
    await_conflicts("Service shop/cart", "Service shop/mail");
}
