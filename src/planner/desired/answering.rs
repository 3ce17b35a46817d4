//! Who answers at a frontend: what connection tracking may hold on to.

use super::port::{FrontendKey, PortElements, Route};
use super::{Claim, EndpointAddr, EndpointLists, ServiceElements, Slots};
use crate::planner::model::{Address, Protocol};

/// Endpoints that get no new connections here, but answer the flows that they have. Both in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnusedEndpoints<A> {
    /// Ready ones that policy or topology leaves out.
    pub(super) ready: Vec<EndpointAddr<A>>,
    /// Those that serve though they are not ready: they terminate.
    pub(super) draining: Vec<EndpointAddr<A>>,
}

impl<A: Address> UnusedEndpoints<A> {
    /// Those of these that are in no list.
    pub(super) fn of(
        ready: Vec<EndpointAddr<A>>,
        draining: Vec<EndpointAddr<A>>,
        lists: &EndpointLists<A>,
    ) -> Self {
        let listed = [&lists.cluster, &lists.local];
        let unused = |endpoint: &EndpointAddr<A>| !listed.iter().any(|list| list.holds(*endpoint));
        Self {
            ready: ready.into_iter().filter(unused).collect(),
            draining: draining.into_iter().filter(unused).collect(),
        }
    }
}

/// The endpoints that answer at a frontend, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweringEndpoints<A> {
    /// Those that answer datagrams, whatever the policy: a flow that one of them answers is not cut.
    flows: Vec<EndpointAddr<A>>,
    /// Those that may yet answer a connection: the rules use them, or they terminate.
    connections: Vec<EndpointAddr<A>>,
    /// External policy Local: those of connections whose source is kept. Pods reach every endpoint.
    from_pods: Vec<EndpointAddr<A>>,
}

impl<A: Address> AnsweringEndpoints<A> {
    /// Whether this endpoint answers datagrams.
    #[must_use]
    pub fn answers_flow(&self, endpoint: EndpointAddr<A>) -> bool {
        self.flows.binary_search(&endpoint).is_ok()
    }

    /// Whether this endpoint may yet answer a connection that nobody answered.
    #[must_use]
    pub fn answers_connection(&self, endpoint: EndpointAddr<A>, source_kept: bool) -> bool {
        let any = self.connections.binary_search(&endpoint).is_ok();
        any || (source_kept && self.from_pods.binary_search(&endpoint).is_ok())
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        self.flows.iter().copied()
    }
}

/// Whether `now` misses one of `before`; both are in order, so one pass over both tells.
fn lost<A: Ord>(before: &[EndpointAddr<A>], now: &[EndpointAddr<A>]) -> bool {
    let mut now = now.iter().peekable();
    before.iter().any(|endpoint| {
        while now.next_if(|other| *other < endpoint).is_some() {}
        now.peek() != Some(&endpoint)
    })
}

fn in_order<A: Ord>(endpoints: impl Iterator<Item = EndpointAddr<A>>) -> Vec<EndpointAddr<A>> {
    let mut endpoints: Vec<_> = endpoints.collect();
    // Lists in order, one after the other: the stable sort merges such runs.
    endpoints.sort();
    endpoints.dedup();
    endpoints
}

impl<A: Address> ServiceElements<A> {
    /// Each frontend, its port, and where its connections go.
    pub fn frontends(&self) -> impl Iterator<Item = (Claim<A>, &PortElements<A>, Route)> {
        self.ports.iter().flat_map(|port| {
            let dispatched = port.shape.frontends();
            dispatched.map(move |(at, route)| (claim(at), port, route))
        })
    }

    /// The port that has this frontend, and where its connections go.
    #[must_use]
    pub fn frontend(&self, claim: &Claim<A>) -> Option<(&PortElements<A>, Route)> {
        let found = self.frontends().find(|(own, ..)| own == claim);
        found.map(|(_, port, route)| (port, route))
    }
}

fn claim<A>(at: FrontendKey<A>) -> Claim<A> {
    match at {
        FrontendKey::Frontend(protocol, address, port) => Claim::Frontend(protocol, address, port),
        FrontendKey::Nodeport(protocol, port) => Claim::Nodeport(protocol, port),
    }
}

impl<A: Address> PortElements<A> {
    /// What tells it from the other ports of its Service.
    #[must_use]
    pub fn key(&self) -> (Protocol, u16) {
        (self.shape.protocol, self.shape.port)
    }

    /// Who answers at those of its frontends whose connections go there.
    #[must_use]
    pub fn answering(&self, route: Route) -> AnsweringEndpoints<A> {
        AnsweringEndpoints {
            flows: self.flows(),
            connections: self.connections(route),
            from_pods: self.connections_of_pods(route),
        }
    }

    /// Whether `now` misses an endpoint that answered datagrams.
    #[must_use]
    pub fn flows_lost(&self, now: &Self) -> bool {
        lost(&self.flows(), &now.flows())
    }

    /// Whether `now` misses an endpoint that connections went to at the frontends of a route.
    #[must_use]
    pub fn connections_lost(&self, now: &Self, route: Route) -> bool {
        lost(&self.connections(route), &now.connections(route))
            || lost(
                &self.connections_of_pods(route),
                &now.connections_of_pods(route),
            )
    }

    fn draining(&self) -> impl Iterator<Item = EndpointAddr<A>> {
        self.unused.draining.iter().copied()
    }

    fn flows(&self) -> Vec<EndpointAddr<A>> {
        let (cluster, local) = (&self.lists.cluster, &self.lists.local);
        let ready = self.unused.ready.iter().copied();
        let used = cluster.endpoints().chain(local.endpoints());
        in_order(used.chain(ready).chain(self.draining()))
    }

    fn connections(&self, route: Route) -> Vec<EndpointAddr<A>> {
        let with_draining = |list: &Slots<A>| in_order(list.endpoints().chain(self.draining()));
        match route {
            Route::Cluster => with_draining(&self.lists.cluster),
            Route::Local | Route::Split => with_draining(&self.lists.local),
            Route::Drop | Route::Refuse => in_order(self.draining()),
        }
    }

    fn connections_of_pods(&self, route: Route) -> Vec<EndpointAddr<A>> {
        match route {
            Route::Split => in_order(self.lists.cluster.endpoints()),
            Route::Cluster | Route::Local | Route::Drop | Route::Refuse => Vec::new(),
        }
    }
}
