//! Changes of endpoints: the ready endpoints are drawn, and no others.

use libtest_mimic::Trial;

use super::shop::{Shop, cart, cart_slices};
use super::{Family, Protocol, everywhere};
use crate::lab::{Flow, chi};

pub(super) fn tests() -> Vec<Trial> {
    use super::endpoints;
    crate::trials!(endpoints:
        an_added_endpoint_gets_its_share_and_a_removed_one_nothing,
        after_any_change_exactly_the_ready_endpoints_are_drawn,
        a_replaced_endpoint_does_not_change_the_share_of_others,
        a_udp_flow_keeps_its_endpoint_while_others_are_added_and_removed,
    )
}

fn an_added_endpoint_gets_its_share_and_a_removed_one_nothing() {
    let shop = Shop::new();
    let [first, second, third] = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let with = |pods: &[&_]| cart().yaml() + &cart_slices(pods.iter().copied()).yaml();
    let daemon = shop.start(&with(&[first, second]));
    let assert_share = |expected: &[&str]| {
        for (family, protocol) in everywhere() {
            let probe = shop
                .cluster
                .pod("pod-3")
                .probe(protocol, (family.cluster_ip(1), 80));
            chi::assert_uniform(&probe.send_times(500), expected, &probe.to_string());
        }
    };
    assert_share(&["pod-1:8080", "pod-2:8080"]);
    daemon.apply("shop.yaml", &with(&[first, second, third]));
    assert_share(&["pod-1:8080", "pod-2:8080", "remote-1:8080"]);
    daemon.apply("shop.yaml", &with(&[second, third]));
    assert_share(&["pod-2:8080", "remote-1:8080"]);
}

fn after_any_change_exactly_the_ready_endpoints_are_drawn() {
    let shop = Shop::new();
    let pods = shop.pods(["pod-1", "pod-2", "pod-3", "remote-1", "remote-2"]);
    let daemon = shop.start(&cart().yaml());
    // The loop visits every subset of the Pods. Several Pods change from one subset to the next.
    for subset in (0..32_u32).map(|n| n * 11 % 32) {
        let ready = pods
            .iter()
            .zip(0..)
            .filter(|(_, bit)| subset >> bit & 1 == 1);
        let ready: Vec<_> = ready.map(|(pod, _)| *pod).collect();
        daemon.apply(
            "shop.yaml",
            &(cart().yaml() + &cart_slices(ready.iter().copied()).yaml()),
        );
        for family in Family::ALL {
            let probe = shop
                .cluster
                .node
                .probe(Protocol::Tcp, (family.cluster_ip(1), 80));
            if ready.is_empty() {
                assert!(probe.send().is_refused_at_once(), "{probe}");
                continue;
            }
            let tally = probe.send_times(150);
            assert!(tally.failures.is_empty(), "{probe}: {:?}", tally.failures);
            let expected: Vec<_> = ready
                .iter()
                .map(|pod| format!("{}:8080", pod.name()))
                .collect();
            assert_eq!(
                tally.servers.into_keys().collect::<Vec<_>>(),
                expected,
                "{probe}"
            );
        }
    }
}

fn a_replaced_endpoint_does_not_change_the_share_of_others() {
    let shop = Shop::new();
    let [kept, gone, new] = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let daemon = shop.start(&(cart().yaml() + &cart_slices([gone, kept]).yaml()));
    daemon.apply(
        "shop.yaml",
        &(cart().yaml() + &cart_slices([new, kept]).yaml()),
    );
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .pod("pod-3")
            .probe(protocol, (family.cluster_ip(1), 80));
        chi::assert_uniform(
            &probe.send_times(500),
            &["pod-1:8080", "remote-1:8080"],
            &probe.to_string(),
        );
    }
}

fn a_udp_flow_keeps_its_endpoint_while_others_are_added_and_removed() {
    let shop = Shop::new();
    let [kept, other, new] = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let daemon = shop.start(&(cart().yaml() + &cart_slices([kept]).yaml()));
    for family in Family::ALL {
        let source = shop.cluster.pod("pod-3");
        let probe = source.probe(Protocol::Udp, (family.cluster_ip(1), 80));
        let mut flow = Flow::open(&probe).expect("a UDP flow opens without a packet");
        let greeting = flow.greeting();
        assert_eq!(greeting.server(), Some("pod-1:8080"), "{probe}");
        for endpoints in [[kept, other].as_slice(), &[new, other, kept], &[kept]] {
            let slices = cart_slices(endpoints.iter().copied());
            daemon.apply("shop.yaml", &(cart().yaml() + &slices.yaml()));
            assert_eq!(flow.ask(), greeting, "{probe}");
        }
    }
}
