//! `kube-dnat top`: the rate of new connections.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::Value;

use super::changes::under_load;
use super::commands::{json, manifests};
use super::explain::run;
use super::shop::{NODE_PORT, Shop};
use super::{Daemon, Family, Protocol};
use crate::lab::{Service, Slices};

pub(super) fn tests() -> Vec<Trial> {
    use super::top;
    crate::trials!(top:
        top_counts_connections_by_service_and_endpoint,
        top_without_counters_counts_conntrack_events,
        top_continues_while_the_tables_are_deleted,
        top_quits_with_a_key,
        top_shows_a_namespace_and_a_number_of_services,
    )
}

/// Returns the row of the cart's TCP port.
fn cart_row(answer: &Value) -> Option<&Value> {
    let rows = answer["services"].as_array()?;
    rows.iter()
        .find(|row| row["service"] == "shop/cart:http-tcp")
}

/// Runs `top --once` during connections to the ClusterIP and the node port.
fn top_under_load(shop: &Shop) -> (Value, usize) {
    let client = &shop.cluster.client;
    let probes = [
        client.probe(Protocol::Tcp, (Family::V4.cluster_ip(1), 80)),
        client.probe(Protocol::Tcp, (Family::V6.lan(2), NODE_PORT)),
    ];
    let mut answer = Value::Null;
    let tallies = under_load(&probes, || {
        let (code, told) = json(shop, &["top", "--once"]);
        assert_eq!(code, 0, "{told}");
        answer = told;
    });
    let made = tallies
        .iter()
        .flat_map(|tally| tally.servers.values())
        .sum();
    (answer, made)
}

fn top_counts_connections_by_service_and_endpoint() {
    let shop = Shop::new();
    let _daemon = shop.start(&manifests(&shop));
    let (answer, made) = top_under_load(&shop);
    let row = cart_row(&answer).expect("the cart");
    let seconds = answer["seconds"].as_f64().expect("seconds");
    let rate = row["connectionsPerSecond"].as_f64().expect("a rate");
    let made_at_most = u32::try_from(made).map(f64::from).expect("a number");
    assert!(
        rate > 0.0 && rate * seconds <= made_at_most,
        "{made}: {answer}"
    );
    let total = row["connections"].as_u64().expect("a number");
    assert!(
        total > 0 && total <= u64::try_from(made).expect("a number"),
        "{made}: {answer}"
    );
    let endpoints = row["endpoints"].as_array().expect("endpoints");
    let of_endpoints: f64 = endpoints
        .iter()
        .filter_map(|row| row["connectionsPerSecond"].as_f64())
        .sum();
    // Both count the same connections, except those that began during the reads.
    assert!((of_endpoints - rate).abs() < rate / 4.0 + 20.0, "{answer}");
    // Two Pods in two families.
    assert_eq!(endpoints.len(), 4, "{answer}");
    let idle = answer["services"].as_array().expect("rows").iter();
    let idle = idle.filter(|row| row["service"] == "shop/cart:http-udp");
    assert!(
        idle.clone().all(|row| row["connectionsPerSecond"] == 0.0),
        "{answer}"
    );
    assert_eq!(idle.count(), 1, "{answer}");
    let (_, out, _) = run(
        &shop,
        &["top", "--once", "--interval", "0.1", "--sort", "service"],
    );
    assert!(out.starts_with("SERVICE "), "{out}");
    assert!(out.contains("\nshop/cart:http-tcp "), "{out}");
}

fn top_without_counters_counts_conntrack_events() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--cluster-cidr", &cidrs, "--connection-counters=false"];
    let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    let (answer, _) = top_under_load(&shop);
    let row = cart_row(&answer).expect("the cart");
    assert!(
        row["connectionsPerSecond"]
            .as_f64()
            .is_some_and(|rate| rate > 0.0),
        "{answer}"
    );
    assert_eq!(
        row["endpoints"].as_array().map(Vec::len),
        Some(4),
        "{answer}"
    );
}

fn top_continues_while_the_tables_are_deleted() {
    let shop = Shop::new();
    shop.start(&manifests(&shop)).terminate();
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    let node = &shop.cluster.node.namespace;
    // top receives new connections once its socket is in this group (NFNLGRP_CONNTRACK_NEW).
    let hears = "until awk '$2 == 12 && $4 == \"00000001\" { begun = 1 } END { exit !begun }' /proc/net/netlink; do sleep 0.05; done";
    let command = format!(
        "{program} top --once --interval 2 & {hears}; {program} cleanup 2>&1; wait -n; echo left: $?"
    );
    let out = node.command("timeout", &["60", "bash", "-c", &command]);
    assert!(out.contains("left: 0"), "{out}");
    assert!(out.contains("table deleted"), "{out}");
}

fn top_quits_with_a_key() {
    let shop = Shop::new();
    let (code, _, error) = run(&shop, &["top", "--once"]);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("no table kube-dnat: "), "{error}");
    let _daemon = shop.start(&manifests(&shop));
    let (code, _, error) = run(&shop, &["top"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("not a terminal: use --once"), "{error}");
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    // A terminal of script(1).
    let inside = format!("stty rows 24 cols 80; {program} top --interval 0.2; echo left: $?");
    let mut terminal = Command::new("timeout");
    terminal
        .args(["20", "script", "-qec", &inside, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut terminal = shop.cluster.node.namespace.spawn(&mut terminal);
    let mut keys = terminal.stdin.take().expect("stdin is piped");
    let mut output = terminal.stdout.take().expect("stdout is piped");
    let mut screen = String::new();
    // The first table is empty. The second stays until a key is pressed.
    while !screen.contains("shop/cart:http-tcp") {
        let mut part = [0; 4096];
        let read = output.read(&mut part).expect("a screen");
        assert!(read > 0, "{screen:?}");
        screen += &String::from_utf8_lossy(&part[..read]);
    }
    keys.write_all(b"eq").expect("keys");
    output.read_to_string(&mut screen).expect("a screen");
    let ended = terminal.wait().expect("wait for a terminal");
    assert!(ended.success(), "{ended} {screen:?}");
    for shown in [
        "SERVICE",
        "NEW/S",
        "shop/cart:http-tcp",
        "q quit",
        "left: 0",
    ] {
        assert!(screen.contains(shown), "{shown}: {screen:?}");
    }
}

fn top_shows_a_namespace_and_a_number_of_services() {
    let shop = Shop::new();
    let other = Service::new("store/other", 9).port("http", Protocol::Tcp, 80);
    let slices = Slices::of("store/other").port("http", Protocol::Tcp, 8080);
    let slices = slices.ready(shop.pods(["pod-1"]));
    let _daemon = shop.start(&(manifests(&shop) + &other.yaml() + &slices.yaml()));
    let names = |arguments: &[&str]| {
        let (code, answer) = json(
            &shop,
            &[&["top", "--once", "--interval", "0.1"], arguments].concat(),
        );
        assert_eq!(code, 0, "{answer}");
        let rows = answer["services"].as_array().expect("rows").clone();
        let name = |row: &Value| row["service"].as_str().unwrap_or_default().to_owned();
        rows.iter().map(name).collect::<Vec<_>>()
    };
    let all = names(&["--sort", "service"]);
    assert!(all.len() > 2, "{all:?}");
    assert_eq!(names(&["-n", "store"]), ["store/other:http"]);
    assert_eq!(names(&["--sort", "service", "--limit", "2"]), all[..2]);
    assert_eq!(names(&["-n", "nowhere"]), [""; 0]);
}
