//! Endpoints that a hash of the connection selects (`kube-dnat.io/balance`).

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::explain::{agrees, run};
use super::services::rows;
use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Daemon, Family, IpAddr, Protocol, everywhere};
use crate::lab::{Service, chi};

pub(super) fn tests() -> Vec<Trial> {
    use super::balance;
    crate::trials!(balance:
        nodes_with_different_pasts_send_a_flow_to_the_same_endpoint,
        few_flows_move_when_an_endpoint_goes,
        maglev_shares_evenly_and_source_keeps_a_client,
        a_changed_annotation_takes_effect_and_a_bad_one_has_none,
        explain_and_services_show_the_hash,
    )
}

const PODS: [&str; 4] = ["pod-1", "pod-2", "remote-1", "remote-2"];

/// Returns `shop/cart` on every frontend, with this balance.
fn balanced(balance: &str) -> Service {
    cart_on_every_frontend().annotation("balance", balance)
}

/// Returns the manifests of `shop/cart` with this balance and these Pods.
fn manifests(shop: &Shop, balance: &str, pods: &[&str]) -> String {
    let pods = pods.iter().map(|pod| shop.cluster.pod(pod));
    balanced(balance).yaml() + &cart_slices(pods).yaml()
}

/// Starts kube-dnat and gives it these endpoints, one version after the other.
fn start<'a>(shop: &'a Shop, balance: &str, versions: &[&[&str]]) -> Daemon<'a> {
    let [first, later @ ..] = versions else {
        panic!("no version")
    };
    let daemon = shop.start(&manifests(shop, balance, first));
    for version in later {
        daemon.apply("shop.yaml", &manifests(shop, balance, version));
    }
    daemon
}

/// Returns the servers that flows from the same source ports reach, at every frontend.
fn servers_of_flows(shop: &Shop) -> Vec<String> {
    let mut servers = Vec::new();
    for (family, protocol) in everywhere() {
        // Masquerade changes neither the hash nor, in a namespace of its own, the source port.
        let sources = [shop.cluster.pod("pod-3"), &shop.cluster.client];
        for (number, (_, to)) in (0..).zip(frontends(family)) {
            let source = sources[usize::from(number > 0)];
            for port in 0..12_u16 {
                let port = 3000 + number * 100 + port;
                let probe = source.probe(protocol, to).source(source.ip(family), port);
                let answer = probe.send().answer();
                servers.push(answer.server);
            }
        }
    }
    servers
}

fn nodes_with_different_pasts_send_a_flow_to_the_same_endpoint() {
    let pasts: [&[&[&str]]; 3] = [
        &[&PODS[..3]],
        &[&PODS[..1], &PODS, &PODS[..3]],
        &[&["remote-1", "pod-2"], &["remote-1", "pod-2", "pod-1"]],
    ];
    for balance in ["maglev", "source"] {
        let reached = pasts.map(|versions| {
            let shop = Shop::new();
            let _daemon = start(&shop, balance, versions);
            servers_of_flows(&shop)
        });
        assert_eq!(reached[0], reached[1], "{balance}");
        assert_eq!(reached[0], reached[2], "{balance}");
        let distinct: BTreeSet<_> = reached[0].iter().collect();
        assert!(balance == "source" || distinct.len() == 3, "{distinct:?}");
    }
}

fn few_flows_move_when_an_endpoint_goes() {
    let reached = [&PODS[..], &PODS[..3]].map(|pods| {
        let shop = Shop::new();
        let _daemon = start(&shop, "maglev", &[pods]);
        servers_of_flows(&shop)
    });
    let gone = "remote-2:8080";
    let pairs = || reached[0].iter().zip(&reached[1]);
    assert!(pairs().all(|(_, after)| after != gone));
    let of_gone = pairs().filter(|(before, _)| *before == gone).count();
    let moved = pairs().filter(|(before, after)| before != after).count();
    let all = reached[0].len();
    // The table of four endpoints has 251 slots: about two percent of the others' flows move.
    assert!(
        of_gone > 0 && moved <= of_gone + all / 10,
        "{moved} of {all}, {of_gone} had to"
    );
}

fn maglev_shares_evenly_and_source_keeps_a_client() {
    let shop = Shop::new();
    let pods = &PODS[..3];
    let daemon = start(&shop, "maglev", &[pods]);
    let expected = ["pod-1:8080", "pod-2:8080", "remote-1:8080"];
    let client = &shop.cluster.client;
    for (family, protocol) in everywhere() {
        for (_, to) in &frontends(family)[1..] {
            let probe = client.probe(protocol, *to);
            // Consecutive source ports are no random sample: the hash spreads them.
            let tally = probe.send_times(400);
            chi::assert_uniform(&tally, &expected, &probe.to_string());
        }
    }
    daemon.apply("shop.yaml", &manifests(&shop, "source", pods));
    for family in Family::ALL {
        let reached: BTreeSet<_> = (Protocol::ALL.into_iter())
            .flat_map(|protocol| frontends(family).map(|(_, to)| (protocol, to)))
            .filter(|(_, (to, _))| *to != family.cluster_ip(1))
            .flat_map(|(protocol, to)| {
                let tally = client.probe(protocol, to).send_times(20);
                assert!(tally.failures.is_empty(), "{:?}", tally.failures);
                tally.servers.into_keys()
            })
            .collect();
        // One table for the frontends, and one hash for the ports and protocols of a client.
        assert_eq!(reached.len(), 1, "{family:?}: {reached:?}");
    }
}

/// Returns the balance of every frontend of `shop/cart`, without duplicates.
fn shown(shop: &Shop) -> Vec<(Value, Value)> {
    let mut shown: Vec<_> = rows(shop, &["-n", "shop"])
        .values()
        .map(|row| (row["balance"].clone(), row["slots"].clone()))
        .collect();
    shown.dedup();
    shown
}

fn a_changed_annotation_takes_effect_and_a_bad_one_has_none() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    let daemon = shop.start(&(balanced("maglev").yaml() + &slices));
    assert_eq!(shown(&shop), [(json!("maglev"), json!(251))]);
    daemon.apply("shop.yaml", &(balanced("source").yaml() + &slices));
    assert_eq!(shown(&shop), [(json!("source"), json!(251))]);
    let name = "Service shop/cart";
    let bad = [
        ("rr", balanced("rr")),
        (
            "sessionAffinity",
            balanced("maglev").spec("sessionAffinity", json!("ClientIP")),
        ),
    ];
    for (reason, service) in bad {
        daemon.apply("shop.yaml", &(service.yaml() + &slices));
        assert_eq!(shown(&shop), [(Value::Null, Value::Null)]);
        let reported = daemon.diagnostics(name, "InvalidAnnotation");
        let of_reason = reported.iter().filter(|line| line.contains(reason));
        assert_eq!(of_reason.count(), 1, "{reported:?}");
        let names_it =
            |line: &String| line.contains("annotation kube-dnat.io/balance has no effect");
        assert!(reported.iter().all(names_it), "{reported:?}");
        for (family, protocol) in everywhere() {
            let probe = shop
                .cluster
                .client
                .probe(protocol, (family.lan(2), NODE_PORT));
            assert!(probe.send_times(3).failures.is_empty(), "{probe}");
        }
    }
}

fn explain_and_services_show_the_hash() {
    let shop = Shop::new();
    let local = balanced("source").spec("externalTrafficPolicy", json!("Local"));
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    let _daemon = shop.start(&(local.yaml() + &slices));
    let (code, out, error) = run(&shop, &["services", "-n", "shop"]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(out.matches("source (251 slots)").count(), 16, "{out}");
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family) {
            agrees(&shop, shop.cluster.pod("pod-3"), protocol, to);
            if to.0 != family.cluster_ip(1) {
                agrees(&shop, &shop.cluster.client, protocol, to);
            }
        }
        let (ip, port): (IpAddr, u16) = (family.cluster_ip(1), 80);
        let at = std::net::SocketAddr::new(ip, port);
        let (_, out, _) = run(&shop, &["explain", &format!("{at}/tcp")]);
        assert!(out.contains("by a hash of the source address"), "{out}");
        assert!(out.contains("50.2 %") && out.contains("49.8 %"), "{out}");
    }
}
