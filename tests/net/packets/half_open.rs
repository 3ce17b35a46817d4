//! Half-open connections: a retransmitted SYN follows the current rules.

use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;

use super::render::render;
use super::shop::{Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Daemon, Family, Host, Protocol};
use crate::lab::{DEADLINE, Outcome, Probe, nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::half_open;
    crate::trials!(half_open:
        a_syn_before_the_frontend_is_served_on_retransmission,
        a_syn_before_the_daemon_is_served_on_retransmission,
        a_syn_before_the_rules_is_not_rejected,
        a_syn_moves_to_another_endpoint_when_its_endpoint_is_removed,
        a_syn_leaves_a_removed_service,
        a_syn_stays_at_a_serving_terminating_endpoint,
    )
}

/// A rule that makes the kernel track connections, because without such a rule it tracks none.
const TRACKING: &str = "table inet tracking { chain c {\n\
                        type filter hook forward priority 0; ct state new accept\n }\n }";

const EVERYWHERE: [&str; 4] = ["ClusterIP", "node port", "external IP", "load-balancer IP"];

/// Makes a host drop every incoming TCP packet, so that it does not answer a SYN.
fn silence(host: &Host) {
    let rules = "table inet silent { chain c {\n\
                 type filter hook prerouting priority -300; meta l4proto tcp drop\n }\n }";
    nft::load(&host.namespace, rules);
}

fn let_speak(host: &Host) {
    nft::load(&host.namespace, "delete table inet silent");
}

/// Returns probes from the outside client and from a Pod to these frontends of `shop/cart`.
fn probes<'a>(shop: &'a Shop, of: &[&str]) -> Vec<Probe<'a>> {
    let sources = [&shop.cluster.client, shop.cluster.pod("pod-3")];
    let mut probes = Vec::new();
    for family in Family::ALL {
        let frontends = frontends(family).into_iter();
        for (_, to) in frontends.filter(|(name, _)| of.contains(name)) {
            for source in sources {
                probes.push(source.probe(Protocol::Tcp, to).deadline(DEADLINE));
            }
        }
    }
    probes
}

/// Starts to connect all probes, and waits until the node tracks each SYN.
fn connect<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    shop: &'env Shop,
    probes: &'env [Probe<'env>],
) -> Vec<ScopedJoinHandle<'scope, Outcome>> {
    let connecting = probes.iter().map(|probe| scope.spawn(|| probe.send()));
    let connecting = connecting.collect();
    wait_until("every SYN is tracked", || {
        let tracked = ["ipv4", "ipv6"].map(|family| {
            let arguments = ["-L", "-f", family, "-p", "tcp", "--state", "SYN_SENT"];
            let listing = shop.cluster.node.namespace.command("conntrack", &arguments);
            listing
                .lines()
                .filter(|line| line.contains("[UNREPLIED]"))
                .count()
        });
        tracked.iter().sum::<usize>() == probes.len()
    });
    connecting
}

#[track_caller]
fn assert_answered(
    probes: &[Probe<'_>],
    connecting: Vec<ScopedJoinHandle<'_, Outcome>>,
    server: &str,
) {
    for (probe, outcome) in probes.iter().zip(connecting) {
        let outcome = outcome.join().expect("a client");
        assert_eq!(outcome.server(), Some(server), "{probe}: {outcome:?}");
    }
}

fn with(shop: &Shop, pods: &[&str]) -> String {
    let pods = pods.iter().map(|name| shop.cluster.pod(name));
    cart_on_every_frontend().yaml() + &cart_slices(pods).yaml()
}

/// Connects to frontends that are not programmed yet. Then `then` programs them with pod-1 as
/// endpoint. Without a `ServiceCIDR`, the node forwards `ClusterIPs` too.
fn served_when_sent_again<'a>(shop: &'a Shop, then: impl FnOnce(&str) -> Daemon<'a>) {
    silence(&shop.cluster.gateway);
    let probes = probes(shop, &["ClusterIP", "external IP", "load-balancer IP"]);
    thread::scope(|scope| {
        let connecting = connect(scope, shop, &probes);
        let _daemon = then(&with(shop, &["pod-1"]));
        assert_answered(&probes, connecting, "pod-1:8080");
    });
}

fn a_syn_before_the_frontend_is_served_on_retransmission() {
    let shop = Shop::new();
    shop.manifests.remove("service-cidr.yaml");
    let daemon = shop.start("");
    served_when_sent_again(&shop, |yaml| {
        daemon.apply("shop.yaml", yaml);
        daemon
    });
}

fn a_syn_before_the_daemon_is_served_on_retransmission() {
    let shop = Shop::new();
    nft::load(&shop.cluster.node.namespace, TRACKING);
    served_when_sent_again(&shop, |yaml| shop.start(yaml));
}

/// Between the first commit and the conntrack cleanup no rule translates the SYN. In this test no
/// cleanup follows.
fn a_syn_before_the_rules_is_not_rejected() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    nft::load(node, TRACKING);
    silence(&shop.cluster.gateway);
    let probes: Vec<_> = probes(&shop, &["ClusterIP"])
        .into_iter()
        .map(|probe| probe.deadline(Duration::from_secs(4)))
        .collect();
    thread::scope(|scope| {
        let connecting = connect(scope, &shop, &probes);
        shop.manifests.write("shop.yaml", &with(&shop, &["pod-1"]));
        nft::load(node, &render(&shop, node));
        // The kernel retransmits the SYN after 1 and 3 seconds.
        for (probe, outcome) in probes.iter().zip(connecting) {
            let outcome = outcome.join().expect("a client");
            assert_eq!(outcome, Outcome::TimedOut, "{probe}");
        }
    });
}

fn a_syn_moves_to_another_endpoint_when_its_endpoint_is_removed() {
    let shop = Shop::new();
    let [gone, _] = shop.pods(["pod-1", "pod-2"]);
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    silence(gone);
    let probes = probes(&shop, &EVERYWHERE);
    thread::scope(|scope| {
        let connecting = connect(scope, &shop, &probes);
        daemon.apply("shop.yaml", &with(&shop, &["pod-2"]));
        daemon.await_programmed();
        // The address answers again, as if another Pod had it.
        let_speak(gone);
        assert_answered(&probes, connecting, "pod-2:8080");
    });
}

fn a_syn_leaves_a_removed_service() {
    let shop = Shop::new();
    let [gone] = shop.pods(["pod-1"]);
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    silence(gone);
    let probes = probes(&shop, &["external IP", "load-balancer IP"]);
    thread::scope(|scope| {
        let connecting = connect(scope, &shop, &probes);
        daemon.remove("shop.yaml");
        daemon.await_programmed();
        let_speak(gone);
        assert_answered(&probes, connecting, "gateway");
    });
}

fn a_syn_stays_at_a_serving_terminating_endpoint() {
    let shop = Shop::new();
    let [first, second] = shop.pods(["pod-1", "pod-2"]);
    let daemon = shop.start(&with(&shop, &["pod-1"]));
    silence(first);
    let probes = probes(&shop, &EVERYWHERE);
    thread::scope(|scope| {
        let connecting = connect(scope, &shop, &probes);
        let terminates = json!({ "ready": false, "serving": true, "terminating": true });
        let slices = cart_slices([second]).with([first], &terminates);
        let yaml = cart_on_every_frontend().yaml() + &slices.yaml();
        daemon.apply("shop.yaml", &yaml);
        daemon.await_programmed();
        let_speak(first);
        assert_answered(&probes, connecting, "pod-1:8080");
    });
}
