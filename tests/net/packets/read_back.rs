//! A start reads large tables back, whatever happens meanwhile.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::Daemon;
use super::restart::{assert_every_frontend_is_served, manifests};
use super::shop::Shop;
use crate::lab::{nft, run_command, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::read_back;
    crate::trials!(read_back:
        what_only_a_dump_shows_is_deleted_from_large_tables,
        a_start_that_is_killed_and_repeated_ends_in_the_same_tables,
        tables_that_are_deleted_during_a_read_back_are_recreated,
        elements_that_are_added_during_a_read_back_are_deleted,
    )
}

/// Returns many Services with ten endpoints each, so that a read-back takes many steps.
fn many() -> String {
    let mut yaml = String::new();
    for number in 0..2_500 {
        let ip = Ipv4Addr::from(0x0a60_8000 + number);
        let endpoints = (0..10).map(|slot| {
            let ip = Ipv4Addr::from(0x0af4_8000 + number * 10 + slot);
            format!("{{addresses: [{ip}]}}")
        });
        let endpoints: Vec<_> = endpoints.collect();
        let endpoints = endpoints.join(", ");
        writeln!(
            yaml,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: many}}\n\
             spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s{number}, namespace: many, \
             labels: {{kubernetes.io/service-name: s{number}}}}}\naddressType: IPv4\n\
             ports: [{{port: 8080}}]\nendpoints: [{endpoints}]"
        )
        .expect("a String accepts every write");
    }
    yaml
}

/// Returns a shop whose tables are large, and the daemon that made them.
fn large(shop: &Shop) -> Daemon<'_> {
    shop.manifests.write("many.yaml", &many());
    shop.start(&manifests(shop))
}

/// The elements that another program adds, each with its map and key.
const FOREIGN: [(&str, &str, &str); 3] = [
    ("services", "tcp . 10.96.240.1 . 80", " : goto pick-1"),
    (
        "endpoints",
        "tcp . 10.96.240.1 . 80 . 0",
        " : 10.244.1.11 . 8080",
    ),
    ("hairpin", "10.244.240.1 . 10.244.240.1", ""),
];

fn add_foreign(shop: &Shop) {
    for (set, key, value) in FOREIGN {
        let rules = format!("add element ip kube-dnat {set} {{ {key}{value} }}\n");
        nft::load(&shop.cluster.node.namespace, &rules);
    }
}

fn await_without_foreign(shop: &Shop) {
    let namespace = &shop.cluster.node.namespace;
    wait_until("foreign elements are deleted", || {
        FOREIGN
            .iter()
            .all(|(set, key, _)| !nft::has_element(namespace, ["ip", "kube-dnat"], set, key))
    });
}

/// Starts the daemon without waiting for anything.
fn begin(shop: &Shop, flags: &[&str]) -> std::process::Child {
    let mut command = run_command(&shop.cluster);
    command
        .args(["--manifests", shop.manifests.path()])
        .args(flags)
        .env("RUST_LOG", "info,kube_dnat=debug")
        .env("NO_COLOR", "1")
        .stderr(Stdio::piped());
    shop.cluster.node.namespace.spawn(&mut command)
}

fn what_only_a_dump_shows_is_deleted_from_large_tables() {
    let shop = Shop::new();
    large(&shop).kill();
    let namespace = &shop.cluster.node.namespace;
    let before = nft::list(namespace);
    add_foreign(&shop);
    nft::load(
        namespace,
        "delete element ip kube-dnat endpoints { tcp . 10.96.128.7 . 80 . 3 }\n",
    );
    let daemon = Daemon::started(&shop.cluster, &shop.manifests, begin(&shop, &[]));
    await_without_foreign(&shop);
    assert_every_frontend_is_served(&shop);
    wait_until("the audit is logged", || {
        daemon.logged(LogEvent::TablesAudited).len() == 2
    });
    assert_eq!(daemon.warnings(), [""; 0]);
    let lines = |listing: &str| {
        let lines = listing.lines().filter(|line| line.contains("many/s"));
        lines.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let after = nft::list(namespace);
    assert_eq!(lines(&after).len(), lines(&before).len());
    assert_eq!(
        lines(&nft::normalise(&after)),
        lines(&nft::normalise(&before))
    );
}

fn a_start_that_is_killed_and_repeated_ends_in_the_same_tables() {
    let shop = Shop::new();
    large(&shop).kill();
    add_foreign(&shop);
    for pause in [50, 200, 400, 600, 800] {
        let mut process = begin(&shop, &[]);
        thread::sleep(Duration::from_millis(pause));
        process.kill().expect("a process to kill");
        process.wait().expect("its end");
        assert_every_frontend_is_served(&shop);
    }
    let daemon = Daemon::started(&shop.cluster, &shop.manifests, begin(&shop, &[]));
    await_without_foreign(&shop);
    assert_every_frontend_is_served(&shop);
    assert_eq!(daemon.warnings(), [""; 0]);
}

fn tables_that_are_deleted_during_a_read_back_are_recreated() {
    let shop = Shop::new();
    large(&shop).kill();
    for pause in [100, 300, 500] {
        let shared = ["--table-owner=false"];
        let process = begin(&shop, &shared);
        thread::sleep(Duration::from_millis(pause));
        let _no_table = shop
            .cluster
            .node
            .namespace
            .output("nft", &["flush", "ruleset"], "");
        let daemon = Daemon::started(&shop.cluster, &shop.manifests, process);
        let count = || {
            let listing = nft::list_table(&shop.cluster.node.namespace, ["ip", "kube-dnat"]);
            listing.matches("many/s").count()
        };
        wait_until("everything is programmed again", || count() >= 27_500);
        assert_every_frontend_is_served(&shop);
        daemon.kill();
    }
}

fn elements_that_are_added_during_a_read_back_are_deleted() {
    let shop = Shop::new();
    large(&shop).kill();
    for pause in [100, 300, 500] {
        let process = begin(&shop, &["--table-owner=false"]);
        thread::sleep(Duration::from_millis(pause));
        add_foreign(&shop);
        let daemon = Daemon::started(&shop.cluster, &shop.manifests, process);
        await_without_foreign(&shop);
        assert_every_frontend_is_served(&shop);
        daemon.kill();
    }
}
