//! Load-balancer IPs: the node serves them itself, unless their `ipMode` is `Proxy`.

use libtest_mimic::Trial;

use super::shop::{Shop, cart, cart_slices};
use super::{everywhere, names, servers};
use crate::lab::chi;

pub(super) fn tests() -> Vec<Trial> {
    use super::load_balancer;
    crate::trials!(load_balancer:
        a_load_balancer_ip_is_served_to_every_source,
        a_client_outside_draws_endpoints_with_equal_probability,
        mode_vip_is_served_and_mode_proxy_is_left_to_the_load_balancer,
    )
}

fn a_load_balancer_ip_is_served_to_every_source() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    let service = cart().load_balancer_ip(1).load_balancer_ip(2);
    let _daemon = shop.start(&(service.yaml() + &cart_slices(endpoints).yaml()));
    let cluster = &shop.cluster;
    for (family, protocol) in everywhere() {
        for source in [
            &cluster.client,
            &cluster.node,
            cluster.pod("pod-3"),
            cluster.pod("remote-2"),
        ] {
            for n in [1, 2] {
                let probe = source.probe(protocol, (family.load_balancer_ip(n), 80));
                assert_eq!(
                    servers(&probe),
                    names(["pod-1:8080", "remote-1:8080"]),
                    "{probe}"
                );
            }
        }
    }
}

fn a_client_outside_draws_endpoints_with_equal_probability() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let _daemon = shop.start(&(cart().load_balancer_ip(1).yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .client
            .probe(protocol, (family.load_balancer_ip(1), 80));
        let tally = probe.send_times(2_000);
        chi::assert_uniform(
            &tally,
            &["pod-1:8080", "pod-2:8080", "remote-1:8080"],
            &probe.to_string(),
        );
    }
}

fn mode_vip_is_served_and_mode_proxy_is_left_to_the_load_balancer() {
    let shop = Shop::new();
    let service = cart()
        .load_balancer_ip_with_mode(1, "VIP")
        .load_balancer_ip_with_mode(2, "Proxy");
    let endpoints = shop.pods(["pod-1"]);
    let _daemon = shop.start(&(service.yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        for source in [
            &shop.cluster.client,
            &shop.cluster.node,
            shop.cluster.pod("pod-3"),
        ] {
            let probe = |n| source.probe(protocol, (family.load_balancer_ip(n), 80));
            assert_eq!(servers(&probe(1)), names(["pod-1:8080"]), "{}", probe(1));
            assert_eq!(servers(&probe(2)), names(["gateway"]), "{}", probe(2));
        }
    }
}
