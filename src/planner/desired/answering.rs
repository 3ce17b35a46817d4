//! The endpoints that answer at a frontend, whose conntrack entries must stay.

use std::sync::Arc;

use super::frontend::FrontendKey;
use super::port::{PortElements, Route};
use super::{Claim, EndpointAddr, PortSlots, ServiceElements, Slots};
use crate::planner::model::{Address, PortRange, Protocol};

/// Endpoints that get no new connections, but answer their existing flows; both lists are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnusedEndpoints<A> {
    /// Ready endpoints that policy or topology excludes.
    pub(super) ready: Box<[EndpointAddr<A>]>,
    /// Endpoints that serve but are not ready, because they terminate.
    pub(super) draining: Box<[EndpointAddr<A>]>,
}

impl<A: Address> UnusedEndpoints<A> {
    /// Selects the endpoints that are in no list.
    pub(super) fn new(
        ready: Vec<EndpointAddr<A>>,
        draining: Vec<EndpointAddr<A>>,
        lists: &PortSlots<A>,
    ) -> Self {
        let listed = [&lists.cluster, &lists.local];
        let unused =
            |endpoint: &EndpointAddr<A>| !listed.iter().any(|list| list.contains(*endpoint));
        Self {
            ready: ready.into_iter().filter(unused).collect(),
            draining: draining.into_iter().filter(unused).collect(),
        }
    }
}

/// What the slices of a Service list that closes connections to removed endpoints; sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedEndpoints<A> {
    /// The endpoints of the port, in any state.
    pub(super) of_port: Box<[EndpointAddr<A>]>,
    /// The addresses in all slices, which the ports of the Service share. A port that gets another
    /// name or number removes none of them.
    pub(super) addresses: Arc<[A]>,
}

/// The endpoints that answer at a frontend; all lists are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweringEndpoints<A> {
    /// Endpoints that answer datagrams, whatever the policy: their flows are not cut.
    flows: Vec<EndpointAddr<A>>,
    /// Endpoints that may still answer a connection: the rules use them, or they terminate.
    connections: Vec<EndpointAddr<A>>,
    /// With external policy Local: endpoints of connections from Pods, which reach every endpoint.
    from_pods: Vec<EndpointAddr<A>>,
    /// The endpoints in the slices, if established connections to others are closed.
    closes_others: Option<Arc<ListedEndpoints<A>>>,
    /// The ports of the frontend if it is an address with port ranges, whose endpoints have port 0.
    ranges: Option<Box<[PortRange]>>,
}

impl<A: Address> AnsweringEndpoints<A> {
    /// Returns whether the frontend has a port of its address, which it always has without ranges.
    #[must_use]
    pub fn serves(&self, port: u16) -> bool {
        let ranges = self.ranges.as_ref();
        ranges.is_none_or(|ranges| ranges.iter().any(|range| range.contains(port)))
    }

    /// Returns whether connections keep their port: the endpoints have port 0.
    #[must_use]
    pub fn keeps_port(&self) -> bool {
        self.ranges.is_some()
    }

    /// Returns whether an endpoint answers datagrams.
    #[must_use]
    pub fn answers_flow(&self, endpoint: EndpointAddr<A>) -> bool {
        self.flows.binary_search(&endpoint).is_ok()
    }

    /// Returns whether an endpoint may still answer a connection that has no answer yet.
    ///
    /// `may_be_internal`: a connection from outside would be masqueraded differently.
    #[must_use]
    pub fn answers_connection(&self, endpoint: EndpointAddr<A>, may_be_internal: bool) -> bool {
        let from_anywhere = self.connections.binary_search(&endpoint).is_ok();
        from_anywhere || (may_be_internal && self.from_pods.binary_search(&endpoint).is_ok())
    }

    /// Returns whether established connections to removed endpoints are closed.
    #[must_use]
    pub fn closes_removed(&self) -> bool {
        self.closes_others.is_some()
    }

    /// Returns whether an established connection to an endpoint is closed.
    #[must_use]
    pub fn closes(&self, endpoint: EndpointAddr<A>) -> bool {
        let (address, _) = endpoint;
        let listed = self.closes_others.as_ref();
        listed.is_some_and(|listed| listed.addresses.binary_search(&address).is_err())
    }

    /// Returns all endpoints that may have connections.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        let listed = self.closes_others.iter();
        let in_any_state = listed.flat_map(|listed| &listed.of_port);
        self.flows.iter().chain(in_any_state).copied()
    }
}

/// Returns whether an item of `before` is missing in `now`; both are sorted.
fn has_lost<T: Ord>(before: &[T], now: &[T]) -> bool {
    let mut now = now.iter().peekable();
    before.iter().any(|item| {
        while now.next_if(|other| *other < item).is_some() {}
        now.peek() != Some(&item)
    })
}

/// Sorts endpoints and removes duplicates.
fn in_order<A: Ord>(endpoints: impl Iterator<Item = EndpointAddr<A>>) -> Vec<EndpointAddr<A>> {
    let mut endpoints: Vec<_> = endpoints.collect();
    // The input is a sequence of sorted lists: the stable sort merges such runs.
    endpoints.sort();
    endpoints.dedup();
    endpoints
}

impl<A: Address> ServiceElements<A> {
    /// Returns each frontend with its port and the route of its connections.
    pub fn frontends(&self) -> impl Iterator<Item = (Claim<A>, &PortElements<A>, Route)> {
        self.ports.iter().flat_map(|port| {
            let frontends = port.spec.frontends();
            frontends.map(move |(key, route)| (claim(key), port, route))
        })
    }

    /// Returns the port that has this frontend, and the route of its connections.
    #[must_use]
    pub fn frontend(&self, claim: &Claim<A>) -> Option<(&PortElements<A>, Route)> {
        let found = self.frontends().find(|(own, ..)| own == claim);
        found.map(|(_, port, route)| (port, route))
    }
}

/// Returns the claim for a frontend.
fn claim<A>(key: FrontendKey<A>) -> Claim<A> {
    match key {
        FrontendKey::Frontend(protocol, address, port) => Claim::Frontend(protocol, address, port),
        FrontendKey::Nodeport(protocol, port) => Claim::Nodeport(protocol, port),
        FrontendKey::Ranges(protocol, address) => Claim::Ranges(protocol, address),
    }
}

impl<A: Address> PortElements<A> {
    /// Returns the protocol and number of the port, unique in its Service.
    #[must_use]
    pub fn key(&self) -> (Protocol, u16) {
        (self.spec.protocol, self.spec.port)
    }

    /// Returns the endpoints that answer at the frontends with this route.
    #[must_use]
    pub fn answering(&self, route: Route) -> AnsweringEndpoints<A> {
        AnsweringEndpoints {
            flows: self.flows(),
            connections: self.connections(route),
            from_pods: self.connections_of_pods(route),
            closes_others: self.closes_others.clone(),
            ranges: self.spec.port_ranges().map(Box::from),
        }
    }

    /// Returns whether an endpoint that answered datagrams is missing in `now`.
    #[must_use]
    pub fn has_lost_flows(&self, now: &Self) -> bool {
        has_lost(&self.flows(), &now.flows())
    }

    /// Returns whether an endpoint of the frontends with this route is missing in `now`.
    #[must_use]
    pub fn has_lost_connections(&self, now: &Self, route: Route) -> bool {
        has_lost(&self.connections(route), &now.connections(route))
            || has_lost(
                &self.connections_of_pods(route),
                &now.connections_of_pods(route),
            )
    }

    /// Returns whether an endpoint is missing in `now` whose connections are closed.
    #[must_use]
    pub fn has_lost_closed(&self, now: &Self) -> bool {
        let lists = self.closes_others.as_ref().zip(now.closes_others.as_ref());
        lists.is_some_and(|(before, now)| has_lost(&before.addresses, &now.addresses))
    }

    /// Returns the endpoints that serve while they terminate.
    fn draining(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        self.unused.draining.iter().copied()
    }

    /// Returns the endpoints that answer datagrams.
    fn flows(&self) -> Vec<EndpointAddr<A>> {
        let (cluster, local) = (&self.lists.cluster, &self.lists.local);
        let ready = self.unused.ready.iter().copied();
        let used = cluster.endpoints().chain(local.endpoints());
        in_order(used.chain(ready).chain(self.draining()))
    }

    /// Returns the endpoints that may still answer connections at the frontends with this route.
    fn connections(&self, route: Route) -> Vec<EndpointAddr<A>> {
        let with_draining = |list: &Slots<A>| in_order(list.endpoints().chain(self.draining()));
        match route {
            Route::Cluster => with_draining(&self.lists.cluster),
            Route::Local | Route::LocalPolicy => with_draining(&self.lists.local),
            Route::Drop | Route::Reject => in_order(self.draining()),
        }
    }

    /// Returns the endpoints that only connections from Pods may reach.
    fn connections_of_pods(&self, route: Route) -> Vec<EndpointAddr<A>> {
        match route {
            Route::LocalPolicy => in_order(self.lists.cluster.endpoints()),
            Route::Cluster | Route::Local | Route::Drop | Route::Reject => Vec::new(),
        }
    }
}
