//! The migration from kube-proxy to kube-dnat and the rollback, under load.

use std::net::SocketAddr;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::changes::under_load;
use super::commands::CLEANUP_REFUSALS;
use super::explain::run;
use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::{Daemon, Family, Host, IpAddr, Probe, Protocol, everywhere};
use crate::lab::{nft, supports_owned_tables, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::takeover;
    crate::trials!(takeover:
        no_connection_fails_during_migration_and_rollback,
        a_connection_through_kube_proxy_survives_the_migration,
        takeover_removes_the_rules_of_kube_proxy_and_nothing_else,
        cleanup_removes_the_rules_of_kube_proxy_and_logs_them,
        thousands_of_chains_are_removed_in_one_transaction,
    )
}

/// The frontends of the cart in kube-proxy's rules.
fn frontends(family: Family) -> [(IpAddr, u16); 2] {
    [(family.cluster_ip(1), 80), (family.lan(2), NODE_PORT)]
}

/// The rules of kube-proxy's nftables mode for `shop/cart`, with the chains and maps of its
/// documentation (`pkg/proxy/nftables/README.md`) and the priorities of its code.
fn kube_proxy(family: Family, endpoints: [&Host; 2]) -> String {
    let [ip, _] = family.table();
    let address = match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    };
    let [one, other] = endpoints.map(|endpoint| endpoint.ip(family));
    let at = |ip| SocketAddr::new(ip, 8080).to_string();
    include_str!("kube-proxy.nft")
        .replace("ADDRESS", address)
        .replace("CLUSTER_AT", &family.cluster_ip(1).to_string())
        .replace("NODE_AT", &family.lan(2).to_string())
        .replace("NODE_PORT", &NODE_PORT.to_string())
        .replace("PODS", family.cluster_cidr())
        .replace("SERVICES", family.service_cidr())
        .replace("AT_ONE", &at(one))
        .replace("AT_OTHER", &at(other))
        .replace("ONE", &one.to_string())
        .replace("OTHER", &other.to_string())
        .replace("IP", ip)
}

/// The rules of kube-proxy's iptables mode in the nft variant of iptables, beside chains of the
/// kubelet, of kube-router, and of a CNI plugin that needs a chain of kube-proxy.
const IPTABLES: &str = "
table ip nat {
    chain KUBE-MARK-MASQ { meta mark set mark or 0x4000; }
    chain KUBE-SEP-A { meta l4proto tcp dnat to 10.244.1.9:8080; }
    chain KUBE-SVC-A { jump KUBE-SEP-A; }
    chain KUBE-NODEPORTS { tcp dport 30080 jump KUBE-SVC-A; }
    chain KUBE-SERVICES { ip daddr 10.96.0.1 tcp dport 80 jump KUBE-SVC-A; fib daddr type local jump KUBE-NODEPORTS; }
    chain KUBE-POSTROUTING { meta mark & 0x4000 == 0 return; masquerade; }
    chain KUBE-KUBELET-CANARY { }
    chain CNI-HOSTPORT-SETMARK { jump KUBE-MARK-MASQ; }
    chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; jump KUBE-SERVICES; counter jump CNI-HOSTPORT-SETMARK; }
    chain OUTPUT { type nat hook output priority -100; policy accept; jump KUBE-SERVICES; }
    chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; jump KUBE-POSTROUTING; }
}
table ip filter {
    chain KUBE-FORWARD { ct state invalid drop; }
    chain KUBE-FIREWALL { }
    chain KUBE-ROUTER-INPUT { }
    chain KUBE-POD-FW-A { }
    chain INPUT { type filter hook input priority filter; policy accept; jump KUBE-ROUTER-INPUT; jump KUBE-FIREWALL; }
    chain FORWARD { type filter hook forward priority filter; policy accept; jump KUBE-FORWARD; jump KUBE-POD-FW-A; }
}
table inet kube-proxy {
    chain not-of-this-family { }
}
";

fn manifests(shop: &Shop) -> String {
    let ready = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    cart().node_port(NODE_PORT).yaml() + &ready
}

/// Loads kube-proxy's tables in one transaction, as its start does.
fn start_kube_proxy(shop: &Shop) {
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    let tables = Family::ALL.map(|family| kube_proxy(family, endpoints));
    nft::load(&shop.cluster.node.namespace, &tables.concat());
}

fn listing(shop: &Shop) -> String {
    nft::list(&shop.cluster.node.namespace)
}

/// Starts the daemon with `--takeover`, and waits until it removed kube-proxy's rules.
fn take_over(shop: &Shop) -> Daemon<'_> {
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--cluster-cidr", &cidrs, "--takeover"];
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    wait_until("kube-proxy's rules are removed", || {
        let events = [LogEvent::KubeProxyRemoved, LogEvent::KubeProxyNotFound];
        events.iter().any(|event| !daemon.logged(*event).is_empty())
    });
    daemon
}

fn no_connection_fails_during_migration_and_rollback() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    start_kube_proxy(&shop);
    let sources = [
        &shop.cluster.client,
        shop.cluster.pod("pod-3"),
        &shop.cluster.node,
    ];
    let probes: Vec<Probe<'_>> = everywhere()
        .flat_map(|(family, protocol)| frontends(family).map(|to| (protocol, to)))
        .flat_map(|(protocol, to)| sources.map(|source| source.probe(protocol, to)))
        .collect();
    let started = std::time::Instant::now();
    let tallies = under_load(&probes, || {
        for _ in 0..3 {
            // Migration: first beside kube-proxy, then alone.
            Daemon::start(&shop.cluster, &shop.manifests).terminate();
            assert!(listing(&shop).contains("table ip kube-proxy"));
            let alone = take_over(&shop);
            assert!(!listing(&shop).contains("kube-proxy"), "{}", listing(&shop));
            // Rollback: kube-proxy first beside kube-dnat, then alone.
            start_kube_proxy(&shop);
            let (code, _, error) = run(&shop, &["cleanup"]);
            assert_eq!(code, 1, "{error}");
            let (_, fix) = CLEANUP_REFUSALS[usize::from(supports_owned_tables())];
            assert!(error.contains(fix), "{error}");
            alone.terminate();
            let (code, _, error) = run(&shop, &["cleanup"]);
            assert_eq!(code, 0, "{error}");
            assert!(!listing(&shop).contains("kube-dnat"));
        }
    });
    let elapsed = started.elapsed();
    let mut connections = 0;
    for (probe, tally) in probes.iter().zip(tallies) {
        assert!(tally.failures.is_empty(), "{probe}: {:?}", tally.failures);
        let count: usize = tally.servers.values().sum();
        assert!(count > 10, "{probe}: {count}");
        connections += count;
    }
    eprintln!(
        "three migrations and rollbacks: {connections} connections in {elapsed:?}, none failed"
    );
}

fn a_connection_through_kube_proxy_survives_the_migration() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    start_kube_proxy(&shop);
    let client = &shop.cluster.client;
    let open = |family: Family| {
        let probe = client.probe(Protocol::Tcp, frontends(family)[1]);
        crate::lab::Flow::open(&probe).expect("a connection")
    };
    let mut flows = Family::ALL.map(open);
    let servers = flows.each_mut().map(|flow| flow.greeting().answer().server);
    let daemon = take_over(&shop);
    let after = flows.each_mut().map(|flow| flow.ask().answer().server);
    assert_eq!(after, servers);
    start_kube_proxy(&shop);
    daemon.terminate();
    assert_eq!(run(&shop, &["cleanup"]).0, 0);
    let after = flows.each_mut().map(|flow| flow.ask().answer().server);
    assert_eq!(after, servers);
}

/// The chains that the takeover keeps.
const KEPT: [&str; 8] = [
    "KUBE-MARK-MASQ",
    "KUBE-POSTROUTING",
    "KUBE-KUBELET-CANARY",
    "CNI-HOSTPORT-SETMARK",
    "KUBE-FIREWALL",
    "KUBE-ROUTER-INPUT",
    "KUBE-POD-FW-A",
    "not-of-this-family",
];

/// The chains that the takeover removes.
const REMOVED: [&str; 5] = [
    "KUBE-SERVICES",
    "KUBE-SVC-A",
    "KUBE-SEP-A",
    "KUBE-NODEPORTS",
    "KUBE-FORWARD",
];

#[track_caller]
fn assert_only_kube_proxys_rules_are_removed(shop: &Shop) {
    let listing = listing(shop);
    for name in KEPT {
        assert!(
            listing.contains(&format!("chain {name} ")),
            "{name}: {listing}"
        );
    }
    for name in REMOVED {
        assert!(!listing.contains(name), "{name}: {listing}");
    }
    for table in ["table ip kube-proxy", "table ip6 kube-proxy"] {
        assert!(!listing.contains(table), "{listing}");
    }
    assert!(listing.contains("jump CNI-HOSTPORT-SETMARK"), "{listing}");
    assert!(listing.contains("jump KUBE-ROUTER-INPUT"), "{listing}");
}

fn takeover_removes_the_rules_of_kube_proxy_and_nothing_else() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    start_kube_proxy(&shop);
    let node = &shop.cluster.node.namespace;
    nft::load(node, IPTABLES);
    node.ip("link add kube-ipvs0 type bridge\n");
    for set in ["KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP", "KUBE-SRC-ABCDEF"] {
        node.command("ipset", &["create", set, "hash:ip,port"]);
    }
    let daemon = take_over(&shop);
    assert_only_kube_proxys_rules_are_removed(&shop);
    let removed = daemon.logged(LogEvent::KubeProxyRemoved);
    assert!(
        removed[0].contains("table ip kube-proxy, table ip6 kube-proxy, and iptables chains (5)"),
        "{removed:?}"
    );
    assert!(removed[0].contains("IP sets (2)"), "{removed:?}");
    assert!(removed[0].contains("device kube-ipvs0"), "{removed:?}");
    assert_eq!(
        node.command("ipset", &["list", "-name"]),
        "KUBE-SRC-ABCDEF\n"
    );
    assert!(!node.command("ip", &["link"]).contains("kube-ipvs0"));
    drop(daemon);
    let again = take_over(&shop);
    assert_eq!(again.logged(LogEvent::KubeProxyNotFound).len(), 1);
}

fn cleanup_removes_the_rules_of_kube_proxy_and_logs_them() {
    let shop = Shop::new();
    start_kube_proxy(&shop);
    nft::load(&shop.cluster.node.namespace, IPTABLES);
    let (code, _, error) = run(&shop, &["cleanup", "--kube-proxy"]);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("no table to delete"), "{error}");
    assert!(error.contains("table ip kube-proxy, table ip6 kube-proxy, and iptables chains (5) with the jumps to them (3) deleted"), "{error}");
    assert_only_kube_proxys_rules_are_removed(&shop);
    let (code, _, error) = run(&shop, &["cleanup", "--kube-proxy"]);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("no rules of kube-proxy found"), "{error}");
}

fn thousands_of_chains_are_removed_in_one_transaction() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    let chain =
        |n: u32| format!("chain KUBE-SEP-{n} {{ }}\nchain KUBE-SVC-{n} {{ jump KUBE-SEP-{n}; }}\n");
    let jump = |n: u32| format!("ip daddr 10.96.0.{} jump KUBE-SVC-{n}\n", n % 250);
    let chains: String = (0..2000).map(chain).collect();
    let jumps: String = (0..2000).map(jump).collect();
    nft::load(
        node,
        &format!(
            "table ip nat {{\n{chains}chain KUBE-SERVICES {{\n{jumps}}}\n\
             chain OUTPUT {{ type nat hook output priority -100; jump KUBE-SERVICES; }}\n}}\n"
        ),
    );
    let (code, _, error) = run(&shop, &["cleanup", "--kube-proxy"]);
    assert_eq!(code, 0, "{error}");
    assert!(
        error.contains("iptables chains (4001) with the jumps to them (1)"),
        "{error}"
    );
    assert!(!listing(&shop).contains("KUBE-"));
}
