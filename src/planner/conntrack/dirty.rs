//! The frontends that changes affect, from the applied state before and after.

use std::collections::{BTreeMap, BTreeSet};

use crate::planner::desired::{Claim, EndpointAddr, PortElements, Route, ServiceElements};
use crate::planner::model::{Address, PortRange, Protocol};
use crate::planner::ruleset::{Element, Key, SetName, Value};

/// The endpoints that a node port or port ranges had: other translations are not by kube-dnat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreviousEndpoints<A> {
    /// The state before the change is unknown: any endpoint.
    Unknown,
    /// These endpoints.
    Endpoints(BTreeSet<EndpointAddr<A>>),
}

impl<A: Address> PreviousEndpoints<A> {
    /// Returns no endpoints.
    fn none() -> Self {
        Self::Endpoints(BTreeSet::new())
    }

    /// Returns whether kube-dnat may have translated a connection to this endpoint.
    #[must_use]
    pub fn may_include(&self, endpoint: &EndpointAddr<A>) -> bool {
        match self {
            Self::Unknown => true,
            Self::Endpoints(endpoints) => endpoints.contains(endpoint),
        }
    }

    /// Adds the endpoints of another change.
    fn extend(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Unknown, _) => {}
            (Self::Endpoints(_), Self::Unknown) => *self = Self::Unknown,
            (Self::Endpoints(own), Self::Endpoints(other)) => own.extend(other),
        }
    }
}

/// The frontends that were added, were removed or lost an endpoint.
///
/// Their conntrack entries may be stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyFrontends<A> {
    /// The frontends, each with the endpoints that it had.
    frontends: BTreeMap<Claim<A>, PreviousEndpoints<A>>,
    /// Those that lost an endpoint whose established connections are closed, or may have lost one.
    closing: BTreeSet<Claim<A>>,
    /// The port ranges that addresses had.
    ranges: BTreeMap<Claim<A>, BTreeSet<PortRange>>,
    /// The addresses that serve or served node ports.
    node_ips: BTreeSet<A>,
}

impl<A> Default for DirtyFrontends<A> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            closing: BTreeSet::new(),
            ranges: BTreeMap::new(),
            node_ips: BTreeSet::new(),
        }
    }
}

/// A Service port, and the route of connections to one of its frontends.
type PortRoute<'a, A> = (&'a PortElements<A>, Route);

impl<A: Address> DirtyFrontends<A> {
    /// Returns whether there is no frontend, so that no entry can be stale.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty()
    }

    /// Returns the frontends, each with the endpoints that it had.
    pub fn frontends(&self) -> impl Iterator<Item = (&Claim<A>, &PreviousEndpoints<A>)> {
        self.frontends.iter()
    }

    /// Returns whether a frontend may have lost an endpoint whose established connections are closed.
    #[must_use]
    pub fn is_closing(&self, claim: &Claim<A>) -> bool {
        self.closing.contains(claim)
    }

    /// Records that established connections to all lost endpoints are closed. No packet opens another
    /// one.
    pub fn connections_closed(&mut self) {
        self.closing.clear();
    }

    /// Returns whether an address serves or served node ports.
    #[must_use]
    pub fn is_node_ip(&self, address: A) -> bool {
        self.node_ips.contains(&address)
    }

    /// Returns whether the port ranges that an address had include a port.
    pub(super) fn had_range(&self, claim: &Claim<A>, port: u16) -> bool {
        let ranges = self.ranges.get(claim);
        ranges.is_some_and(|ranges| ranges.iter().any(|range| range.contains(port)))
    }

    /// Adds the frontends of another change.
    pub fn extend(&mut self, other: Self) {
        for (claim, ranges) in other.ranges {
            self.ranges.entry(claim).or_default().extend(ranges);
        }
        for (claim, previous) in other.frontends {
            self.mark(claim, previous);
        }
        self.closing.extend(other.closing);
        self.node_ips.extend(other.node_ips);
    }

    /// Adds addresses that serve or served node ports.
    pub fn add_node_ips(&mut self, node_ips: impl IntoIterator<Item = A>) {
        self.node_ips.extend(node_ips);
    }

    /// Adds the frontends that a change of a Service affects, in time linear in the Service.
    pub fn add_change(
        &mut self,
        before: Option<&ServiceElements<A>>,
        after: Option<&ServiceElements<A>>,
    ) {
        let (old, new) = (routes(before), routes(after));
        for (claim, before) in &old {
            let after = new.get(claim);
            let closes = after.is_some_and(|(after, _)| before.0.has_lost_closed(after));
            if closes {
                self.closing.insert(*claim);
            }
            if closes || after.is_none_or(|after| may_be_stale(*claim, *before, *after)) {
                self.mark_before(*claim, *before);
            }
        }
        let added = new.keys().filter(|claim| !old.contains_key(claim));
        added.for_each(|claim| self.mark(*claim, PreviousEndpoints::none()));
    }

    /// Adds all frontends of a Service, whose state before is unknown.
    pub fn add_service(&mut self, service_elements: &ServiceElements<A>) {
        for (claim, port, route) in service_elements.frontends() {
            self.mark_before(claim, (port, route));
            self.closing.insert(claim);
        }
    }

    /// Adds the node ports of a Service, after a change of the addresses that serve them.
    pub fn add_node_ports(&mut self, service_elements: &ServiceElements<A>) {
        let frontends = service_elements.frontends();
        let node_ports = frontends.filter(|(claim, ..)| matches!(claim, Claim::Nodeport(..)));
        for (claim, port, route) in node_ports {
            self.mark_before(claim, (port, route));
        }
    }

    /// Adds the frontends of elements that an earlier process left.
    ///
    /// Nothing else is known of Services that were deleted while no process was running.
    pub fn add_elements(&mut self, elements: impl IntoIterator<Item = Element<A>>) {
        for element in elements {
            match (element.key, element.value) {
                (Key::Frontend(protocol, address, port), _) => {
                    self.mark(
                        Claim::Frontend(protocol, address, port),
                        PreviousEndpoints::none(),
                    );
                }
                (Key::Nodeport(protocol, port), _) => {
                    self.mark(Claim::Nodeport(protocol, port), PreviousEndpoints::none());
                }
                (Key::NodeportSlot(protocol, port, _), Value::Endpoint(address, number)) => {
                    let previous = PreviousEndpoints::Endpoints([(address, number)].into());
                    self.mark(Claim::Nodeport(protocol, port), previous);
                }
                (Key::Ranges(protocol, address), _) => {
                    self.mark(Claim::Ranges(protocol, address), PreviousEndpoints::none());
                }
                (Key::PortRange(protocol, address, range), _) => {
                    let claim = Claim::Ranges(protocol, address);
                    self.ranges.entry(claim).or_default().insert(range);
                }
                (Key::RangeSlot(protocol, address, _), Value::Address(endpoint)) => {
                    let previous = PreviousEndpoints::Endpoints([(endpoint, 0)].into());
                    self.mark(Claim::Ranges(protocol, address), previous);
                }
                (Key::Address(address), _) if element.set == SetName::NodeIps => {
                    self.node_ips.insert(address);
                }
                _ => {}
            }
        }
    }

    /// Treats the endpoints of all frontends before the change as unknown.
    pub fn forget_previous_endpoints(&mut self) {
        self.frontends
            .values_mut()
            .for_each(|previous| *previous = PreviousEndpoints::Unknown);
    }

    /// Marks a frontend as affected, with what it had.
    fn mark_before(&mut self, claim: Claim<A>, before: PortRoute<'_, A>) {
        if let (Claim::Ranges(..), Some(ranges)) = (claim, before.0.port_ranges()) {
            self.ranges.entry(claim).or_default().extend(ranges);
        }
        self.mark(claim, PreviousEndpoints::before(claim, before));
    }

    /// Marks a frontend as affected, with the endpoints that it had.
    fn mark(&mut self, claim: Claim<A>, previous: PreviousEndpoints<A>) {
        self.frontends
            .entry(claim)
            .or_insert_with(PreviousEndpoints::none)
            .extend(previous);
    }
}

impl<A: Address> PreviousEndpoints<A> {
    /// Returns the endpoints of a frontend before a change.
    ///
    /// A frontend at an address needs none: no other program translates connections to it.
    fn before(claim: Claim<A>, (port, route): PortRoute<'_, A>) -> Self {
        match claim {
            Claim::Frontend(..) => Self::none(),
            Claim::Nodeport(..) | Claim::Ranges(..) => {
                Self::Endpoints(port.answering(route).endpoints().collect())
            }
        }
    }
}

/// Returns the frontends of a Service, each with its port and route.
fn routes<A: Address>(
    service: Option<&ServiceElements<A>>,
) -> BTreeMap<Claim<A>, PortRoute<'_, A>> {
    service
        .into_iter()
        .flat_map(ServiceElements::frontends)
        .map(|(claim, port, route)| (claim, (port, route)))
        .collect()
}

/// Returns whether a change may make entries of a frontend stale.
///
/// An additional endpoint does not.
fn may_be_stale<A: Address>(
    claim: Claim<A>,
    before: PortRoute<'_, A>,
    after: PortRoute<'_, A>,
) -> bool {
    let ((before, route), (after, route_after)) = (before, after);
    if route != route_after || before.port_ranges() != after.port_ranges() {
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
