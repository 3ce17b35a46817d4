//! What session affinity must forget: clients of endpoints that are gone.

use std::collections::BTreeSet;

use super::{Contribution, Endpoint, PortContribution};
use crate::model::{Address, Protocol};
use crate::ruleset::{Element, Key, Value};

/// Clients of one Service port that must be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleAffinity<A> {
    /// The port's protocol.
    pub protocol: Protocol,
    /// The addresses and ports that they connected to.
    frontends: BTreeSet<(A, u16)>,
    /// The node port that they connected to.
    node_port: Option<u16>,
    /// The endpoints that they had; `None`: whichever.
    gone: Option<BTreeSet<Endpoint<A>>>,
}

impl<A: Address> StaleAffinity<A> {
    /// Whether a client that connected to `address` and `port` and got `endpoint` is meant. A node
    /// port counts on every address: the node may have had it, and may have it again.
    #[must_use]
    pub fn covers(&self, (address, port): (A, u16), endpoint: Endpoint<A>) -> bool {
        let at_node = self.node_port == Some(port);
        let frontend = at_node || self.frontends.contains(&(address, port));
        let gone = self.gone.as_ref();
        frontend && gone.is_none_or(|gone| gone.contains(&endpoint))
    }
}

/// What must be forgotten when a Service's contribution changes: of a port that goes, all; of one
/// that stays, the clients of endpoints that left a list of it. (With external policy Local a
/// client belongs to one list only, which is not known here: it forgets early, never late.)
#[must_use]
pub fn stale_affinity<A: Address>(
    before: &Contribution<A>,
    after: Option<&Contribution<A>>,
) -> Vec<StaleAffinity<A>> {
    let sticky = before
        .ports
        .iter()
        .filter(|port| port.shape.affinity.is_some());
    let stale = sticky.filter_map(|port| {
        let now = after.and_then(|after| after.port_like(port));
        let now = now.filter(|now| now.shape.affinity.is_some() && now.frontends_of(port));
        let gone = match now {
            None => None,
            Some(now) => {
                let (before, now) = (&port.lists, &now.lists);
                let cluster = before.cluster.gone_from(&now.cluster);
                let local = before.local.gone_from(&now.local);
                let gone: BTreeSet<_> = cluster.into_iter().chain(local).collect();
                if gone.is_empty() {
                    return None;
                }
                Some(gone)
            }
        };
        Some(StaleAffinity {
            protocol: port.shape.protocol,
            frontends: port
                .addresses()
                .map(|address| (address, port.shape.port))
                .collect(),
            node_port: port.shape.node_port,
            gone,
        })
    });
    stale.collect()
}

/// A client's memory that is right: protocol, frontend, endpoint.
pub type Remembered<A> = (Protocol, (A, u16), Endpoint<A>);

/// All that clients of a Service may remember, on a node with these addresses.
#[must_use]
pub fn remembered<A: Address>(
    contribution: &Contribution<A>,
    node_ips: &BTreeSet<A>,
) -> Vec<Remembered<A>> {
    let sticky = contribution
        .ports
        .iter()
        .filter(|port| port.shape.affinity.is_some());
    let mut all = Vec::new();
    for port in sticky {
        let shape = &port.shape;
        let frontends = port.addresses().map(|address| (address, shape.port));
        let nodeports = shape.node_port.into_iter();
        let nodeports = nodeports.flat_map(|number| node_ips.iter().map(move |ip| (*ip, number)));
        for frontend in frontends.chain(nodeports) {
            let endpoints = port.lists.cluster.endpoints();
            let endpoints = endpoints.chain(port.lists.local.endpoints());
            all.extend(endpoints.map(|endpoint| (shape.protocol, frontend, endpoint)));
        }
    }
    all
}

/// What clients may remember of a slot that stays in the table, on a node with these addresses.
#[must_use]
pub fn remembered_of_slot<A: Address>(
    slot: &Element<A>,
    node_ips: &BTreeSet<A>,
) -> Vec<Remembered<A>> {
    let Value::Endpoint(address, port) = slot.value else {
        return Vec::new();
    };
    let of = |protocol, frontend| (protocol, frontend, (address, port));
    if let Key::Slot(protocol, address, port, _) = slot.key {
        vec![of(protocol, (address, port))]
    } else if let Key::NodeportSlot(protocol, port, _) = slot.key {
        let node_ips = node_ips.iter();
        node_ips.map(|ip| of(protocol, (*ip, port))).collect()
    } else {
        Vec::new()
    }
}

impl<A: Address> PortContribution<A> {
    fn addresses(&self) -> impl Iterator<Item = A> {
        let internal = self.shape.cluster_ips.iter();
        let external = self
            .shape
            .external_ips
            .iter()
            .chain(&self.shape.load_balancer_ips);
        internal.chain(external).copied()
    }

    /// Whether it still has all that `before` had: a frontend that goes takes its clients along.
    fn frontends_of(&self, before: &Self) -> bool {
        let now: BTreeSet<_> = self.addresses().collect();
        let (shape, had) = (&self.shape, &before.shape);
        let same_port = shape.port == had.port;
        let same_node_port = had.node_port.is_none() || shape.node_port == had.node_port;
        same_port && same_node_port && before.addresses().all(|address| now.contains(&address))
    }
}
