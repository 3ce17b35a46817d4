//! Drift: kube-dnat repairs a change of its tables at once, and repeated changes with delays.

use std::time::{Duration, Instant};

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices};
use super::{Daemon, Family, everywhere, names, servers};
use crate::lab::{nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::drift;
    crate::trials!(drift:
        every_change_of_another_process_is_repaired,
        changes_of_other_tables_are_ignored,
        repeated_changes_are_repaired_with_delays,
    )
}

fn start(shop: &Shop) -> Daemon<'_> {
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    shop.start_without_owner(&(cart_on_every_frontend().yaml() + &cart_slices(endpoints).yaml()))
}

/// Asserts that the daemon logged no drift and read no table again.
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

/// Returns the listing of kube-dnat's tables.
fn ours(shop: &Shop) -> String {
    let tables = Family::ALL.map(|family| {
        let namespace = &shop.cluster.node.namespace;
        nft::list_table(namespace, family.table())
    });
    nft::normalise(&tables.concat())
}

fn every_change_of_another_process_is_repaired() {
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
        // Each command has its own node, because kube-dnat delays the repair of repeated changes.
        let shop = Shop::new();
        let daemon = start(&shop);
        let before = ours(&shop);
        nft::load(&shop.cluster.node.namespace, command);
        let told = || daemon.logged(LogEvent::DriftRepaired);
        wait_until(command, || !told().is_empty());
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

fn changes_of_other_tables_are_ignored() {
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
    // The daemon's own changes are not drift either.
    for pods in [["pod-1", "pod-2"], ["pod-2", "pod-3"]] {
        let slices = cart_slices(shop.pods(pods)).yaml();
        daemon.apply("shop.yaml", &(cart_on_every_frontend().yaml() + &slices));
    }
    assert_no_drift(&daemon);
}

fn repeated_changes_are_repaired_with_delays() {
    let shop = Shop::new();
    let daemon = start(&shop);
    let node = &shop.cluster.node.namespace;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        nft::load(node, "flush ruleset");
        std::thread::sleep(Duration::from_millis(5));
    }
    let repairs = daemon.logged(LogEvent::DriftRepaired).len();
    let elapsed = started.elapsed().as_secs_f64();
    // The first repair is immediate; the next ones follow after 0.5, 1, 2 and so on seconds.
    let due = (0..).take_while(|number| f64::from(1_u32 << number) * 0.5 - 0.5 <= elapsed);
    assert!(
        (1..=due.count()).contains(&repairs),
        "{repairs} repairs in {elapsed} s"
    );
    let to = (Family::V4.lan(2), NODE_PORT);
    let probe = shop
        .cluster
        .client
        .probe(crate::lab::Protocol::Tcp, to)
        .briefly();
    wait_until("the cart is served", || {
        probe.send().server().is_some_and(|name| name != "gateway")
    });
}
