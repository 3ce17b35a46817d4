//! The ports of a Service in short, for `/debug/services`.

use std::net::IpAddr;
use std::sync::Arc;

use super::port::{PortElements, Route};
use super::{ServiceElements, Slots};
use crate::planner::model::addr::Family;
use crate::planner::model::{
    Address, Balance, EndpointSlice, Protocol, Service, ServiceName, Store,
};

/// One Service port in one family: its frontends, and the numbers of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSummary {
    /// The Service.
    pub service: ServiceName,
    /// The name of the port, empty if it has none.
    pub port_name: Arc<str>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port number at the Service's addresses; of port ranges the first one.
    pub port: u16,
    /// The node port, if it is programmed.
    pub node_port: Option<u16>,
    /// The session affinity timeout in seconds; `None`: no session affinity.
    pub affinity: Option<u32>,
    /// The hash that selects the endpoint of a connection; `None`: at random.
    pub balance: Option<Balance>,
    /// The family of all that follows.
    pub family: Family,
    /// The `ClusterIPs` that are programmed.
    pub cluster_ips: Vec<IpAddr>,
    /// The external IPs that are programmed.
    pub external_ips: Vec<IpAddr>,
    /// The load-balancer IPs that are programmed.
    pub load_balancer_ips: Vec<IpAddr>,
    /// The route of connections to the `ClusterIPs`.
    pub internal: Route,
    /// The route of connections to the other frontends.
    pub external: Route,
    /// The endpoints that connections go to.
    pub used: usize,
    /// The slots that these endpoints share.
    pub slots: usize,
    /// The endpoints in the slices of the Service, and how many of them are ready and on this node.
    pub endpoints: SliceCounts,
}

/// The numbers of endpoints in the slices of a Service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceCounts {
    /// All endpoints.
    pub total: usize,
    /// The ready endpoints.
    pub ready: usize,
    /// The ready endpoints on this node.
    pub local: usize,
}

impl<A: Address> ServiceElements<A> {
    /// Returns each port in short. Takes time linear in the Service's endpoints.
    pub fn summaries(
        &self,
        service: &ServiceName,
        store: &Store,
    ) -> impl Iterator<Item = PortSummary> {
        let object = store.service(service);
        self.ports
            .iter()
            .map(move |port| port.summary(service, object.map(|object| (&**object, store))))
    }
}

impl<A: Address> PortElements<A> {
    /// Returns the port in short.
    fn summary(&self, service: &ServiceName, object: Option<(&Service, &Store)>) -> PortSummary {
        let spec = &self.spec;
        let routes = [spec.internal, spec.external];
        let lists = [&self.lists.cluster, &self.lists.local];
        let slices = object
            .into_iter()
            .flat_map(|(service, store)| store.slices(service));
        PortSummary {
            service: service.clone(),
            port_name: Arc::clone(&spec.name),
            protocol: spec.protocol,
            port: spec.first_port(),
            node_port: spec.node_port,
            affinity: spec.selection.affinity(),
            balance: spec.selection.balance(),
            family: A::FAMILY,
            cluster_ips: addresses(&spec.cluster_ips),
            external_ips: addresses(&spec.external_ips),
            load_balancer_ips: addresses(&spec.load_balancer_ips),
            internal: spec.internal,
            external: spec.external,
            used: largest(routes, lists, |list| list.endpoints().count()),
            slots: largest(routes, lists, Slots::len),
            endpoints: slices.fold(SliceCounts::default(), |counts, slice| {
                if spec.has_endpoints_in(slice) {
                    counts.add::<A>(slice)
                } else {
                    counts
                }
            }),
        }
    }
}

impl SliceCounts {
    /// Adds the endpoints of a slice.
    fn add<A: Address>(mut self, slice: &EndpointSlice) -> Self {
        let endpoints = A::endpoints(&slice.addresses).unwrap_or_default();
        let ready = endpoints.iter().filter(|endpoint| endpoint.ready);
        self.total += endpoints.len();
        self.ready += ready.clone().count();
        self.local += ready.filter(|endpoint| endpoint.is_local()).count();
        self
    }
}

/// Returns the size of the largest list that connections with one of these routes use.
fn largest<A: Copy + Ord>(
    routes: [Route; 2],
    [cluster, local]: [&Slots<A>; 2],
    size: impl Fn(&Slots<A>) -> usize,
) -> usize {
    let sizes = routes.map(|route| match route {
        Route::Cluster | Route::LocalPolicy => size(cluster),
        Route::Local => size(local),
        Route::Drop | Route::Reject => 0,
    });
    sizes.into_iter().max().unwrap_or(0)
}

/// Converts addresses of one family.
fn addresses<A: Address>(addresses: &[A]) -> Vec<IpAddr> {
    addresses.iter().map(|address| (*address).into()).collect()
}
