//! What one Service puts into the table of one family.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Claim, Claims, Endpoint, settle};
use crate::model::{Address, EndpointSlice, Protocol, Service, ServiceName, ServicePort};
use crate::ruleset::{Balance, Comment, Element, Key, SetName, Value, Verdict};

/// How many endpoints a frontend can have: slots from 65536 on are for another list.
const MAX_SLOTS: usize = 65536;

/// nft prints and parses comments of at most 128 bytes (`NFTNL_UDATA_COMMENT_MAXLEN`).
const MAX_COMMENT: usize = 128;

/// What a Service puts into the table: its ports, each with its frontends and endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contribution<A> {
    /// The ports, in the Service's order.
    pub ports: Vec<PortContribution<A>>,
}

/// One port of a Service in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortContribution<A> {
    comment: Comment,
    protocol: Protocol,
    port: u16,
    /// `ClusterIPs` that it has.
    cluster_ips: Vec<A>,
    /// External and load-balancer IPs that it has.
    external_ips: Vec<A>,
    node_port: Option<u16>,
    /// Its endpoints; the position is the slot.
    slots: Vec<Endpoint<A>>,
    /// The addresses of those endpoints that are on this node.
    local: BTreeSet<A>,
}

/// Why a part of a valid Service is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// An older Service has what it claims.
    #[error("{frontend} is taken by the older Service {holder}")]
    Contested {
        /// The frontend, as an operator writes it.
        frontend: String,
        /// Who has it.
        holder: ServiceName,
    },
    /// It has more endpoints than there are slots.
    #[error("only {MAX_SLOTS} of its {count} endpoints are used")]
    TooManyEndpoints {
        /// How many it has.
        count: usize,
    },
}

/// What `service` puts into the table, given the slices that count for it and who has which
/// frontend; and what of it is not served. Endpoints have no slots yet: see
/// [`Contribution::settle`]. Linear in the Service.
#[must_use]
pub fn contribution<A: Address>(
    service: &Service,
    slices: &[&EndpointSlice],
    claims: &Claims<A>,
) -> (Contribution<A>, Vec<NotServed>) {
    let mut not_served = Vec::new();
    let mut ports = Vec::with_capacity(service.ports.len());
    for port in &service.ports {
        let mut won = |claim: Claim<A>| match claims.holder(&claim) {
            Some(holder) if *holder == service.name => true,
            Some(holder) => {
                not_served.push(NotServed::Contested {
                    frontend: claim.to_string(),
                    holder: holder.clone(),
                });
                false
            }
            // Not of this family.
            None => false,
        };
        let mut seen = BTreeSet::new();
        let mut addresses = |ips: &[std::net::IpAddr]| -> Vec<A> {
            let of_family = ips.iter().filter_map(|ip| A::of(*ip));
            of_family
                .filter(|address| seen.insert(*address))
                .filter(|address| won(Claim::Frontend(port.protocol, *address, port.port)))
                .collect()
        };
        let cluster_ips = addresses(&service.cluster_ips);
        let mut external_ips = addresses(&service.external_ips);
        external_ips.extend(addresses(&service.load_balancer_ips));
        let node_port = port
            .node_port
            .filter(|node_port| won(Claim::Nodeport(port.protocol, *node_port)));
        if cluster_ips.is_empty() && external_ips.is_empty() && node_port.is_none() {
            continue;
        }
        let (endpoints, local) = endpoints(port, slices);
        if endpoints.len() > MAX_SLOTS {
            let count = endpoints.len();
            not_served.push(NotServed::TooManyEndpoints { count });
        }
        ports.push(PortContribution {
            comment: comment(&service.name, &port.name),
            protocol: port.protocol,
            port: port.port,
            cluster_ips,
            external_ips,
            node_port,
            slots: endpoints.into_iter().take(MAX_SLOTS).collect(),
            local,
        });
    }
    (Contribution { ports }, not_served)
}

/// `namespace/name:port-name`, cut to what nft can print.
fn comment(service: &ServiceName, port: &str) -> Comment {
    let mut comment = service.to_string();
    if !port.is_empty() {
        comment.push(':');
        comment.push_str(port);
    }
    // Kubernetes' names are ASCII; nothing else may cut a character in two.
    let end = (0..=MAX_COMMENT.min(comment.len()))
        .rev()
        .find(|end| comment.is_char_boundary(*end));
    comment.truncate(end.unwrap_or(0));
    // nft has no escape for a quote in a comment.
    comment.replace('"', "'").into()
}

/// The ready endpoints of a port, and the addresses of those on this node.
fn endpoints<A: Address>(
    port: &ServicePort,
    slices: &[&EndpointSlice],
) -> (BTreeSet<Endpoint<A>>, BTreeSet<A>) {
    let mut endpoints = BTreeSet::new();
    let mut local = BTreeSet::new();
    for slice in slices {
        let Some(addresses) = A::endpoints(&slice.addresses) else {
            continue;
        };
        let answers = slice
            .ports
            .iter()
            .filter(|answer| answer.name == port.name && answer.protocol == port.protocol);
        for answer in answers {
            for endpoint in addresses.iter().filter(|endpoint| endpoint.ready) {
                endpoints.insert((endpoint.address, answer.port));
                if endpoint.local {
                    local.insert(endpoint.address);
                }
            }
        }
    }
    (endpoints, local)
}

impl<A: Address> Contribution<A> {
    /// Gives the endpoints of each port their slots, changing as few as can be of those that
    /// `before` says the port had.
    pub fn settle(&mut self, before: impl Fn(&PortContribution<A>) -> Vec<Endpoint<A>>) {
        for port in &mut self.ports {
            let wanted = port.slots.iter().copied().collect();
            port.slots = settle(&before(port), &wanted);
        }
    }

    /// The slots of the port that is called as `port` and has its protocol.
    #[must_use]
    pub fn slots_of(&self, port: &PortContribution<A>) -> &[Endpoint<A>] {
        self.ports
            .iter()
            .find(|own| own.comment == port.comment && own.protocol == port.protocol)
            .map_or(&[], |own| &own.slots)
    }

    /// The elements, in the order of sets and keys, each key of a set once.
    #[must_use]
    pub fn elements(&self) -> Vec<Element<A>> {
        let mut elements = Vec::new();
        for port in &self.ports {
            port.push_elements(&mut elements);
        }
        elements.sort_unstable();
        elements.dedup();
        elements
    }
}

impl<A: Address> PortContribution<A> {
    /// The key of slot `slot` in the map of endpoints, of the frontend (or node port) that stands
    /// for them all.
    #[must_use]
    pub fn slot_key(&self, slot: u32) -> Option<(SetName, Key<A>)> {
        let frontend = self.frontends().next().map(|address| {
            let key = Key::Slot(self.protocol, address, self.port, slot);
            (SetName::Endpoints, key)
        });
        let nodeport = || {
            let key = Key::NodeportSlot(self.protocol, self.node_port?, slot);
            Some((SetName::NodeportEndpoints, key))
        };
        frontend.or_else(nodeport)
    }

    fn frontends(&self) -> impl Iterator<Item = A> {
        self.cluster_ips.iter().chain(&self.external_ips).copied()
    }

    fn slots(&self) -> impl Iterator<Item = (u32, Value<A>)> {
        let numbered = (0_u32..).zip(&self.slots);
        numbered.map(|(slot, (address, port))| (slot, Value::Endpoint(*address, *port)))
    }

    /// The number of endpoints; [`MAX_SLOTS`] at most.
    fn count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    fn push_elements(&self, elements: &mut Vec<Element<A>>) {
        let commented = |set, key, value| Element {
            set,
            key,
            value,
            comment: Some(Arc::clone(&self.comment)),
        };
        let plain = |set, key| Element {
            set,
            key,
            value: Value::Nothing,
            comment: None,
        };
        let (protocol, refuse) = (self.protocol, Value::Verdict(Verdict::Refuse));
        for address in &self.cluster_ips {
            elements.push(plain(SetName::ClusterIps, Key::Address(*address)));
        }
        for address in self.frontends() {
            let key = Key::Frontend(protocol, address, self.port);
            if self.slots.is_empty() {
                elements.push(commented(SetName::NoEndpoints, key, refuse));
                continue;
            }
            let pick = Value::Verdict(Verdict::Balance(Balance::Pick(self.count())));
            elements.push(commented(SetName::Services, key, pick));
            elements.extend(self.slots().map(|(slot, endpoint)| {
                let key = Key::Slot(protocol, address, self.port, slot);
                commented(SetName::Endpoints, key, endpoint)
            }));
        }
        if self.slots.is_empty() {
            let key = self.node_port.map(|port| Key::Nodeport(protocol, port));
            elements.extend(key.map(|key| commented(SetName::NoEndpointsNodeports, key, refuse)));
            return;
        }
        let set = SetName::Masquerade(protocol);
        for address in &self.external_ips {
            let key = Key::AddressPort(*address, self.port);
            elements.push(commented(set, key, Value::Nothing));
        }
        if let Some(node_port) = self.node_port {
            let pick = Value::Verdict(Verdict::Balance(Balance::Nodeport(self.count())));
            let key = Key::Nodeport(protocol, node_port);
            elements.push(commented(SetName::Nodeports, key, pick));
            elements.extend(self.slots().map(|(slot, endpoint)| {
                let key = Key::NodeportSlot(protocol, node_port, slot);
                commented(SetName::NodeportEndpoints, key, endpoint)
            }));
            let set = SetName::MasqueradeNodeport(protocol);
            elements.push(commented(set, Key::Port(node_port), Value::Nothing));
        }
        let local = self.local.iter();
        elements.extend(local.map(|ip| plain(SetName::Hairpin, Key::Pair(*ip, *ip))));
    }
}
