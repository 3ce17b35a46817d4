//! Which entries of connection tracking keep a UDP client from a live endpoint. Pure.
//!
//! A UDP flow lasts as long as its client sends: its entry would lead to an endpoint that is gone
//! for ever. So an entry goes whose original destination is a frontend and whose answers are to
//! come from none of the frontend's endpoints (kube-proxy: `pkg/proxy/conntrack/cleanup.go`). TCP
//! and SCTP end by themselves; their entries are never looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desired::{Claim, Claims, Endpoint};
use crate::model::{Address, Protocol, Service, ServiceName, ServicePort, Store};

/// A UDP entry of connection tracking: addresses and ports, in the order of its two tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<A> {
    /// Who sent the first packet.
    pub source: (A, u16),
    /// Where it was sent.
    pub destination: (A, u16),
    /// Who is to answer: the endpoint, or the destination itself if nothing translated it.
    pub answered_by: (A, u16),
    /// Where the answer is to go: the source, unless that was masqueraded.
    pub answered_to: (A, u16),
}

impl<A: Address> Entry<A> {
    /// Whether nothing translates the flow: without its entry it goes on as it was.
    fn is_untranslated(&self) -> bool {
        self.source == self.answered_to && self.destination == self.answered_by
    }
}

/// UDP frontends, and who answers each of them now; of an entry to any other nothing is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontends<A> {
    addresses: BTreeMap<(A, u16), Arc<BTreeSet<Endpoint<A>>>>,
    node_ports: BTreeMap<u16, Arc<BTreeSet<Endpoint<A>>>>,
    /// The addresses that serve node ports.
    node_ips: BTreeSet<A>,
}

impl<A: Address> Frontends<A> {
    /// The UDP frontends among `touched`, with the serving endpoints of the Service that has each
    /// now; one that no Service has is answered by nobody. Linear in those and in their endpoints.
    #[must_use]
    pub fn new(
        touched: &BTreeSet<Claim<A>>,
        store: &Store,
        claims: &Claims<A>,
        node_ips: BTreeSet<A>,
    ) -> Self {
        let mut frontends = Self {
            addresses: BTreeMap::new(),
            node_ports: BTreeMap::new(),
            node_ips,
        };
        let nobody = Arc::new(BTreeSet::new());
        let mut known: BTreeMap<(&ServiceName, &str), Arc<_>> = BTreeMap::new();
        for claim in touched {
            let holder = claims.holder(claim).and_then(|name| store.service(name));
            let port = holder.and_then(|service| Some((service, port_of(service, claim)?)));
            let endpoints = port.map_or(&nobody, |(service, port)| {
                let key = (&service.name, port.name.as_ref());
                let endpoints = || Arc::new(serving(service, port, store));
                known.entry(key).or_insert_with(endpoints)
            });
            let endpoints = Arc::clone(endpoints);
            match *claim {
                Claim::Frontend(Protocol::Udp, address, port) => {
                    frontends.addresses.insert((address, port), endpoints);
                }
                Claim::Nodeport(Protocol::Udp, port) => {
                    frontends.node_ports.insert(port, endpoints);
                }
                Claim::Frontend(..) | Claim::Nodeport(..) => {}
            }
        }
        frontends
    }

    /// Whether there is none, so that no entry can be stale.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node_ports.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len() + self.node_ports.len()
    }

    /// Who answers what is sent there; `None` if it is none of these frontends. A node port counts
    /// on the node's addresses only: elsewhere the number is someone else's.
    fn endpoints(&self, destination: (A, u16)) -> Option<&BTreeSet<Endpoint<A>>> {
        let node_port = || {
            let at_node = self.node_ips.contains(&destination.0);
            self.node_ports.get(&destination.1).filter(|_| at_node)
        };
        let endpoints = self.addresses.get(&destination).or_else(node_port)?;
        Some(endpoints)
    }
}

/// Whether an entry must go.
///
/// - The entry of a client of a wanted frontend that none of the frontend's endpoints is to answer:
///   the endpoint is gone, or the client sent before the Service had any, or before there was the
///   Service (then the frontend itself is to answer).
/// - The same the other way round: the frontend's own address sent first, untranslated. Such an
///   answer was on its way when the client's entry went; what the client sends is now taken for a
///   reply to it and never translated.
#[must_use]
pub fn stale<A: Address>(entry: &Entry<A>, wanted: &Frontends<A>) -> bool {
    match wanted.endpoints(entry.destination) {
        Some(endpoints) => !endpoints.contains(&entry.answered_by),
        None => entry.is_untranslated() && wanted.endpoints(entry.source).is_some(),
    }
}

/// The UDP frontends that a Service claims; whether it has them is for [`Claims`] to say.
#[must_use]
pub fn udp_claims<A: Address>(service: &Service) -> BTreeSet<Claim<A>> {
    if !service
        .ports
        .iter()
        .any(|port| port.protocol == Protocol::Udp)
    {
        return BTreeSet::new();
    }
    let mut claims = crate::desired::claims(service);
    claims.retain(is_udp);
    claims
}

fn is_udp<A>(claim: &Claim<A>) -> bool {
    match claim {
        Claim::Frontend(protocol, ..) | Claim::Nodeport(protocol, _) => *protocol == Protocol::Udp,
    }
}

/// The port of a Service that makes this claim.
fn port_of<'a, A>(service: &'a Service, claim: &Claim<A>) -> Option<&'a ServicePort> {
    service.ports.iter().find(|port| match *claim {
        Claim::Frontend(protocol, _, number) => port.protocol == protocol && port.port == number,
        Claim::Nodeport(protocol, number) => {
            port.protocol == protocol && port.node_port == Some(number)
        }
    })
}

/// The endpoints of a port that answer now, ready or not, terminating or not, on whatever node:
/// a flow that one of them still answers is not to be cut.
fn serving<A: Address>(
    service: &Service,
    port: &ServicePort,
    store: &Store,
) -> BTreeSet<Endpoint<A>> {
    let mut serving = BTreeSet::new();
    for slice in store.slices(service) {
        let Some(endpoints) = A::endpoints(&slice.addresses) else {
            continue;
        };
        let endpoints = endpoints
            .iter()
            .filter(|endpoint| endpoint.ready || endpoint.serving);
        let answers = slice
            .ports
            .iter()
            .filter(|answer| answer.name == port.name && answer.protocol == port.protocol);
        for answer in answers {
            let endpoints = endpoints.clone();
            serving.extend(endpoints.map(|endpoint| (endpoint.address, answer.port)));
        }
    }
    serving
}

#[cfg(test)]
mod tests;
