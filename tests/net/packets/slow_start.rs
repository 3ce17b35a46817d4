//! New endpoints, whose share of connections grows (`kube-dnat.io/slow-start`).

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::services::rows;
use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices};
use super::{Host, Probe, Protocol, everywhere};
use crate::lab::{Service, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::slow_start;
    crate::trials!(slow_start:
        the_share_of_a_new_endpoint_grows,
        endpoints_are_not_new_at_a_start,
        a_table_of_a_hash_has_fewer_slots_for_a_new_endpoint,
    )
}

/// Returns `shop/cart` on every frontend, with this slow start.
fn starting(window: &str) -> Service {
    cart_on_every_frontend().annotation("slow-start", window)
}

/// The number of connections from which a share is estimated.
const CONNECTIONS: usize = 400;

/// Checks how many of the connections reach `remote-1`; the others reach `pod-1`.
///
/// The bound is six standard deviations of a share of one half.
#[track_caller]
fn assert_share(probe: &Probe<'_>, ideal: usize) {
    let tally = probe.send_times(CONNECTIONS);
    assert!(tally.failures.is_empty(), "{probe}: {:?}", tally.failures);
    let to = |server: &str| tally.servers.get(server).copied().unwrap_or(0);
    let (old, new) = (to("pod-1:8080"), to("remote-1:8080"));
    assert_eq!(old + new, CONNECTIONS, "{probe}: {:?}", tally.servers);
    assert!(new.abs_diff(ideal) <= 60, "{probe}: {:?}", tally.servers);
}

/// Returns the numbers of slots of all frontends, each once; null if each endpoint has one.
fn slots(shop: &Shop) -> Vec<Value> {
    let rows = rows(shop, &["-n", "shop"]);
    let mut slots: Vec<_> = rows.values().map(|row| row["slots"].clone()).collect();
    slots.dedup();
    slots
}

/// Checks the share of `remote-1` at a `ClusterIP` and a node port, of 400 connections.
fn assert_shares(shop: &Shop, ideal: usize) {
    let (pod, client) = (shop.cluster.pod("pod-3"), &shop.cluster.client);
    for (family, protocol) in everywhere() {
        assert_share(&pod.probe(protocol, (family.cluster_ip(1), 80)), ideal);
        assert_share(&client.probe(protocol, (family.lan(2), NODE_PORT)), ideal);
    }
}

fn the_share_of_a_new_endpoint_grows() {
    let shop = Shop::new();
    let [pod, remote] = shop.pods(["pod-1", "remote-1"]);
    let slices = |pods: &[&Host]| cart_slices(pods.iter().copied()).yaml();
    let daemon = shop.start(&(starting("1h").yaml() + &slices(&[pod])));
    assert_eq!(slots(&shop), [Value::Null]);
    daemon.apply(
        "shop.yaml",
        &(starting("1h").yaml() + &slices(&[pod, remote])),
    );
    assert_eq!(slots(&shop), [json!(6)]);
    assert_shares(&shop, CONNECTIONS / 6);
    // With a shorter time the endpoint is not new any more at once, or soon.
    daemon.apply(
        "shop.yaml",
        &(starting("1s").yaml() + &slices(&[pod, remote])),
    );
    wait_until("the endpoint has its whole share", || {
        slots(&shop) == [Value::Null]
    });
    assert_shares(&shop, CONNECTIONS / 2);
    // An endpoint that is ready again is new again.
    daemon.apply("shop.yaml", &(starting("1h").yaml() + &slices(&[pod])));
    daemon.apply(
        "shop.yaml",
        &(starting("1h").yaml() + &slices(&[pod, remote])),
    );
    assert_eq!(slots(&shop), [json!(6)]);
    // Without the annotation it has its whole share.
    let plain = cart_on_every_frontend().yaml();
    daemon.apply("shop.yaml", &(plain + &slices(&[pod, remote])));
    assert_eq!(slots(&shop), [Value::Null]);
}

fn endpoints_are_not_new_at_a_start() {
    let shop = Shop::new();
    let [pod, remote] = shop.pods(["pod-1", "remote-1"]);
    let service = starting("1h").yaml();
    let daemon = shop.start(&(service.clone() + &cart_slices([pod]).yaml()));
    let both = service + &cart_slices([pod, remote]).yaml();
    daemon.apply("shop.yaml", &both);
    assert_eq!(slots(&shop), [json!(6)]);
    daemon.terminate();
    let _daemon = shop.start(&both);
    assert_eq!(slots(&shop), [Value::Null]);
    assert_shares(&shop, CONNECTIONS / 2);
}

fn a_table_of_a_hash_has_fewer_slots_for_a_new_endpoint() {
    let shop = Shop::new();
    let [pod, remote] = shop.pods(["pod-1", "remote-1"]);
    let service = starting("1h").annotation("balance", "maglev").yaml();
    let daemon = shop.start(&(service.clone() + &cart_slices([pod]).yaml()));
    daemon.apply("shop.yaml", &(service + &cart_slices([pod, remote]).yaml()));
    assert_eq!(slots(&shop), [json!(251)]);
    assert_shares(&shop, CONNECTIONS / 6);
    let source = shop.cluster.pod("pod-3");
    let to = (super::Family::V4.cluster_ip(1), 80);
    super::explain::agrees(&shop, source, Protocol::Tcp, to);
}
