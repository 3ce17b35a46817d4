//! Node ports at 127.0.0.1 and `::1`: `--localhost-node-ports`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use libtest_mimic::Trial;
use serde_json::json;

use super::explain::run;
use super::node_port_addresses::loopback;
use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::{Cluster, Daemon, Family, Probe, Protocol, everywhere, names};
use crate::lab::{Flow, Outcome, Slices, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::localhost;
    crate::trials!(localhost:
        localhost_serves_node_ports_from_the_address_of_the_node,
        the_word_localhost_serves_them_too,
        policy_local_allows_local_endpoints_only,
        localhost_follows_the_service,
        explain_names_the_relay,
        a_service_of_one_family_has_no_listener_of_the_other,
        session_affinity_pins_all_clients_of_localhost,
        connections_survive_changes_and_udp_flows_leave_endpoints_that_are_gone,
    )
}

/// Starts the daemon with the relay.
pub(super) fn start<'a>(shop: &'a Shop, manifests: &str) -> Daemon<'a> {
    shop.manifests.write("shop.yaml", manifests);
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--cluster-cidr", &cidrs, "--localhost-node-ports"];
    Daemon::start_with(&shop.cluster, &shop.manifests, &flags)
}

/// A probe of a node port at localhost.
pub(super) fn probe(shop: &Shop, family: Family, protocol: Protocol, port: u16) -> Probe<'_> {
    let node = &shop.cluster.node;
    node.probe(protocol, (loopback(family), port))
}

/// Waits until exactly these servers answer at localhost.
fn await_servers<const N: usize>(shop: &Shop, servers: [&str; N]) {
    for (family, protocol) in everywhere() {
        let probe = probe(shop, family, protocol, NODE_PORT);
        let expected = names(servers);
        wait_until(&format!("{probe} has {expected:?}"), || {
            let tally = probe.send_times(50);
            let answered: BTreeSet<_> = tally.servers.into_keys().collect();
            tally.failures.is_empty() && answered == expected
        });
    }
}

/// Waits until localhost rejects the node port at once.
fn await_refused(shop: &Shop) {
    for (family, protocol) in everywhere() {
        let probe = probe(shop, family, protocol, NODE_PORT);
        wait_until(&format!("{probe} is refused"), || {
            probe.send().is_refused_at_once()
        });
    }
}

fn localhost_serves_node_ports_from_the_address_of_the_node() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    let _daemon = start(&shop, &(cart().node_port(NODE_PORT).yaml() + &slices));
    await_servers(&shop, ["pod-1:8080", "remote-1:8080"]);
    for (family, protocol) in everywhere() {
        let answer = probe(&shop, family, protocol, NODE_PORT).send().answer();
        assert!(Cluster::is_node(answer.seen_from.ip()), "{answer:?}");
        let unserved = probe(&shop, family, protocol, NODE_PORT + 1).send();
        assert!(unserved.is_refused_at_once(), "{unserved:?}");
        // Other hosts reach the node port as before.
        let outside = &shop.cluster.client;
        let probe = outside.probe(protocol, (family.lan(2), NODE_PORT));
        assert_eq!(
            super::servers(&probe),
            names(["pod-1:8080", "remote-1:8080"])
        );
    }
}

fn the_word_localhost_serves_them_too() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let manifests = cart().node_port(NODE_PORT).yaml() + &slices;
    shop.manifests.write("shop.yaml", &manifests);
    for (addresses, serves_node) in [("primary,localhost", true), ("localhost", false)] {
        let flags = ["--nodeport-addresses", addresses];
        let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
        await_servers(&shop, ["pod-1:8080"]);
        for (family, protocol) in everywhere() {
            let at_node = (family.lan(2), NODE_PORT);
            let outcome = shop.cluster.client.probe(protocol, at_node).send();
            let served = outcome.server() == Some("pod-1:8080");
            assert_eq!(served, serves_node, "{addresses} {family}: {outcome:?}");
        }
    }
}

fn policy_local_allows_local_endpoints_only() {
    let shop = Shop::new();
    let local = cart().node_port(NODE_PORT);
    let local = local.spec("externalTrafficPolicy", json!("Local")).yaml();
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    let daemon = start(&shop, &(local.clone() + &slices));
    await_servers(&shop, ["pod-1:8080"]);
    let elsewhere = cart_slices(shop.pods(["remote-1"])).yaml();
    daemon.apply("shop.yaml", &(local + &elsewhere));
    await_refused(&shop);
}

fn localhost_follows_the_service() {
    let shop = Shop::new();
    let service = cart().node_port(NODE_PORT).yaml();
    let with = |slices: Slices| service.clone() + &slices.yaml();
    let daemon = start(&shop, &with(cart_slices([])));
    await_refused(&shop);
    daemon.apply("shop.yaml", &with(cart_slices(shop.pods(["pod-1"]))));
    await_servers(&shop, ["pod-1:8080"]);
    let two = cart_slices(shop.pods(["pod-2", "remote-1"]));
    daemon.apply("shop.yaml", &with(two.clone()));
    await_servers(&shop, ["pod-2:8080", "remote-1:8080"]);
    // Another number, then none.
    let moved = cart().node_port(NODE_PORT + 1).yaml() + &two.yaml();
    daemon.apply("shop.yaml", &moved);
    await_refused(&shop);
    for (family, protocol) in everywhere() {
        let probe = probe(&shop, family, protocol, NODE_PORT + 1);
        wait_until("the new node port is served", || {
            probe.send().server().is_some()
        });
    }
    daemon.apply("shop.yaml", &with(two.clone()));
    await_servers(&shop, ["pod-2:8080", "remote-1:8080"]);
    daemon.apply("shop.yaml", &(cart().yaml() + &two.yaml()));
    await_refused(&shop);
    daemon.apply("shop.yaml", &with(two));
    await_servers(&shop, ["pod-2:8080", "remote-1:8080"]);
    daemon.remove("shop.yaml");
    await_refused(&shop);
}

fn explain_names_the_relay() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let _daemon = start(&shop, &(cart().node_port(NODE_PORT).yaml() + &slices));
    for to in ["127.0.0.1:30080", "[::1]:30080/udp"] {
        let (code, out, error) = run(&shop, &["explain", to]);
        assert_eq!(code, 0, "{out}{error}");
        assert!(out.contains("shop/cart:http-"), "{out}");
        assert!(out.contains("relays node port 30080"), "{out}");
    }
    // No Service has this port.
    let (code, out, _) = run(&shop, &["explain", "127.0.0.1:30081"]);
    assert_eq!(code, 3, "{out}");
}

fn a_service_of_one_family_has_no_listener_of_the_other() {
    let shop = Shop::new();
    let v4: IpAddr = Family::V4.cluster_ip(1);
    let single = cart().node_port(NODE_PORT).spec("clusterIPs", json!([v4]));
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let _daemon = start(&shop, &(single.yaml() + &slices));
    for protocol in Protocol::ALL {
        let served = probe(&shop, Family::V4, protocol, NODE_PORT);
        wait_until("IPv4 is served", || served.send().server().is_some());
        let other = probe(&shop, Family::V6, protocol, NODE_PORT).send();
        assert!(other.is_refused_at_once(), "{other:?}");
    }
}

fn session_affinity_pins_all_clients_of_localhost() {
    let shop = Shop::new();
    let all = cart_slices(shop.pods(["pod-1", "pod-2", "remote-1"])).yaml();
    let sticky = cart().node_port(NODE_PORT);
    let sticky = sticky.spec("sessionAffinity", json!("ClientIP"));
    let _daemon = start(&shop, &(sticky.yaml() + &all));
    for (family, protocol) in everywhere() {
        let probe = probe(&shop, family, protocol, NODE_PORT);
        wait_until("localhost answers", || probe.send().server().is_some());
        assert_eq!(super::servers(&probe).len(), 1, "{probe}");
    }
}

fn connections_survive_changes_and_udp_flows_leave_endpoints_that_are_gone() {
    let shop = Shop::new();
    let service = cart().node_port(NODE_PORT).yaml();
    let with = |pod| service.clone() + &cart_slices(shop.pods([pod])).yaml();
    let daemon = start(&shop, &with("pod-1"));
    await_servers(&shop, ["pod-1:8080"]);
    let open = |protocol| {
        Family::ALL.map(|family| {
            let mut flow = Flow::open(&probe(&shop, family, protocol, NODE_PORT)).expect("open");
            assert_eq!(flow.greeting().server(), Some("pod-1:8080"));
            flow
        })
    };
    let (mut streams, mut datagrams) = (open(Protocol::Tcp), open(Protocol::Udp));
    let kept = |flows: &mut [Flow; 2]| {
        for flow in flows {
            assert_eq!(flow.ask().server(), Some("pod-1:8080"));
        }
    };
    // Another property of the Service changes.
    let policy = cart().node_port(NODE_PORT).external_ip(1);
    let policy = policy.spec("externalTrafficPolicy", json!("Local")).yaml();
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    daemon.apply("shop.yaml", &(policy + &slices));
    kept(&mut streams);
    kept(&mut datagrams);
    // The endpoint leaves the Service and still answers.
    daemon.apply("shop.yaml", &with("pod-2"));
    await_servers(&shop, ["pod-2:8080"]);
    kept(&mut streams);
    for flow in &mut datagrams {
        let outcome = flow.ask();
        assert_eq!(outcome.server(), Some("pod-2:8080"), "{outcome:?}");
    }
    // The node port goes away: established connections stay, as in the kernel.
    daemon.apply("shop.yaml", &cart().yaml());
    await_refused(&shop);
    kept(&mut streams);
    for flow in &mut datagrams {
        assert!(!matches!(flow.ask(), Outcome::Answered(_)));
    }
}
