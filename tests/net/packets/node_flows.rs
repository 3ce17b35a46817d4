//! UDP flows at the node's own addresses: flows to node ports follow a change of the addresses, and
//! other flows stay.

use libtest_mimic::Trial;

use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::udp_stale::{EVERY, entries, open, refused, send_until};
use super::{Cluster, Daemon, Family, IpAddr, Protocol};
use crate::lab::{Flow, Outcome, manifest, nft};

pub(super) fn tests() -> Vec<Trial> {
    use super::node_flows;
    crate::trials!(node_flows:
        a_client_is_served_once_the_node_object_has_the_address,
        a_client_is_served_once_an_interface_has_the_address,
        flows_of_the_node_and_of_other_programs_stay,
    )
}

fn web(shop: &Shop, pod: &str) -> String {
    cart().node_port(NODE_PORT).yaml() + &cart_slices(shop.pods([pod])).yaml()
}

/// Returns an outside UDP client that sends to the node port of this address from one source port.
fn client(shop: &Shop, ip: IpAddr) -> Flow {
    let probe = shop.cluster.client.probe(Protocol::Udp, (ip, NODE_PORT));
    open(&probe.deadline(EVERY))
}

#[track_caller]
fn becomes(flow: &mut Flow, what: &str, expected: impl Fn(&Outcome) -> bool) {
    let sent = send_until(flow, expected);
    assert!(sent.is_ok(), "{what}: {sent:?}");
}

fn of_pod_1(outcome: &Outcome) -> bool {
    outcome.server() == Some("pod-1:8080")
}

fn a_client_is_served_once_the_node_object_has_the_address() {
    let shop = Shop::new();
    let daemon = shop.start(&web(&shop, "pod-1"));
    let mut flows = Family::ALL.map(|family| client(&shop, Cluster::secondary_ip(family)));
    for _ in 0..2 {
        for flow in &mut flows {
            becomes(flow, "the Node does not have the address", refused);
        }
        let has_it = manifest::node(&Family::ALL.map(Cluster::secondary_ip));
        daemon.manifests.write("node.yaml", &has_it);
        for flow in &mut flows {
            becomes(flow, "the Node has the address", of_pod_1);
        }
        let lost_it = manifest::node(&Family::ALL.map(|family| family.lan(2)));
        daemon.manifests.write("node.yaml", &lost_it);
    }
}

fn a_client_is_served_once_an_interface_has_the_address() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &web(&shop, "pod-1"));
    let flags = ["--nodeport-addresses", "0.0.0.0/0,::/0"];
    let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    for family in Family::ALL {
        let (address, node) = (family.lan(50), shop.cluster.node.ip(family));
        let namespace = &shop.cluster.client.namespace;
        namespace.ip(&format!("route add {address} via {node}\n"));
        let mut flow = client(&shop, address);
        // The client gets no answer, or an ICMP error of the node.
        let unserved = |outcome: &Outcome| outcome.server().is_none();
        becomes(&mut flow, "no machine has the address", unserved);
        let length = if address.is_ipv4() { 32 } else { 128 };
        let node = &shop.cluster.node.namespace;
        node.ip(&format!("addr add {address}/{length} dev lo\n"));
        becomes(&mut flow, "the machine has the address", of_pod_1);
    }
}

/// Adds rules of another program that translate the datagrams of one client to a Pod of its own.
fn translate_for_another_program(shop: &Shop) {
    for family in Family::ALL {
        let (ip, client) = (family.table()[0], Cluster::second_client_ip(family));
        let to = shop.cluster.pod("pod-3").ip(family);
        let to = std::net::SocketAddr::new(to, 8080);
        nft::load(
            &shop.cluster.node.namespace,
            &format!(
                "table {ip} foreign {{ chain c {{ type nat hook prerouting priority -110;\n\
                 {ip} saddr {client} udp dport {NODE_PORT} dnat to {to}\n }}\n }}"
            ),
        );
    }
}

fn flows_of_the_node_and_of_other_programs_stay() {
    let shop = Shop::new();
    let cluster = &shop.cluster;
    let daemon = shop.start(&web(&shop, "pod-1"));
    translate_for_another_program(&shop);
    let mut flows = Vec::new();
    for family in Family::ALL {
        // The node's own flow has a source port with the number of the node port.
        let of_node = cluster
            .node
            .probe(Protocol::Udp, (family.external_ip(9), 53));
        let of_node = of_node.source(family.lan(2), NODE_PORT);
        flows.push((open(&of_node), "gateway"));
        let translated = cluster
            .client
            .probe(Protocol::Udp, (family.lan(2), NODE_PORT))
            .source(Cluster::second_client_ip(family), 9_000);
        flows.push((open(&translated), "pod-3:8080"));
    }
    for (flow, server) in &mut flows {
        assert_eq!(flow.ask().server(), Some(*server));
    }
    let before = entries(&shop, Protocol::Udp);
    let mut clients = Family::ALL.map(|family| client(&shop, family.lan(2)));
    let change = |daemon: &Daemon<'_>, yaml: &str| {
        daemon.apply("shop.yaml", yaml);
        // The next commit follows the cleanup, so the cleanup is complete here.
        daemon.await_programmed();
    };
    let node = |ip: fn(Family) -> IpAddr| manifest::node(&Family::ALL.map(ip));
    for flow in &mut clients {
        becomes(flow, "a client of the Service", of_pod_1);
    }
    for yaml in [web(&shop, "pod-2"), String::new(), web(&shop, "pod-1")] {
        change(&daemon, &yaml);
        for flow in &mut clients {
            // The cleanup deletes the flows of the Service.
            becomes(flow, "a client of the Service", |outcome| {
                let served = outcome.server();
                served.map_or(yaml.is_empty(), |server| {
                    yaml == web(&shop, server.trim_end_matches(":8080"))
                })
            });
        }
    }
    daemon.apply("node.yaml", &node(Cluster::secondary_ip));
    daemon.apply("node.yaml", &node(|family| family.lan(2)));
    daemon.terminate();
    let daemon = shop.start(&web(&shop, "pod-2"));
    daemon.await_programmed();
    let after = entries(&shop, Protocol::Udp);
    assert!(before.is_subset(&after), "{before:#?}\n{after:#?}");
    for (flow, server) in &mut flows {
        assert_eq!(flow.ask().server(), Some(*server));
    }
}
