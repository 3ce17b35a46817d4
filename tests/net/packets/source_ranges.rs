//! `loadBalancerSourceRanges`: only these sources can use the load-balancer IPs.

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices};
use super::{Family, everywhere, servers};
use crate::lab::{Outcome, Probe, Service};

pub(super) fn tests() -> Vec<Trial> {
    use super::source_ranges;
    crate::trials!(source_ranges:
        sources_outside_the_ranges_are_dropped_at_load_balancer_ips_only,
        ranges_of_the_other_family_or_of_every_address_do_not_restrict,
        a_blocked_client_is_dropped_even_without_endpoints,
    )
}

pub(super) fn ranged(ranges: &[&str]) -> Service {
    cart_on_every_frontend().spec("loadBalancerSourceRanges", json!(ranges))
}

fn all_dropped(probes: &[Probe<'_>]) {
    for (probe, outcome) in probes.iter().zip(Probe::send_all(probes)) {
        assert!(matches!(outcome, Outcome::TimedOut), "{probe}: {outcome:?}");
    }
}

/// Returns ranges that contain the client's addresses only.
pub(super) fn the_client() -> [String; 2] {
    let shop = Shop::new();
    Family::ALL.map(|family| match family {
        Family::V4 => format!(" {}/32", shop.cluster.client.ip(family)),
        Family::V6 => format!("{}/128 ", shop.cluster.client.ip(family)),
    })
}

fn sources_outside_the_ranges_are_dropped_at_load_balancer_ips_only() {
    let shop = Shop::new();
    let ranges = the_client();
    let ranges = ranges.each_ref().map(String::as_str);
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    let _daemon = shop.start(&(ranged(&ranges).yaml() + &cart_slices(endpoints).yaml()));
    let others = [shop.cluster.pod("pod-3"), &shop.cluster.node];
    let mut blocked = Vec::new();
    for (family, protocol) in everywhere() {
        let to = (family.load_balancer_ip(1), 80);
        assert_eq!(servers(&shop.cluster.client.probe(protocol, to)).len(), 2);
        for other in others {
            blocked.push(other.probe(protocol, to).briefly());
            for to in [
                (family.cluster_ip(1), 80),
                (family.external_ip(1), 80),
                (family.lan(2), NODE_PORT),
            ] {
                assert_eq!(servers(&other.probe(protocol, to)).len(), 2);
            }
        }
    }
    all_dropped(&blocked);
}

fn ranges_of_the_other_family_or_of_every_address_do_not_restrict() {
    let shop = Shop::new();
    let endpoints = cart_slices(shop.pods(["pod-1"])).yaml();
    let daemon = shop.start(&(ranged(&["2001:db8:9::/64"]).yaml() + &endpoints));
    let pod = shop.cluster.pod("pod-3");
    for (family, protocol) in everywhere() {
        let probe = pod
            .probe(protocol, (family.load_balancer_ip(1), 80))
            .briefly();
        match family {
            Family::V4 => assert_eq!(servers(&probe).len(), 1, "{probe}"),
            Family::V6 => all_dropped(&[probe]),
        }
    }
    let everyone = ranged(&["192.0.2.0/24", "0.0.0.0/0", "::/0"]);
    daemon.apply("shop.yaml", &(everyone.yaml() + &endpoints));
    for (family, protocol) in everywhere() {
        let probe = pod.probe(protocol, (family.load_balancer_ip(1), 80));
        assert_eq!(servers(&probe).len(), 1, "{probe}");
    }
}

fn a_blocked_client_is_dropped_even_without_endpoints() {
    let shop = Shop::new();
    let ranges = the_client();
    let ranges = ranges.each_ref().map(String::as_str);
    let _daemon = shop.start(&(ranged(&ranges).yaml() + &cart_slices([]).yaml()));
    for (family, protocol) in everywhere() {
        let to = (family.load_balancer_ip(1), 80);
        let allowed = shop.cluster.client.probe(protocol, to).send();
        assert!(allowed.is_refused_at_once(), "{allowed:?}");
        all_dropped(&[shop.cluster.pod("pod-3").probe(protocol, to).briefly()]);
    }
}
