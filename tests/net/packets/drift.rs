//! Other processes that change our tables: it is repaired at once, and no fight.

use std::time::{Duration, Instant};

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices};
use super::{Daemon, Family, everywhere, names, servers};
use crate::lab::{nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::drift;
    crate::trials!(drift:
        whatever_others_do_to_the_tables_is_repaired,
        what_others_do_to_their_own_tables_is_left_alone,
        who_fights_back_is_met_with_patience,
    )
}

/// How long a repair may take on however busy a machine; an idle one needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

fn start(shop: &Shop) -> Daemon<'_> {
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    shop.start_without_owner(&(cart_on_every_frontend().yaml() + &cart_slices(endpoints).yaml()))
}

/// Nothing was taken for a change by another process, and no table was read again.
#[track_caller]
pub(super) fn assert_no_drift(daemon: &Daemon<'_>) {
    for event in [
        LogEvent::DriftRepaired,
        LogEvent::DriftNotFound,
        LogEvent::TableAdopted,
        LogEvent::TableRead,
    ] {
        assert_eq!(daemon.logged(event), [""; 0], "{event}");
    }
}

/// The listing of our tables.
fn ours(shop: &Shop) -> String {
    let tables = Family::ALL.map(|family| {
        let namespace = &shop.cluster.node.namespace;
        nft::list_table(namespace, family.table())
    });
    nft::normalise(&tables.concat())
}

fn whatever_others_do_to_the_tables_is_repaired() {
    for command in [
        "flush ruleset",
        "delete table ip6 kube-dnat",
        "flush map ip kube-dnat services",
        "delete element ip kube-dnat cluster-ips { 10.96.0.1 }",
        "add element ip kube-dnat node-ips { 192.0.2.1 }",
        "add rule ip kube-dnat services counter",
        "flush chain ip kube-dnat nat-prerouting",
        "add chain ip kube-dnat stray",
    ] {
        // Another node each: changes in a row are taken for a fight.
        let shop = Shop::new();
        let daemon = start(&shop);
        let before = ours(&shop);
        nft::load(&shop.cluster.node.namespace, command);
        let told = || daemon.logged(LogEvent::DriftRepaired);
        wait_until(command, PATIENCE, || !told().is_empty());
        assert_eq!(ours(&shop), before, "{command}");
        assert!(told()[0].contains("by=\"nft ("), "{:?}", told());
        for (family, protocol) in everywhere() {
            let probe = shop
                .cluster
                .client
                .probe(protocol, (family.lan(2), NODE_PORT));
            let all = names(["pod-1:8080", "remote-1:8080"]);
            assert_eq!(servers(&probe), all, "{probe} after {command}");
        }
    }
}

fn what_others_do_to_their_own_tables_is_left_alone() {
    let shop = Shop::new();
    let daemon = start(&shop);
    let node = &shop.cluster.node.namespace;
    for _ in 0..5 {
        nft::load(
            node,
            "table ip theirs { set s { type ipv4_addr; elements = { 192.0.2.1 } }\n }",
        );
        nft::load(node, "delete table ip theirs");
    }
    // Our own changes are no one else's either.
    for pods in [["pod-1", "pod-2"], ["pod-2", "pod-3"]] {
        let slices = cart_slices(shop.pods(pods)).yaml();
        daemon.apply("shop.yaml", &(cart_on_every_frontend().yaml() + &slices));
    }
    assert_no_drift(&daemon);
}

fn who_fights_back_is_met_with_patience() {
    let shop = Shop::new();
    let daemon = start(&shop);
    let node = &shop.cluster.node.namespace;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        nft::load(node, "flush ruleset");
        std::thread::sleep(Duration::from_millis(5));
    }
    let repairs = daemon.logged(LogEvent::DriftRepaired).len();
    // At once, then after 0.5, 1 and 2 seconds.
    assert!((1..=4).contains(&repairs), "{repairs} repairs");
    let to = (Family::V4.lan(2), NODE_PORT);
    let probe = shop
        .cluster
        .client
        .probe(crate::lab::Protocol::Tcp, to)
        .briefly();
    wait_until("it is served in the end", Duration::from_secs(10), || {
        probe.send().server().is_some_and(|name| name != "gateway")
    });
}
