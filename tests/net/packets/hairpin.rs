//! Hairpin: a Pod connects to a Service and draws itself.

use libtest_mimic::Trial;

use super::shop::{Shop, cart, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Daemon, everywhere};

pub(super) fn tests() -> Vec<Trial> {
    use super::hairpin;
    crate::trials!(hairpin:
        a_pod_reaches_itself_on_every_frontend_and_sees_the_node,
        a_pod_that_draws_another_keeps_its_source,
        a_pod_reaches_itself_without_a_cluster_cidr,
    )
}

fn a_pod_reaches_itself_on_every_frontend_and_sees_the_node() {
    let shop = Shop::new();
    let [pod] = shop.pods(["pod-1"]);
    let _daemon = shop.start(&(cart_on_every_frontend().yaml() + &cart_slices([pod]).yaml()));
    for (family, protocol) in everywhere() {
        for (frontend, to) in frontends(family) {
            let answer = pod.probe(protocol, to).send().answer();
            assert_eq!(
                answer.server, "pod-1:8080",
                "{protocol} {family} {frontend}"
            );
            assert!(
                Cluster::is_node(answer.seen_from.ip()),
                "{protocol} {family} {frontend}: {answer:?}"
            );
        }
    }
}

fn a_pod_that_draws_another_keeps_its_source() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let _daemon = shop.start(&(cart().yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .pod("pod-1")
            .probe(protocol, (family.cluster_ip(1), 80));
        for answer in (0..50).map(|_| probe.send().answer()) {
            assert_eq!(
                answer.keeps_source(),
                answer.server != "pod-1:8080",
                "{probe}: {answer:?}"
            );
        }
    }
}

fn a_pod_reaches_itself_without_a_cluster_cidr() {
    let shop = Shop::new();
    let [pod] = shop.pods(["pod-2"]);
    shop.manifests
        .write("shop.yaml", &(cart().yaml() + &cart_slices([pod]).yaml()));
    let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &[]);
    for (family, protocol) in everywhere() {
        let answer = pod
            .probe(protocol, (family.cluster_ip(1), 80))
            .send()
            .answer();
        assert!(
            Cluster::is_node(answer.seen_from.ip()),
            "{protocol} {family}: {answer:?}"
        );
    }
}
