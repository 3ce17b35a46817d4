//! The takeover from kube-proxy's ipvs mode, whose rules match IP sets. (The kernel may have no
//! IPVS.)

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::explain::run;
use super::shop::{Shop, cart, cart_slices};
use super::{Daemon, Family};
use crate::lab::{Namespace, nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::takeover_ipvs;
    crate::trials!(takeover_ipvs:
        cleanup_removes_the_ip_sets_of_rules_that_it_just_removed,
        an_ip_set_in_use_does_not_prevent_other_removals,
        takeover_retries_what_it_cannot_remove,
        a_kube_proxy_that_returns_keeps_its_ip_sets,
    )
}

/// The IP sets, each with the direction in which kube-proxy's rules match it.
const SETS: [(&str, &str, &str); 4] = [
    ("CLUSTER-IP", "hash:ip,port", "dst,dst"),
    ("LOOP-BACK", "hash:ip,port,ip", "dst,dst,src"),
    ("NODE-PORT-TCP", "bitmap:port", "dst"),
    (
        "LOAD-BALANCER-SOURCE-CIDR",
        "hash:ip,port,net",
        "dst,dst,src",
    ),
];

/// Creates the objects of the ipvs mode in both families, with the programs that it runs.
///
/// A set of ports has no family.
fn start_kube_proxy(node: &Namespace) {
    node.ip("link add kube-ipvs0 type bridge\n");
    for (prefix, family, restore) in [
        ("KUBE-", "inet", "iptables-nft-restore"),
        ("KUBE-6-", "inet6", "ip6tables-nft-restore"),
    ] {
        let name = |of: &str| {
            let mut name = format!("{prefix}{of}");
            name.truncate(31);
            name
        };
        let create = |(of, kind, _): (&str, &str, &str)| match kind {
            "bitmap:port" => format!("create {} {kind} range 0-65535\n", name(of)),
            _ => format!("create {} {kind} family {family}\n", name(of)),
        };
        let sets: String = SETS.map(create).concat();
        node.command_with_input("ipset", &["restore"], &sets);
        let rule = |(of, _, direction): (&str, &str, &str)| {
            let name = name(of);
            format!("-A KUBE-SERVICES -m set --match-set {name} {direction} -j ACCEPT\n")
        };
        let rules: String = SETS.map(rule).concat();
        let input = format!(
            "*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n{rules}COMMIT\n"
        );
        node.command_with_input(restore, &[], &input);
    }
}

/// Adds (`-A`) or deletes (`-D`) a rule of another program that matches an IP set of kube-proxy.
fn rule_of_another(node: &Namespace, how: &str) {
    let set = ["-m", "set", "--match-set", "KUBE-LOOP-BACK", "dst,dst,src"];
    let arguments = [&[how, "INPUT"], &set[..], &["-j", "ACCEPT"]].concat();
    node.command("iptables-nft", &arguments);
}

fn ip_sets(node: &Namespace) -> String {
    node.command("ipset", &["list", "-name"])
}

#[track_caller]
fn assert_only_sets_are_left(node: &Namespace, sets: &str) {
    assert_eq!(ip_sets(node), sets);
    assert!(!nft::list(node).contains("KUBE-SERVICES"));
    assert!(!node.command("ip", &["link"]).contains("kube-ipvs0"));
}

fn cleanup_removes_the_ip_sets_of_rules_that_it_just_removed() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    for _ in 0..5 {
        start_kube_proxy(node);
        let (code, _, error) = run(&shop, &["cleanup", "--kube-proxy"]);
        assert_eq!(code, 0, "{error}");
        assert!(error.contains("IP sets (8) deleted"), "{error}");
        assert_only_sets_are_left(node, "");
    }
}

fn an_ip_set_in_use_does_not_prevent_other_removals() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    start_kube_proxy(node);
    rule_of_another(node, "-A");
    let (code, _, error) = run(&shop, &["cleanup", "--kube-proxy"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("KUBE-LOOP-BACK"), "{error}");
    assert!(
        error.contains("in use by another program's rule"),
        "{error}"
    );
    assert!(error.contains("IP sets (7) deleted"), "{error}");
    assert!(error.contains("device kube-ipvs0 deleted"), "{error}");
    assert_only_sets_are_left(node, "KUBE-LOOP-BACK\n");
}

/// Starts the daemon with `--takeover` and a Service.
fn take_over(shop: &Shop) -> Daemon<'_> {
    let ready = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    shop.manifests.write("shop.yaml", &(cart().yaml() + &ready));
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--cluster-cidr", &cidrs, "--takeover"];
    Daemon::start_with(&shop.cluster, &shop.manifests, &flags)
}

fn takeover_retries_what_it_cannot_remove() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    start_kube_proxy(node);
    rule_of_another(node, "-A");
    let daemon = take_over(&shop);
    wait_until("the failure is logged", || {
        !daemon.logged(LogEvent::TakeoverFailed).is_empty()
    });
    assert_only_sets_are_left(node, "KUBE-LOOP-BACK\n");
    rule_of_another(node, "-D");
    wait_until("the last IP set is removed", || ip_sets(node).is_empty());
    wait_until("the removal is logged", || {
        let ends = daemon.logged(LogEvent::KubeProxyRemoved);
        ends.iter().any(|line| line.contains("IP sets (1)"))
    });
    assert_eq!(
        daemon.logged(LogEvent::TakeoverFailed).len(),
        1,
        "logged once"
    );
}

fn a_kube_proxy_that_returns_keeps_its_ip_sets() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    start_kube_proxy(node);
    rule_of_another(node, "-A");
    let daemon = take_over(&shop);
    wait_until("the failure is logged", || {
        !daemon.logged(LogEvent::TakeoverFailed).is_empty()
    });
    wait_until("the return of kube-proxy is logged", || {
        // The loop recreates the table, because an attempt in progress can remove it.
        nft::load(node, "table ip kube-proxy { }");
        !daemon.logged(LogEvent::KubeProxyReturned).is_empty()
    });
    rule_of_another(node, "-D");
    assert_eq!(ip_sets(node), "KUBE-LOOP-BACK\n");
}
