//! Endpoints with different shares (`kube-dnat.io/weights`).

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::explain::{agrees, run};
use super::services::rows;
use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Family, Host, Probe, Protocol, everywhere};
use crate::lab::{Flow, Service};

pub(super) fn tests() -> Vec<Trial> {
    use super::weights;
    crate::trials!(weights:
        shares_follow_the_weights_of_zones_nodes_and_addresses,
        policy_local_and_a_hash_use_the_weights,
        weight_0_takes_an_endpoint_out_but_not_its_flows,
        weights_without_a_sum_have_no_effect,
    )
}

/// Returns `shop/cart` on every frontend, with these weights.
fn weighted(weights: &str) -> Service {
    cart_on_every_frontend().annotation("weights", weights)
}

/// Returns the weights of the addresses of a Pod.
fn of_pod(pod: &Host, weight: u16) -> String {
    let weights = Family::ALL.map(|family| format!("{}={weight}", pod.ip(family)));
    weights.join(",")
}

/// The number of connections from which a share is estimated.
const CONNECTIONS: usize = 400;

/// Checks that three of four connections reach `pod-1`, and the others this server.
///
/// The bound is five and a half standard deviations.
#[track_caller]
fn assert_three_quarters(probe: &Probe<'_>, other: &str) {
    let tally = probe.send_times(CONNECTIONS);
    assert!(tally.failures.is_empty(), "{probe}: {:?}", tally.failures);
    let to = |server: &str| tally.servers.get(server).copied().unwrap_or(0);
    let (three, one) = (to("pod-1:8080"), to(other));
    assert_eq!(three + one, CONNECTIONS, "{probe}: {:?}", tally.servers);
    let deviation = three.abs_diff(CONNECTIONS * 3 / 4);
    assert!(deviation <= 48, "{probe}: {:?}", tally.servers);
}

fn shares_follow_the_weights_of_zones_nodes_and_addresses() {
    let shop = Shop::new();
    let [pod, remote] = shop.pods(["pod-1", "remote-1"]);
    let slices = cart_slices([pod, remote]).yaml();
    let daemon = shop.start(&(weighted("zone-a=1").yaml() + &slices));
    let weights = [
        "zone-a=3,zone-b=1".to_owned(),
        "node:node-1=3".to_owned(),
        of_pod(pod, 3),
        // The address takes precedence over the node, and the node over the zone.
        format!("zone-a=9,node:node-1=8,zone-b=2,{}", of_pod(pod, 6)),
    ];
    for weights in weights {
        daemon.apply("shop.yaml", &(weighted(&weights).yaml() + &slices));
        for (family, protocol) in everywhere() {
            let source = shop.cluster.pod("pod-3");
            let probe = source.probe(protocol, (family.cluster_ip(1), 80));
            assert_three_quarters(&probe, "remote-1:8080");
        }
    }
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .client
            .probe(protocol, (family.lan(2), NODE_PORT));
        assert_three_quarters(&probe, "remote-1:8080");
    }
    for row in rows(&shop, &["-n", "shop"]).values() {
        assert_eq!((&row["slots"], &row["balance"]), (&json!(4), &Value::Null));
        assert_eq!(row["endpointCounts"]["ready"], 2, "{row}");
    }
    let (_, out, _) = run(&shop, &["explain", "10.96.0.1:80/tcp"]);
    assert!(out.contains("75.0 %") && out.contains("25.0 %"), "{out}");
}

fn policy_local_and_a_hash_use_the_weights() {
    let shop = Shop::new();
    let [first, second, remote] = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let slices = cart_slices([first, second, remote]).yaml();
    let local = |weights: &str| weighted(weights).spec("externalTrafficPolicy", json!("Local"));
    let weights = of_pod(first, 3);
    let daemon = shop.start(&(local(&weights).yaml() + &slices));
    let client = &shop.cluster.client;
    for (family, protocol) in everywhere() {
        for (_, to) in &frontends(family)[1..] {
            assert_three_quarters(&client.probe(protocol, *to), "pod-2:8080");
        }
    }
    let hashed = local(&weights).annotation("balance", "maglev");
    daemon.apply("shop.yaml", &(hashed.yaml() + &slices));
    for (family, protocol) in everywhere() {
        let (_, to) = frontends(family)[3];
        assert_three_quarters(&client.probe(protocol, to), "pod-2:8080");
        agrees(&shop, client, protocol, to);
    }
}

fn weight_0_takes_an_endpoint_out_but_not_its_flows() {
    let shop = Shop::new();
    let [pod, remote] = shop.pods(["pod-1", "remote-1"]);
    let only_pod = cart_slices([pod]).yaml();
    let both = cart_slices([pod, remote]).yaml();
    let service = weighted("zone-a=0").yaml();
    let daemon = shop.start(&(cart_on_every_frontend().yaml() + &only_pod));
    for family in Family::ALL {
        let source = shop.cluster.pod("pod-3");
        let to = (family.cluster_ip(1), 80);
        let mut flows = Protocol::ALL.map(|protocol| {
            let mut flow = Flow::open(&source.probe(protocol, to)).expect("an open flow");
            assert_eq!(flow.greeting().server(), Some("pod-1:8080"));
            flow
        });
        daemon.apply("shop.yaml", &(service.clone() + &both));
        for protocol in Protocol::ALL {
            let tally = source.probe(protocol, to).send_times(40);
            assert!(tally.servers.into_keys().eq(["remote-1:8080"]));
        }
        for flow in &mut flows {
            assert_eq!(flow.ask().server(), Some("pod-1:8080"));
        }
        daemon.apply("shop.yaml", &(cart_on_every_frontend().yaml() + &only_pod));
    }
}

fn weights_without_a_sum_have_no_effect() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    let daemon = shop.start(&(weighted("zone-a=0,zone-b=0").yaml() + &slices));
    for (family, protocol) in everywhere() {
        let source = shop.cluster.pod("pod-3");
        let tally = source
            .probe(protocol, (family.cluster_ip(1), 80))
            .send_times(60);
        let servers = ["pod-1:8080", "remote-1:8080"];
        assert!(tally.servers.into_keys().eq(servers), "{family:?}");
    }
    let reported = daemon.diagnostics("Service shop/cart", "InvalidAnnotation");
    assert_eq!(reported.len(), 1, "{reported:?}");
    let problem = "annotation kube-dnat.io/weights has no effect: all endpoints of a port have";
    assert!(reported[0].contains(problem), "{reported:?}");
}
