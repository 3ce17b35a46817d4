//! Services of one family and of both.

use libtest_mimic::Trial;

use super::shop::{Shop, cart, cart_slices};
use super::{Family, Protocol, names, servers};
use crate::lab::{Outcome, Service};

pub(super) fn tests() -> Vec<Trial> {
    use super::dual_stack;
    crate::trials!(dual_stack:
        each_family_has_endpoints_of_its_own,
        a_service_of_one_family_is_served_in_that_family_only,
        a_family_without_endpoints_rejects_while_the_other_serves,
    )
}

fn each_family_has_endpoints_of_its_own() {
    let shop = Shop::new();
    let [v4, v6] = shop.pods(["pod-1", "remote-1"]);
    let slices =
        cart_slices([v4]).only(Family::V4).yaml() + &cart_slices([v6]).only(Family::V6).yaml();
    let _daemon = shop.start(&(cart().yaml() + &slices));
    for protocol in Protocol::ALL {
        for (family, expected) in [(Family::V4, "pod-1:8080"), (Family::V6, "remote-1:8080")] {
            let probe = shop
                .cluster
                .pod("pod-3")
                .probe(protocol, (family.cluster_ip(1), 80));
            assert_eq!(servers(&probe), names([expected]), "{probe}");
        }
    }
}

fn a_service_of_one_family_is_served_in_that_family_only() {
    let shop = Shop::new();
    let slices = |name: &str| {
        crate::lab::Slices::of(name)
            .both("http", 8080)
            .ready(shop.pods(["pod-1"]))
            .yaml()
    };
    let service = |name, n, family| {
        Service::new(name, n).both("http", 80).only(family).yaml() + &slices(name)
    };
    let _daemon =
        shop.start(&(service("shop/four", 4, Family::V4) + &service("shop/six", 6, Family::V6)));
    for protocol in Protocol::ALL {
        let probe = |family: Family, n| {
            shop.cluster
                .pod("pod-3")
                .probe(protocol, (family.cluster_ip(n), 80))
        };
        for (served, n, other) in [(Family::V4, 4, Family::V6), (Family::V6, 6, Family::V4)] {
            assert_eq!(
                servers(&probe(served, n)),
                names(["pod-1:8080"]),
                "{}",
                probe(served, n)
            );
            assert_eq!(
                probe(other, n).briefly().send(),
                Outcome::TimedOut,
                "{}",
                probe(other, n)
            );
        }
    }
}

fn a_family_without_endpoints_rejects_while_the_other_serves() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).only(Family::V6);
    let _daemon = shop.start(&(cart().yaml() + &slices.yaml()));
    for protocol in Protocol::ALL {
        let probe = |family: Family| {
            shop.cluster
                .pod("pod-3")
                .probe(protocol, (family.cluster_ip(1), 80))
        };
        assert_eq!(
            servers(&probe(Family::V6)),
            names(["pod-1:8080"]),
            "{protocol}"
        );
        assert!(probe(Family::V4).send().is_refused_at_once(), "{protocol}");
    }
}
