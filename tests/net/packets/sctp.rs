//! SCTP: an INIT to a Service arrives at an endpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use libtest_mimic::Trial;

use super::shop::Shop;
use super::{Cluster, Family, Host};
use crate::lab::sctp::{Init, Receiver, send_init};
use crate::lab::{Service, Slices};

pub(super) fn tests() -> Vec<Trial> {
    use super::sctp;
    crate::trials!(sctp:
        an_init_from_a_pod_arrives_once_at_either_endpoint_with_its_source,
        an_init_from_outside_or_the_node_is_masqueraded_on_every_frontend,
    )
}

const PORT: u16 = 3868;
const TARGET: u16 = 13868;
const NODE_PORT: u16 = 30868;

fn manifests<'a>(endpoints: impl IntoIterator<Item = &'a Host>) -> String {
    let service = Service::new("core/diameter", 1)
        .port("diameter", "SCTP", PORT)
        .node_port(NODE_PORT);
    let slices = Slices::of("core/diameter")
        .port("diameter", "SCTP", TARGET)
        .ready(endpoints);
    service.external_ip(1).load_balancer_ip(1).yaml() + &slices.yaml()
}

/// Returns the next INIT that arrives at one of the receivers, with the receiver's name.
fn arrival<'a>(receivers: &[(&'a str, Receiver)]) -> Option<(&'a str, Init)> {
    (0..200).find_map(|_| {
        let mut arrivals = receivers.iter().filter_map(|(name, receiver)| {
            receiver
                .receive(Duration::from_millis(5))
                .map(|init| (*name, init))
        });
        arrivals.next()
    })
}

fn an_init_from_a_pod_arrives_once_at_either_endpoint_with_its_source() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    let _daemon = shop.start(&manifests(endpoints));
    let source = shop.cluster.pod("pod-3");
    for family in Family::ALL {
        let receivers = endpoints.map(|pod| (pod.name(), Receiver::start(pod, family)));
        let mut arrived = BTreeMap::new();
        for port in 5000..5050 {
            send_init(&source.namespace, port, (family.cluster_ip(1), PORT));
            let (name, init) = arrival(&receivers)
                .unwrap_or_else(|| panic!("{family}: the INIT of port {port} is lost"));
            assert_eq!(
                init,
                Init {
                    from: (source.ip(family), port).into(),
                    port: TARGET
                },
                "{family} at {name}"
            );
            *arrived.entry(name).or_insert(0) += 1;
        }
        assert_eq!(arrived.len(), 2, "{family}: {arrived:?}");
        let more = receivers
            .iter()
            .find_map(|(_, receiver)| receiver.receive(Duration::from_millis(50)));
        assert_eq!(more, None, "{family}: an INIT that arrived twice");
    }
}

fn an_init_from_outside_or_the_node_is_masqueraded_on_every_frontend() {
    let shop = Shop::new();
    let endpoints = shop.pods(["remote-1"]);
    let _daemon = shop.start(&manifests(endpoints));
    for family in Family::ALL {
        let receivers = endpoints.map(|pod| (pod.name(), Receiver::start(pod, family)));
        for to in [
            (family.cluster_ip(1), PORT),
            (family.lan(2), NODE_PORT),
            (family.external_ip(1), PORT),
            (family.load_balancer_ip(1), PORT),
        ] {
            for source in [&shop.cluster.client, &shop.cluster.node] {
                send_init(&source.namespace, 5000, to);
                let arrival = arrival(&receivers);
                let context = format!("{} -> {to:?}: {arrival:?}", source.name());
                let (_, init) = arrival.unwrap_or_else(|| panic!("{context}"));
                assert_eq!(init.port, TARGET, "{context}");
                assert!(Cluster::is_node(init.from.ip()), "{context}");
            }
        }
    }
}
