//! The elements of a Service as JSON, for `/debug/state`.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::port::{PortElements, Route};
use super::{ServiceElements, Slots};
use crate::planner::model::{Address, ServiceName};

impl<A: Address> ServiceElements<A> {
    /// Returns the ports with their frontends, their endpoints by slot, and their routes.
    #[must_use]
    pub fn describe(&self, service: &ServiceName) -> Value {
        let ports = self.ports.iter();
        ports.map(|port| port.describe(service)).collect()
    }
}

impl<A: Address> PortElements<A> {
    /// Returns the port as JSON.
    fn describe(&self, service: &ServiceName) -> Value {
        let spec = &self.spec;
        let ranges = spec.source_ranges().map(texts);
        json!({
            "name": *spec.comment(service),
            "protocol": spec.protocol.to_string(),
            "port": spec.port,
            "portRanges": spec.port_ranges().map(texts),
            "clusterIPs": texts(&spec.cluster_ips),
            "externalIPs": texts(&spec.external_ips),
            "loadBalancerIPs": texts(&spec.load_balancer_ips),
            "sourceRanges": ranges,
            "nodePort": spec.node_port,
            "internal": route(spec.internal),
            "external": route(spec.external),
            "affinitySeconds": spec.selection.affinity(),
            "closesRemoved": self.closes_others.is_some(),
            "balance": spec.selection.balance(),
            "endpoints": endpoints(&self.lists.cluster),
            "endpointSlots": slots(&self.lists.cluster),
            "localEndpoints": endpoints(&self.lists.local),
            "localEndpointSlots": slots(&self.lists.local),
        })
    }
}

/// Describes where connections go.
fn route(route: Route) -> &'static str {
    match route {
        Route::Cluster => "to all endpoints",
        Route::Local => "to local endpoints",
        Route::LocalPolicy => {
            "from this node and its Pods to all endpoints, from other sources to local endpoints"
        }
        Route::Drop => "dropped: no local endpoint",
        Route::Reject => "rejected: no endpoint",
    }
}

/// Converts each value to its text.
fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// Lists the endpoints in the order of their first slots.
fn endpoints<A: Address>(list: &Slots<A>) -> Vec<String> {
    let text = |(address, port): (A, u16)| {
        let address: IpAddr = address.into();
        SocketAddr::new(address, port).to_string()
    };
    by_slot(list)
        .into_iter()
        .map(|(endpoint, _)| text(endpoint))
        .collect()
}

/// Lists the numbers of the endpoints' slots in the same order; `None` if each has one.
fn slots<A: Address>(list: &Slots<A>) -> Option<Vec<usize>> {
    let slots: Vec<_> = by_slot(list).into_iter().map(|(_, slots)| slots).collect();
    slots.iter().any(|slots| *slots > 1).then_some(slots)
}

/// Returns the endpoints in the order of their first slots, with the numbers of their slots.
fn by_slot<A: Address>(list: &Slots<A>) -> Vec<((A, u16), usize)> {
    let mut first: Vec<_> = list.iter().collect();
    first.dedup_by_key(|(endpoint, _)| *endpoint);
    let mut by_slot: Vec<_> = first.into_iter().zip(list.shares()).collect();
    by_slot.sort_unstable_by_key(|((_, slot), _)| *slot);
    by_slot.into_iter().map(|(_, share)| share).collect()
}
