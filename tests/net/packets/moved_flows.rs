//! Flows that move to another node, because a router changes its ECMP hash or a node leaves
//! (`kube-dnat.io/balance`, `kube-dnat.io/port-ranges`).
//!
//! ```text
//!   pod-1 -- node-1 --+-- edge-1 --+-- node-2 -- remote-1, remote-2
//!                     +-- edge-2 --+
//! ```
//!
//! kube-dnat runs on both edges, not on node-1. Packets to `ClusterIPs` and the answers pass one of
//! the edges, and the routes decide which.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Child, Stdio};

use libtest_mimic::Trial;

use super::shop::{Shop, cart, cart_slices};
use super::{Family, Host, everywhere};
use crate::lab::{Flow, Service, nft, run_command, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::moved_flows;
    crate::trials!(moved_flows:
        with_a_hash_a_flow_that_moves_to_another_node_goes_on,
        a_flow_of_a_port_range_that_moves_to_another_node_goes_on,
        without_a_hash_some_flows_break,
    )
}

/// A node with kube-dnat that the network may route Services through.
struct Edge {
    host: Host,
    daemon: Child,
}

impl Edge {
    /// Starts kube-dnat, and waits until the cart is programmed.
    fn start(shop: &Shop, name: &str, number: u8) -> Self {
        let host = shop.cluster.add_router(name, number);
        let mut command = run_command(&shop.cluster);
        command
            .args(["--manifests", shop.manifests.path()])
            .stderr(Stdio::null());
        let daemon = host.namespace.spawn(&mut command);
        let edge = Self { host, daemon };
        wait_until("the cart is programmed", || {
            Family::ALL.into_iter().all(|family| {
                let address = family.cluster_ip(1).to_string();
                let (namespace, table) = (&edge.host.namespace, family.table());
                nft::has_element(namespace, table, "cluster-ips", &address)
            })
        });
        edge
    }

    /// Routes the Services, and the answers to node-1, through this edge.
    fn take_over(&self, shop: &Shop) {
        let through = |host: &Host, destination: &dyn Fn(Family) -> String| {
            let routes = Family::ALL.map(|family| {
                let edge = self.host.ip(family);
                format!("route replace {} via {edge}\n", destination(family))
            });
            host.namespace.ip(&routes.concat());
        };
        through(&shop.cluster.node, &|family| {
            family.service_cidr().to_owned()
        });
        through(&shop.cluster.other_node, &|family| family.pod_cidr(1));
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may have ended, which a failed test shows.
        let _ended = self.daemon.kill();
        let _status = self.daemon.wait();
    }
}

/// Opens flows of each kind to a port of the cart through one edge, and moves them to the other one;
/// returns the server of each flow before, and what the flow gets afterwards: the name of a server,
/// or nothing.
fn moved(service: &Service, port: u16) -> Vec<(String, Option<String>)> {
    const FLOWS: u16 = 12;
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["remote-1", "remote-2"])).yaml();
    shop.manifests
        .write("shop.yaml", &(service.yaml() + &slices));
    let [first, second] =
        [("edge-1", 21), ("edge-2", 22)].map(|(name, number)| Edge::start(&shop, name, number));
    first.take_over(&shop);
    let client = shop.cluster.pod("pod-1");
    let mut flows = Vec::new();
    for (family, protocol) in everywhere() {
        let source: IpAddr = client.ip(family);
        for flow in 0..FLOWS {
            let to = (family.cluster_ip(1), port);
            let probe = client.probe(protocol, to).source(source, 3000 + flow);
            let mut flow = Flow::open(&probe).expect("an open flow");
            let server = flow.greeting().answer().server;
            flows.push((flow, server));
        }
    }
    second.take_over(&shop);
    flows
        .into_iter()
        .map(|(mut flow, before)| {
            let after = flow.ask();
            (before, after.server().map(str::to_owned))
        })
        .collect()
}

fn with_a_hash_a_flow_that_moves_to_another_node_goes_on() {
    for balance in ["maglev", "source"] {
        let moved = moved(&cart().annotation("balance", balance), 80);
        for (before, after) in &moved {
            assert_eq!(after.as_ref(), Some(before), "{balance}: {moved:?}");
        }
        let servers: BTreeSet<_> = moved.iter().map(|(before, _)| before).collect();
        assert!(balance == "source" || servers.len() == 2, "{servers:?}");
    }
}

fn a_flow_of_a_port_range_that_moves_to_another_node_goes_on() {
    let ranges = "8000-8099/tcp,8000-8099/udp";
    let moved = moved(&cart().annotation("port-ranges", ranges), 8080);
    for (before, after) in &moved {
        assert_eq!(after.as_ref(), Some(before), "{moved:?}");
    }
    // Both nodes compute one endpoint for this client, for each family.
    let servers: BTreeSet<_> = moved.iter().map(|(before, _)| before).collect();
    assert!(servers.len() <= Family::ALL.len(), "{servers:?}");
}

/// The proof that the other tests move their flows to a node that knows nothing of them.
fn without_a_hash_some_flows_break() {
    let moved = moved(&cart(), 80);
    // Each flow goes on with a probability of one half.
    let goes_on = |(before, after): &&(String, Option<String>)| after.as_ref() == Some(before);
    let going_on = moved.iter().filter(goes_on).count();
    assert!(going_on < moved.len(), "{moved:?}");
}
