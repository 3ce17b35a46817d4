//! Service ports whose names do not fit into a comment of nft.

use libtest_mimic::Trial;
use serde_json::Value;

use super::admin::{on_loopback, value};
use super::commands::json;
use super::shop::Shop;
use super::{Family, Protocol};
use crate::lab::{Service, Slices, nft};

pub(super) fn tests() -> Vec<Trial> {
    use super::long_names;
    crate::trials!(long_names:
        two_ports_of_the_longest_service_name_are_distinct,
        two_ports_with_one_truncated_comment_are_distinct,
    )
}

/// Returns the longest Service name that Kubernetes allows.
fn service() -> String {
    format!("{}/{}", "n".repeat(63), "s".repeat(63))
}

/// Returns a Service with two ports whose names, and thus their comments, have a common prefix.
fn manifests(shop: &Shop) -> String {
    let name = service();
    let service = Service::new(&name, 1)
        .only(Family::V4)
        .port("web-a", Protocol::Tcp, 80)
        .port("web-b", Protocol::Tcp, 81);
    let slices = Slices::of(&name)
        .port("web-a", Protocol::Tcp, 8080)
        .port("web-b", Protocol::Tcp, 8080)
        .ready(shop.pods(["pod-1"]));
    service.yaml() + &slices.yaml()
}

fn connect(shop: &Shop, port: u16, times: usize) {
    let client = &shop.cluster.client;
    let probe = client.probe(Protocol::Tcp, (Family::V4.cluster_ip(1), port));
    let tally = probe.send_times(times);
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
}

/// Returns the connections that `top` counts, by name.
fn top(shop: &Shop) -> Vec<(String, u64)> {
    let arguments = ["top", "--once", "--interval", "0.1", "--sort", "service"];
    let (code, answer) = json(shop, &arguments);
    assert_eq!(code, 0, "{answer}");
    let rows = answer["services"].as_array().expect("rows").iter();
    let row = |row: &Value| {
        let name = row["service"].as_str()?.to_owned();
        Some((name, row["connections"].as_u64()?))
    };
    rows.filter_map(row)
        .filter(|(name, _)| name.starts_with("nnn"))
        .collect()
}

/// Returns the frontends that `explain` finds by a name, with their Service ports.
fn explained(shop: &Shop, what: &str) -> Vec<(String, String)> {
    let (code, answer) = json(shop, &["explain", what]);
    assert_eq!(code, 0, "{answer}");
    let connections = answer["connections"].as_array().expect("connections");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let each = connections
        .iter()
        .map(|to| (text(&to["frontend"]), text(&to["service"])));
    each.filter(|(frontend, _)| !frontend.starts_with('['))
        .collect()
}

fn counted(shop: &Shop, port: &str) -> Option<f64> {
    let (_, metrics) = on_loopback(shop, "/metrics");
    let name = service();
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let labels = format!("namespace=\"{namespace}\",service=\"{name}\",port_name=\"{port}\"");
    value(
        &metrics,
        &format!("kube_dnat_service_connections_total{{{labels}}}"),
    )
}

fn two_ports_of_the_longest_service_name_are_distinct() {
    let shop = Shop::new();
    let _daemon = shop.start(&manifests(&shop));
    connect(&shop, 80, 3);
    connect(&shop, 81, 2);
    assert_eq!(counted(&shop, "web-a"), Some(3.0));
    assert_eq!(counted(&shop, "web-b"), Some(2.0));
    let (a, b) = (service() + ":web-a", service() + ":web-b");
    assert_eq!(top(&shop), [(a.clone(), 3), (b.clone(), 2)]);
    let at = |port| format!("{}:{port}", Family::V4.cluster_ip(1));
    assert_eq!(explained(&shop, &a), [(at(80), a)]);
    assert_eq!(explained(&shop, &b), [(at(81), b)]);
}

/// An element from nft or from an older version has only the part of the name that fits into a
/// comment.
fn two_ports_with_one_truncated_comment_are_distinct() {
    let shop = Shop::new();
    shop.start(&manifests(&shop)).terminate();
    for port in [80, 81] {
        let key = format!("tcp . {} . {port}", Family::V4.cluster_ip(1));
        let services = "element ip kube-dnat services";
        let comment = service() + ":";
        let anew = format!(
            "delete {services} {{ {key} }}\n\
             add {services} {{ {key} comment \"{comment}\" : goto pick-1 }}\n"
        );
        nft::load(&shop.cluster.node.namespace, &anew);
    }
    connect(&shop, 80, 3);
    connect(&shop, 81, 2);
    let cut = |port| format!("{}:… {port}/tcp", service());
    assert_eq!(top(&shop), [(cut(80), 3), (cut(81), 2)]);
    // A running daemon distinguishes the two ports.
    let _daemon = shop.start(&manifests(&shop));
    connect(&shop, 80, 1);
    assert_eq!(counted(&shop, "web-a"), Some(1.0));
    assert_eq!(counted(&shop, "web-b"), Some(0.0));
}
