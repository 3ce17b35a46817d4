//! Which frontends were touched: from what was applied before and what is applied now. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::planner::desired::{Claim, EndpointAddr, PortElements, Route, ServiceElements};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Key, SetName, Table, Value};

/// The endpoints that a node port had: only a translation to one of them is the Service's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreviousEndpoints<A> {
    /// Nothing is known of what was applied before: any.
    Unknown,
    /// These.
    Endpoints(BTreeSet<EndpointAddr<A>>),
}

impl<A: Address> PreviousEndpoints<A> {
    fn none() -> Self {
        Self::Endpoints(BTreeSet::new())
    }

    /// Whether a translation to this endpoint may be the Service's.
    #[must_use]
    pub fn may_be(&self, endpoint: &EndpointAddr<A>) -> bool {
        match self {
            Self::Unknown => true,
            Self::Endpoints(endpoints) => endpoints.contains(endpoint),
        }
    }

    fn extend(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Unknown, _) => {}
            (Self::Endpoints(_), Self::Unknown) => *self = Self::Unknown,
            (Self::Endpoints(own), Self::Endpoints(other)) => own.extend(other),
        }
    }
}

/// Frontends that started, stopped, or lost an endpoint, and the addresses where that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyFrontends<A> {
    frontends: BTreeMap<Claim<A>, PreviousEndpoints<A>>,
    /// The addresses that serve or served node ports.
    node_ips: BTreeSet<A>,
}

impl<A> Default for DirtyFrontends<A> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            node_ips: BTreeSet::new(),
        }
    }
}

/// A port of a Service, and where the connections to one of its frontends go.
type PortRoute<'a, A> = (&'a PortElements<A>, Route);

impl<A: Address> DirtyFrontends<A> {
    /// Whether there is none, so that no entry can be stale.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }

    /// The frontends, and what the node ports among them had.
    pub fn frontends(&self) -> impl Iterator<Item = (&Claim<A>, &PreviousEndpoints<A>)> {
        self.frontends.iter()
    }

    /// Whether this address serves or served node ports.
    #[must_use]
    pub fn is_node_ip(&self, address: A) -> bool {
        self.node_ips.contains(&address)
    }

    /// Takes in what others touched.
    pub fn extend(&mut self, other: Self) {
        for (claim, had) in other.frontends {
            self.touch(claim, had);
        }
        self.node_ips.extend(other.node_ips);
    }

    /// Node ports count at these addresses, too.
    pub fn node_ports_at(&mut self, node_ips: impl IntoIterator<Item = A>) {
        self.node_ips.extend(node_ips);
    }

    /// Takes in what changed of a Service. Linear in the Service.
    pub fn service(
        &mut self,
        before: Option<&ServiceElements<A>>,
        after: Option<&ServiceElements<A>>,
    ) {
        let (had, has) = (applied(before), applied(after));
        for (claim, before) in &had {
            if has
                .get(claim)
                .is_none_or(|after| differs(*claim, *before, *after))
            {
                self.touch(*claim, PreviousEndpoints::before(*claim, *before));
            }
        }
        let new = has.keys().filter(|claim| !had.contains_key(claim));
        new.for_each(|claim| self.touch(*claim, PreviousEndpoints::none()));
    }

    /// Takes in all that Services have: their frontends are applied anew.
    pub fn whole(&mut self, service_elements: &ServiceElements<A>) {
        for (claim, port, route) in service_elements.frontends() {
            self.touch(claim, PreviousEndpoints::before(claim, (port, route)));
        }
    }

    /// Takes in the node ports of a Service: the addresses that serve them changed.
    pub fn node_ports(&mut self, service_elements: &ServiceElements<A>) {
        let frontends = service_elements.frontends();
        let node_ports = frontends.filter(|(claim, ..)| matches!(claim, Claim::Nodeport(..)));
        for (claim, port, route) in node_ports {
            self.touch(claim, PreviousEndpoints::before(claim, (port, route)));
        }
    }

    /// Takes in a table that an earlier process left: of Services that went while we were away
    /// nothing else is known.
    pub fn table(&mut self, table: &Table<A>) {
        for element in table.elements() {
            match (element.key, element.value) {
                (Key::Frontend(protocol, address, port), _) => {
                    self.touch(
                        Claim::Frontend(protocol, address, port),
                        PreviousEndpoints::none(),
                    );
                }
                (Key::Nodeport(protocol, port), _) => {
                    self.touch(Claim::Nodeport(protocol, port), PreviousEndpoints::none());
                }
                (Key::NodeportSlot(protocol, port, _), Value::Endpoint(address, number)) => {
                    let had = PreviousEndpoints::Endpoints([(address, number)].into());
                    self.touch(Claim::Nodeport(protocol, port), had);
                }
                (Key::Address(address), _) if element.set == SetName::NodeIps => {
                    self.node_ips.insert(address);
                }
                _ => {}
            }
        }
    }

    /// Nothing is known of what was applied before: another program's entries may be of any
    /// endpoint.
    pub fn forget_history(&mut self) {
        self.frontends
            .values_mut()
            .for_each(|had| *had = PreviousEndpoints::Unknown);
    }

    fn touch(&mut self, claim: Claim<A>, had: PreviousEndpoints<A>) {
        self.frontends
            .entry(claim)
            .or_insert_with(PreviousEndpoints::none)
            .extend(had);
    }
}

impl<A: Address> PreviousEndpoints<A> {
    /// What a frontend had. An address with a port is the Service's alone: nobody asks there.
    fn before(claim: Claim<A>, (port, route): PortRoute<'_, A>) -> Self {
        match claim {
            Claim::Frontend(..) => Self::none(),
            Claim::Nodeport(..) => Self::Endpoints(port.answering(route).endpoints().collect()),
        }
    }
}

fn applied<A: Address>(of: Option<&ServiceElements<A>>) -> BTreeMap<Claim<A>, PortRoute<'_, A>> {
    let frontends = of.into_iter().flat_map(ServiceElements::frontends);
    frontends
        .map(|(claim, port, route)| (claim, (port, route)))
        .collect()
}

/// Whether an entry that was right before may be wrong now. Another endpoint beside those that
/// there were makes none wrong.
fn differs<A: Address>(claim: Claim<A>, before: PortRoute<'_, A>, after: PortRoute<'_, A>) -> bool {
    let ((before, route), (after, route_after)) = (before, after);
    if route != route_after {
        return true;
    }
    if before == after {
        return false;
    }
    match claim.protocol() {
        Protocol::Udp => before.has_lost_flows(after),
        Protocol::Tcp | Protocol::Sctp => before.has_lost_connections(after, route),
    }
}
