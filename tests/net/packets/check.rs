//! `kube-dnat check`: whether a node is ready.

use libtest_mimic::Trial;
use serde_json::Value;

use super::commands::{json, manifests};
use super::explain::{run, run_without_capabilities};
use super::shop::Shop;
use crate::lab::nft;

pub(super) fn tests() -> Vec<Trial> {
    use super::check;
    crate::trials!(check:
        check_reports_a_ready_node_and_changes_nothing,
        check_names_each_problem_and_its_fix,
        check_without_capabilities_names_the_one_that_is_missing,
        check_recognizes_a_table_that_another_version_owns,
        check_of_a_node_without_a_route_to_its_cluster_ips,
        check_of_an_ipv6_only_node,
    )
}

fn check_reports_a_ready_node_and_changes_nothing() {
    let shop = Shop::new();
    let before = nft::list(&shop.cluster.node.namespace);
    let (code, answer) = json(&shop, &["check"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["ready"], true, "{answer}");
    let levels = answer["results"].as_array().expect("results").iter();
    let levels = levels.map(|result| (&result["check"], &result["level"]));
    assert!(
        levels
            .clone()
            .all(|(_, level)| level == "ok" || level == "warning"),
        "{answer}"
    );
    assert!(
        levels
            .clone()
            .any(|(what, level)| what == "nftables" && level == "ok"),
        "{answer}"
    );
    assert!(levels.clone().any(|(what, _)| what == "kernel"), "{answer}");
    assert!(
        levels
            .clone()
            .any(|(what, level)| what == "balance" && level == "ok"),
        "{answer}"
    );
    assert_eq!(nft::list(&shop.cluster.node.namespace), before);
    // The answer is the same while a daemon is running.
    let daemon = shop.start(&manifests(&shop));
    let (code, out, _) = run(&shop, &["check"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("kube-dnat's tables exist"), "{out}");
    assert!(out.ends_with("this node is ready for kube-dnat\n"), "{out}");
    assert_eq!(daemon.warnings(), [""; 0]);
}

/// Rules of other programs, each of which check must report.
const CONFLICTS: &str = "
table ip kube-proxy {
}
table inet firewalld {
}
table ip nat {
    chain KUBE-SVC-A {
    }
    chain PREROUTING {
        type nat hook prerouting priority -150;
        jump KUBE-SVC-A
    }
}
table inet mine {
    chain forward {
        type filter hook forward priority 0; policy drop;
        accept
    }
}
";

fn check_names_each_problem_and_its_fix() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    node.sysctls(&[
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv4/conf/all/rp_filter", "1"),
    ]);
    node.ip("link add bridge type bridge\nlink add port type veth peer name other\nlink set port master bridge\n");
    nft::load(node, CONFLICTS);
    let (code, answer) = json(&shop, &["check"]);
    assert_eq!(code, 2, "{answer}");
    let result = |check: &str| {
        let results = answer["results"].as_array().expect("results");
        let result = results.iter().find(|result| result["check"] == check);
        let result = result.unwrap_or_else(|| panic!("no result of {check}: {answer}"));
        let text = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
        (text("level"), text("message"), text("fix"))
    };
    let (level, _, fix) = result("ip_forward");
    assert_eq!(level, "failure");
    assert!(fix.contains("sysctl -w net.ipv4.ip_forward=1"), "{fix}");
    for (check, problem, command) in [
        (
            "kube-proxy rules",
            "table ip kube-proxy, and iptables chains (1) with the jumps to them (1)",
            "--takeover",
        ),
        ("firewalld", "firewalld is active", "firewall-cmd"),
        (
            "host firewall",
            "table inet mine chain forward",
            "ct status dnat accept",
        ),
        (
            "earlier chains",
            "table ip nat chain PREROUTING",
            "addresses of Services",
        ),
        ("rp_filter", "strict on ", "rp_filter=2"),
    ] {
        let (level, message, fix) = result(check);
        assert_eq!(level, "warning", "{check}");
        assert!(message.contains(problem), "{check}: {message}");
        assert!(fix.contains(command), "{check}: {fix}");
    }
    let (_, out, _) = run(&shop, &["check"]);
    assert!(out.contains("FAIL  ip_forward"), "{out}");
    assert!(
        out.ends_with("this node is NOT ready for kube-dnat\n"),
        "{out}"
    );
}

fn check_without_capabilities_names_the_one_that_is_missing() {
    let shop = Shop::new();
    let output = run_without_capabilities(&shop, &["check"]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{out}");
    assert!(out.contains("FAIL  capability"), "{out}");
    assert!(out.contains("CAP_NET_ADMIN is missing"), "{out}");
}

fn check_recognizes_a_table_that_another_version_owns() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    let make = "echo 'add table ip kube-dnat { flags owner; }'";
    let wait = "until nft list tables | grep -q kube-dnat; do sleep 0.1; done";
    // It owns the table as long as its input is open.
    let own = format!("exec 3> >(exec timeout 20 nft -i); {make} >&3; {wait}");
    let command = format!("{own}; {program} check; exec 3>&-");
    let out = node.command("timeout", &["60", "bash", "-c", &command]);
    assert!(
        out.contains(
            "FAIL  nftables          another process owns a kube-dnat table of another version"
        ),
        "{out}"
    );
}

/// Returns the level and the message of a check.
fn result(answer: &Value, check: &str) -> (String, String) {
    let results = answer["results"].as_array().expect("results");
    let result = results.iter().find(|result| result["check"] == check);
    let result = result.unwrap_or_else(|| panic!("no result of {check}: {answer}"));
    let text = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
    (text("level"), text("message"))
}

fn check_of_a_node_without_a_route_to_its_cluster_ips() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    let _daemon = shop.start(&manifests(&shop));
    let (code, answer) = json(&shop, &["check"]);
    assert_eq!(code, 0, "{answer}");
    let (level, message) = result(&answer, "route");
    assert_eq!(
        (&*level, &*message),
        ("ok", "a route covers each ClusterIP (4)")
    );
    for family in ["-4", "-6"] {
        node.command("ip", &[family, "route", "flush", "table", "main"]);
    }
    let (code, answer) = json(&shop, &["check"]);
    assert_eq!(code, 2, "{answer}");
    let (level, message) = result(&answer, "route");
    assert_eq!(level, "failure", "{answer}");
    assert!(message.contains("4 of 4 have none"), "{message}");
}

fn check_of_an_ipv6_only_node() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    node.sysctls(&[
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv6/conf/all/forwarding", "1"),
    ]);
    let (_, answer) = json(&shop, &["check"]);
    assert_eq!(result(&answer, "ip_forward").0, "failure", "{answer}");
    node.command("ip", &["-4", "address", "flush", "scope", "global"]);
    let (code, answer) = json(&shop, &["check"]);
    assert_eq!(code, 0, "{answer}");
    let (level, message) = result(&answer, "ip_forward");
    assert_eq!(level, "ok", "{answer}");
    assert_eq!(message, "off, and this node has no IPv4 address");
}
