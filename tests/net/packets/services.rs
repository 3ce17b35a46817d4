//! `kube-dnat services`: its rows agree with the manifests and with the packets.

use std::collections::BTreeMap;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::commands::json;
use super::explain::{run, run_without_capabilities};
use super::shop::{Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Family, Protocol};
use crate::lab::{Service, Slices, nft, wait_for};

pub(super) fn tests() -> Vec<Trial> {
    use super::services;
    crate::trials!(services:
        services_lists_every_frontend_with_its_kind_and_endpoints,
        services_shows_policies_affinity_and_refusals,
        services_filters_by_namespace_name_and_endpoints,
        services_reads_elements_without_labels,
        services_reports_missing_tables_and_permissions,
    )
}

/// Returns the rows of an answer by address.
fn by_address(answer: &Value) -> BTreeMap<String, Value> {
    let rows = answer["frontends"].as_array().expect("frontends").iter();
    let address = |row: &Value| row["address"].as_str().expect("an address").to_owned();
    rows.map(|row| (address(row), row.clone())).collect()
}

/// Returns the rows that `services` prints with these arguments, by address.
#[track_caller]
pub(super) fn rows(shop: &Shop, arguments: &[&str]) -> BTreeMap<String, Value> {
    let (code, answer) = json(shop, &[&["services"], arguments].concat());
    assert_eq!(code, 0, "{answer}");
    by_address(&answer)
}

fn services_lists_every_frontend_with_its_kind_and_endpoints() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"]));
    let daemon = shop.start(&(cart_on_every_frontend().yaml() + &slices.yaml()));
    let probe = shop
        .cluster
        .client
        .probe(Protocol::Tcp, frontends(Family::V4)[2].1);
    assert!(probe.send_times(3).failures.is_empty());
    // The kernel has it all.
    daemon.terminate();
    let rows = rows(&shop, &["-n", "shop"]);
    assert_eq!(rows.len(), 16, "{rows:#?}");
    let kinds = ["ClusterIP", "NodePort", "ExternalIP", "LoadBalancer"];
    for family in Family::ALL {
        let [pod, remote] = shop.pods(["pod-1", "remote-1"]).map(|pod| pod.ip(family));
        for protocol in ["tcp", "udp"] {
            for ((_, (ip, port)), kind) in frontends(family).into_iter().zip(kinds) {
                let any = match family {
                    Family::V4 => "0.0.0.0".parse().unwrap(),
                    Family::V6 => "::".parse().unwrap(),
                };
                let shown = if kind == "NodePort" { any } else { ip };
                let address = std::net::SocketAddr::new(shown, port);
                let row = &rows[&format!("{protocol}://{address}")];
                assert_eq!(row["kind"], kind, "{row}");
                assert_eq!(row["service"], format!("shop/cart:http-{protocol}"));
                assert_eq!(row["policy"], "Cluster");
                assert_eq!(row["result"], "served");
                assert_eq!(row["affinitySeconds"], Value::Null);
                let counts = json!({ "ready": 2, "local": 1, "total": null });
                assert_eq!(row["endpointCounts"], counts, "{row}");
                let endpoint = |ip, local| {
                    let address = std::net::SocketAddr::new(ip, 8080).to_string();
                    json!({ "address": address, "local": local })
                };
                let mut expected = [endpoint(pod, true), endpoint(remote, false)];
                expected.sort_by_key(|endpoint| endpoint["address"].to_string());
                let mut endpoints = row["endpoints"].as_array().unwrap().clone();
                endpoints.sort_by_key(|endpoint| endpoint["address"].to_string());
                assert_eq!(endpoints, expected);
                let used = kind == "ExternalIP" && protocol == "tcp" && family == Family::V4;
                assert_eq!(row["connections"], if used { 3 } else { 0 }, "{row}");
            }
        }
    }
}

/// Returns a Service at a `ClusterIP` with this number and with one port.
fn service(name: &str, number: u8) -> Service {
    Service::new(&format!("shop/{name}"), number)
        .only(Family::V4)
        .port("http", Protocol::Tcp, 80)
}

/// Returns the slices of a Service with these ready endpoints.
fn slices<const N: usize>(shop: &Shop, name: &str, pods: [&str; N]) -> String {
    Slices::of(&format!("shop/{name}"))
        .port("http", Protocol::Tcp, 8080)
        .ready(shop.pods(pods))
        .yaml()
}

/// Writes Services with policies Local, affinity, source ranges and no endpoints.
fn special_manifests(shop: &Shop) -> String {
    [
        service("empty", 2).yaml(),
        service("here", 3)
            .spec("internalTrafficPolicy", "Local".into())
            .yaml(),
        slices(shop, "here", ["pod-1", "remote-1"]),
        service("elsewhere", 4)
            .spec("internalTrafficPolicy", "Local".into())
            .yaml(),
        slices(shop, "elsewhere", ["remote-1"]),
        service("outside", 5)
            .external_ip(5)
            .spec("externalTrafficPolicy", "Local".into())
            .yaml(),
        slices(shop, "outside", ["remote-1"]),
        service("sticky", 6)
            .spec("sessionAffinity", "ClientIP".into())
            .yaml(),
        slices(shop, "sticky", ["pod-1", "remote-1"]),
        service("ranged", 7)
            .load_balancer_ip(7)
            .spec("loadBalancerSourceRanges", json!(["192.168.0.0/16"]))
            .yaml(),
        slices(shop, "ranged", ["pod-1"]),
    ]
    .concat()
}

/// Returns the rows once the daemon answers in time, which it may not on a busy machine.
fn rows_with_totals(shop: &Shop) -> BTreeMap<String, Value> {
    wait_for("the total numbers", || {
        let rows = rows(shop, &[]);
        let mut totals = rows.values().map(|row| &row["endpointCounts"]["total"]);
        totals.all(|total| !total.is_null()).then_some(rows)
    })
}

fn services_shows_policies_affinity_and_refusals() {
    let shop = Shop::new();
    let _daemon = shop.start(&special_manifests(&shop));
    let rows = rows_with_totals(&shop);
    let at = |ip: std::net::IpAddr| &rows[&format!("tcp://{ip}:80")];
    let cluster_ip = |number| at(Family::V4.cluster_ip(number));
    let summary = |row: &Value| {
        let EndpointNumbers { ready, local } = numbers(row);
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        (text("policy"), text("result"), ready, local)
    };
    let expect = |policy: &str, result: &str, ready: u64, local: u64| {
        (policy.to_owned(), result.to_owned(), ready, local)
    };
    assert_eq!(summary(cluster_ip(2)), expect("Cluster", "rejected", 0, 0));
    assert_eq!(summary(cluster_ip(3)), expect("Local", "served", 1, 1));
    assert_eq!(summary(cluster_ip(4)), expect("Local", "dropped", 0, 0));
    // The daemon knows the endpoints that connections are not sent to.
    assert_eq!(cluster_ip(3)["endpointCounts"]["total"], 2);
    assert_eq!(cluster_ip(4)["endpointCounts"]["total"], 1);
    let outside = at(Family::V4.external_ip(5));
    assert_eq!(
        summary(outside),
        expect("Local", "droppedFromOutside", 1, 0)
    );
    assert_eq!(cluster_ip(6)["affinitySeconds"], 10800);
    let ranged = at(Family::V4.load_balancer_ip(7));
    assert_eq!(ranged["restricted"], true);
    assert_eq!(ranged["kind"], "LoadBalancer");
    assert_eq!(summary(ranged), expect("Cluster", "served", 1, 1));

    let (code, table, _) = run(&shop, &["services"]);
    assert_eq!(code, 0);
    let line = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name));
        let cells = line.unwrap_or_else(|| panic!("{table}")).split("   ");
        let cells: Vec<_> = cells
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        cells.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let empty = format!("tcp://{}:80", Family::V4.cluster_ip(2));
    let expected = [
        "shop/empty:http",
        "ClusterIP",
        &empty,
        "Cluster",
        "-",
        "0/0/0 (rejected)",
        "0",
    ];
    assert_eq!(line("shop/empty:http"), expected);
    assert_eq!(line("shop/sticky:http")[4], "10800s");
    let (code, wide, _) = run(&shop, &["services", "-o", "wide"]);
    assert_eq!(code, 0);
    let endpoint = format!("{}:8080*", shop.cluster.pod("pod-1").ip(Family::V4));
    assert!(wide.contains(&endpoint), "{wide}");
}

/// The numbers of endpoints in a row.
struct EndpointNumbers {
    ready: u64,
    local: u64,
}

fn numbers(row: &Value) -> EndpointNumbers {
    let number = |name: &str| row["endpointCounts"][name].as_u64().expect("a number");
    EndpointNumbers {
        ready: number("ready"),
        local: number("local"),
    }
}

fn services_filters_by_namespace_name_and_endpoints() {
    let shop = Shop::new();
    let other = Service::new("till/cart", 9)
        .only(Family::V4)
        .port("http", Protocol::Tcp, 81);
    let _daemon = shop.start(&(special_manifests(&shop) + &other.yaml()));
    let found = |arguments: &[&str]| {
        let rows = rows(&shop, arguments);
        let mut names: Vec<_> = rows
            .values()
            .map(|row| row["service"].to_string())
            .collect();
        names.sort();
        names.dedup();
        names.join(" ").replace('"', "")
    };
    assert_eq!(found(&["-n", "till"]), "till/cart:http");
    assert_eq!(found(&["--selector", "cart"]), "till/cart:http");
    assert_eq!(found(&["--selector", "till/cart:81"]), "till/cart:http");
    assert_eq!(found(&["--selector", "cart:80"]), "");
    assert_eq!(found(&["-n", "shop", "--selector", "cart"]), "");
    let without = "lab/mark:mark shop/elsewhere:http shop/empty:http till/cart:http";
    assert_eq!(found(&["--no-endpoints"]), without);
    let (code, yaml, _) = run(&shop, &["services", "-n", "till", "-o", "yaml"]);
    assert_eq!(code, 0);
    assert!(
        yaml.starts_with("frontends:\n- service: till/cart:http\n"),
        "{yaml}"
    );
    let (code, _, error) = run(&shop, &["services", "--selector", "a/b/c"]);
    assert_eq!(code, 1, "{error}");
}

fn services_reads_elements_without_labels() {
    let shop = Shop::new();
    shop.start(&special_manifests(&shop)).terminate();
    let node = &shop.cluster.node.namespace;
    let key = format!("tcp . {} . 80", Family::V4.cluster_ip(3));
    let services = "element ip kube-dnat services";
    nft::load(
        node,
        &format!(
            "delete {services} {{ {key} }}\n\
             add {services} {{ {key} comment \"shop/here:http\" : goto pick-1 }}\n"
        ),
    );
    let address = format!("tcp://{}:80", Family::V4.cluster_ip(3));
    let row = rows(&shop, &[])[&address].clone();
    assert_eq!(
        [&row["kind"], &row["policy"]],
        [&json!("ClusterIP"), &Value::Null]
    );
    // The daemon repairs the element.
    let _daemon = shop.start(&special_manifests(&shop));
    assert_eq!(rows(&shop, &[])[&address]["policy"], "Local");
}

fn services_reports_missing_tables_and_permissions() {
    let shop = Shop::new();
    let (code, out, error) = run(&shop, &["services"]);
    assert_eq!(code, 3);
    assert_eq!(out.lines().count(), 1, "{out}");
    assert_eq!(
        error,
        "warning: no table kube-dnat: kube-dnat has not programmed this node\n"
    );
    let output = run_without_capabilities(&shop, &["services"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(error.contains("CAP_NET_ADMIN"), "{error}");
}
