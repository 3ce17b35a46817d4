//! A Service's contribution in words, for whoever asks why a connection goes where it goes.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::port::{PortElements, Route};
use super::{ServiceElements, Slots};
use crate::planner::model::Address;

impl<A: Address> ServiceElements<A> {
    /// Its ports with their frontends, endpoints by slot, and what happens to connections.
    #[must_use]
    pub fn describe(&self) -> Value {
        self.ports.iter().map(PortElements::describe).collect()
    }
}

impl<A: Address> PortElements<A> {
    fn describe(&self) -> Value {
        let shape = &self.shape;
        let ranges = shape.source_ranges.as_ref().map(|ranges| texts(ranges));
        json!({
            "name": *shape.comment,
            "protocol": shape.protocol.to_string(),
            "port": shape.port,
            "clusterIPs": texts(&shape.cluster_ips),
            "externalIPs": texts(&shape.external_ips),
            "loadBalancerIPs": texts(&shape.load_balancer_ips),
            "sourceRanges": ranges,
            "nodePort": shape.node_port,
            "internal": route(shape.internal),
            "external": route(shape.external),
            "affinitySeconds": shape.affinity,
            "endpoints": slots(&self.lists.cluster),
            "localEndpoints": slots(&self.lists.local),
        })
    }
}

fn route(route: Route) -> &'static str {
    match route {
        Route::Cluster => "to the endpoints",
        Route::Local => "to the local endpoints",
        Route::Split => {
            "from this node and its Pods to the endpoints, from others to the local endpoints"
        }
        Route::Drop => "dropped: there is no local endpoint",
        Route::Refuse => "refused: there is no endpoint",
    }
}

fn texts<T: ToString>(of: &[T]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

/// By slot.
fn slots<A: Address>(list: &Slots<A>) -> Vec<String> {
    let mut by_slot: Vec<_> = list
        .iter()
        .map(|(endpoint, slot)| (slot, endpoint))
        .collect();
    by_slot.sort_unstable();
    let text = |(_, (address, port)): (u16, (A, u16))| {
        let address: IpAddr = address.into();
        SocketAddr::new(address, port).to_string()
    };
    by_slot.into_iter().map(text).collect()
}
