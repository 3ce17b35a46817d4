//! The upgrade from version 0.1.0, whose tables have base chains of type filter, under load.

use std::sync::atomic::Ordering;
use std::time::Instant;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::changes::under_counted_load;
use super::restart::{assert_every_frontend_is_served, manifests};
use super::shop::{Shop, frontends};
use super::{Daemon, Family, Probe, everywhere};
use crate::lab::{Answer, Flow, Outcome, nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::upgrade;
    crate::trials!(upgrade:
        no_connection_fails_when_the_tables_of_0_1_0_are_replaced,
    )
}

/// The output of `kube-dnat render` of version 0.1.0 for [`manifests`] with the flags of
/// [`Daemon::start`]. Not every base chain in it is of type nat.
const BEFORE: &str = include_str!("shape-0.1.0.nft");

/// The number of connections before the upgrade, and again after it.
const CONNECTIONS: usize = 1_000;

/// Returns probes of the cart from a Pod and from the outside client.
fn probes(shop: &Shop) -> Vec<Probe<'_>> {
    let [outside, pod] = [&shop.cluster.client, shop.cluster.pod("pod-3")];
    everywhere()
        .flat_map(|(family, protocol)| {
            let [cluster_ip, node_port, ..] = frontends(family).map(|(_, to)| to);
            [(pod, cluster_ip), (outside, node_port)].map(|(from, to)| from.probe(protocol, to))
        })
        .collect()
}

/// Open connections, with the first answers of their servers.
struct Held(Vec<(String, Flow, Answer)>);

impl Held {
    fn open(probes: &[Probe<'_>]) -> Self {
        let open = |probe: &Probe<'_>| {
            let mut flow =
                Flow::open(probe).unwrap_or_else(|outcome| panic!("{probe}: {outcome:?}"));
            let greeting = flow.greeting().answer();
            (probe.to_string(), flow, greeting)
        };
        Self(probes.iter().map(open).collect())
    }

    fn assert_alive(&mut self, when: &str) {
        for (probe, flow, greeting) in &mut self.0 {
            let expected = Outcome::Answered(greeting.clone());
            assert_eq!(flow.ask(), expected, "{probe} {when}");
        }
    }
}

/// Asserts the priority of the chain for source NAT.
fn assert_postrouting(shop: &Shop, priority: &str) {
    for family in Family::ALL {
        let [kind, name] = family.table();
        let arguments = ["list", "chain", kind, name, "nat-postrouting"];
        let listing = shop.cluster.node.namespace.command("nft", &arguments);
        let head = format!("type nat hook postrouting priority {priority};");
        assert!(listing.contains(&head), "{listing}");
    }
}

fn no_connection_fails_when_the_tables_of_0_1_0_are_replaced() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    nft::load(&shop.cluster.node.namespace, BEFORE);
    assert_postrouting(&shop, "srcnat");
    let probes = probes(&shop);
    let mut held = Held::open(&probes);
    let started = Instant::now();
    let (tallies, _daemon) = under_counted_load(&probes, |begun| {
        let await_more = |when: &str| {
            let enough = begun.load(Ordering::Relaxed) + CONNECTIONS;
            wait_until(when, || begun.load(Ordering::Relaxed) > enough);
        };
        await_more("connections by the tables of 0.1.0");
        held.assert_alive("before");
        let daemon = Daemon::start(&shop.cluster, &shop.manifests);
        held.assert_alive("as soon as the tables are replaced");
        let replaced = daemon.logged(LogEvent::TableReplaced);
        assert_eq!(replaced.len(), 2, "{replaced:?}");
        await_more("connections by the tables of this version");
        held.assert_alive("after");
        daemon
    });
    let elapsed = started.elapsed();
    let mut connections = 0;
    for (probe, tally) in probes.iter().zip(tallies) {
        assert!(tally.failures.is_empty(), "{probe}: {:?}", tally.failures);
        connections += tally.servers.values().sum::<usize>();
    }
    eprintln!("{connections} connections in {elapsed:?}, none failed");
    assert_postrouting(&shop, "srcnat - 1");
    let listing = nft::list(&shop.cluster.node.namespace);
    assert!(!listing.contains("type filter"), "{listing}");
    assert_every_frontend_is_served(&shop);
}
