//! The node ports of a Service as clients on this node reach them at 127.0.0.1 and `::1`.

use std::net::SocketAddr;

use super::ServiceElements;
use super::port::{PortElements, Route};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol, ServiceName};

/// A node port with the endpoints that clients at localhost reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalhostPort {
    /// The transport protocol: TCP or UDP.
    pub protocol: Protocol,
    /// The node port.
    pub port: u16,
    /// The endpoints that the external traffic policy allows, sorted; there is at least one.
    pub endpoints: Vec<SocketAddr>,
    /// The session affinity timeout in seconds; `None`: no session affinity.
    pub affinity: Option<u32>,
}

/// The committed node ports of a Service in one family, in place of those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalhostChange {
    /// The family.
    pub family: Family,
    /// The Service.
    pub service: ServiceName,
    /// The node ports that have endpoints.
    pub ports: Vec<LocalhostPort>,
}

impl<A: Address> ServiceElements<A> {
    /// Returns the node ports that localhost serves. Takes time linear in the Service's endpoints.
    ///
    /// KEP-6032: policy Local allows the endpoints on this node only, also to clients on this node, and
    /// without an endpoint nothing listens. There is no SCTP.
    #[must_use]
    pub fn localhost_ports(&self) -> Vec<LocalhostPort> {
        let ports = self.ports.iter().filter_map(PortElements::localhost_port);
        ports.collect()
    }
}

impl<A: Address> PortElements<A> {
    /// Returns the node port that localhost serves, if it has an endpoint.
    fn localhost_port(&self) -> Option<LocalhostPort> {
        let spec = &self.spec;
        let port = spec.node_port.filter(|_| spec.protocol != Protocol::Sctp)?;
        let list = match spec.external {
            Route::Cluster => &self.lists.cluster,
            Route::Local | Route::LocalPolicy => &self.lists.local,
            Route::Drop | Route::Reject => return None,
        };
        let endpoints = list.endpoints();
        let endpoints: Vec<_> = endpoints
            .map(|(ip, port)| SocketAddr::new(ip.into(), port))
            .collect();
        (!endpoints.is_empty()).then_some(LocalhostPort {
            protocol: spec.protocol,
            port,
            endpoints,
            affinity: spec.selection.affinity(),
        })
    }
}
