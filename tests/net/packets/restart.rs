//! Restarts: the rules stay when the daemon exits, and the next start takes them over.

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::changes::under_load;
use super::shop::{Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Daemon, Family, everywhere, names, servers};
use crate::lab::{Flow, Outcome, nft};

pub(super) fn tests() -> Vec<Trial> {
    use super::restart;
    crate::trials!(restart:
        the_daemon_exits_and_every_frontend_stays_served,
        a_crash_leaves_every_frontend_served,
        no_connection_fails_while_the_daemon_is_killed_and_upgraded,
        a_start_takes_unchanged_tables_over,
        a_start_programs_changes_since_the_last_run,
        a_start_with_other_flags_applies_them,
    )
}

/// Returns `shop/cart` on every frontend, with one endpoint.
pub(super) fn manifests(shop: &Shop) -> String {
    cart_on_every_frontend().yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()
}

pub(super) fn assert_every_frontend_is_served(shop: &Shop) {
    for (family, protocol) in everywhere() {
        for (frontend, to) in frontends(family) {
            let probe = shop.cluster.client.probe(protocol, to);
            assert_eq!(
                servers(&probe),
                names(["pod-1:8080"]),
                "{frontend}: {probe}"
            );
        }
    }
}

fn the_daemon_exits_and_every_frontend_stays_served() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let mut flows: Vec<_> = everywhere()
        .map(|(family, protocol)| {
            let probe = shop
                .cluster
                .client
                .probe(protocol, (family.cluster_ip(1), 80));
            let mut flow =
                Flow::open(&probe).unwrap_or_else(|outcome| panic!("{probe}: {outcome:?}"));
            let greeting = flow.greeting().answer();
            (flow, greeting)
        })
        .collect();
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
    for (flow, greeting) in &mut flows {
        assert_eq!(flow.ask(), Outcome::Answered(greeting.clone()));
    }
    assert_every_frontend_is_served(&shop);
}

fn a_crash_leaves_every_frontend_served() {
    let shop = Shop::new();
    // Dropping the daemon kills it.
    drop(shop.start(&manifests(&shop)));
    assert_every_frontend_is_served(&shop);
    let _again = Daemon::start(&shop.cluster, &shop.manifests);
    assert_every_frontend_is_served(&shop);
}

/// Changes that give the tables the shape of another version: another rule, set and chain.
const OTHER_SHAPE: &str = "add set FAMILY kube-dnat older { type inet_service; }\n\
    add chain FAMILY kube-dnat older\n\
    insert rule FAMILY kube-dnat services counter";

fn no_connection_fails_while_the_daemon_is_killed_and_upgraded() {
    let shop = Shop::new();
    let mut daemon = shop.start(&manifests(&shop));
    let client = &shop.cluster.client;
    let probes: Vec<_> = everywhere()
        .flat_map(|(family, protocol)| frontends(family).map(|(_, to)| client.probe(protocol, to)))
        .collect();
    let tallies = under_load(&probes, || {
        for _ in 0..3 {
            daemon.terminate();
            daemon = Daemon::start(&shop.cluster, &shop.manifests);
            daemon.kill();
            daemon = Daemon::start(&shop.cluster, &shop.manifests);
            daemon.kill();
            for family in Family::ALL {
                let [kind, _] = family.table();
                let node = &shop.cluster.node.namespace;
                nft::load(node, &OTHER_SHAPE.replace("FAMILY", kind));
            }
            daemon = Daemon::start(&shop.cluster, &shop.manifests);
            let replaced = daemon.logged(LogEvent::TableReplaced);
            assert_eq!(replaced.len(), 2, "{replaced:?}");
        }
    });
    for (probe, tally) in probes.iter().zip(tallies) {
        assert!(tally.failures.is_empty(), "{probe}: {:?}", tally.failures);
        let connections: usize = tally.servers.values().sum();
        assert!(connections > 20, "{probe}: {connections} connections");
    }
}

/// Returns every chain, set, map and rule with its handle. A recreated object has another handle.
pub(super) fn handles(shop: &Shop, family: Family) -> Vec<String> {
    let [kind, name] = family.table();
    let listing = shop
        .cluster
        .node
        .namespace
        .command("nft", &["-a", "-s", "list", "table", kind, name]);
    listing
        .lines()
        .filter(|line| line.contains("# handle"))
        .map(str::to_owned)
        .collect()
}

fn a_start_takes_unchanged_tables_over() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let before = Family::ALL.map(|family| handles(&shop, family));
    daemon.terminate();
    let again = Daemon::start(&shop.cluster, &shop.manifests);
    assert_eq!(Family::ALL.map(|family| handles(&shop, family)), before);
    assert_eq!(again.warnings(), Vec::<String>::new());
}

fn a_start_programs_changes_since_the_last_run() {
    let shop = Shop::new();
    shop.start(&manifests(&shop)).terminate();
    let endpoints = shop.pods(["pod-2"]);
    let again = shop
        .start(&(cart_on_every_frontend().external_ip(2).yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        let probe = |to| shop.cluster.client.probe(protocol, to);
        for to in [(family.cluster_ip(1), 80), (family.external_ip(2), 80)] {
            assert_eq!(servers(&probe(to)), names(["pod-2:8080"]), "{}", probe(to));
        }
        assert_eq!(
            servers(&probe((family.external_ip(1), 80))),
            names(["gateway"]),
            "{protocol} {family}"
        );
    }
    again.terminate();
    let stale = shop
        .pods(["pod-1"])
        .map(|pod| Family::ALL.map(|family| pod.ip(family).to_string()));
    for family in Family::ALL {
        let table = nft::list_table(&shop.cluster.node.namespace, family.table());
        assert!(
            stale
                .iter()
                .flatten()
                .all(|address| !table.contains(&format!("{address} . "))),
            "{table}"
        );
    }
}

fn a_start_with_other_flags_applies_them() {
    let shop = Shop::new();
    shop.start(&manifests(&shop)).terminate();
    let assert_source_kept = |kept: bool| {
        for (family, protocol) in everywhere() {
            let probe = shop
                .cluster
                .client
                .probe(protocol, (family.cluster_ip(1), 80));
            assert_eq!(probe.send().answer().keeps_source(), kept, "{probe}");
        }
    };
    assert_source_kept(false);
    Daemon::start_with(&shop.cluster, &shop.manifests, &[]).terminate();
    assert_source_kept(true);
    Daemon::start(&shop.cluster, &shop.manifests).terminate();
    assert_source_kept(false);
}
