//! One frontend as a row.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use serde::{Serialize, Serializer};

use crate::planner::model::addr::Family;
use crate::planner::model::{Balance, Protocol, TrafficPolicy};
use crate::planner::ruleset::AddressKind;

/// What happens to a new connection to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FrontendResult {
    /// It is sent to an endpoint.
    Served,
    /// The client gets a TCP reset or an ICMP error: no node has an endpoint.
    Rejected,
    /// The client gets no answer: internal policy Local, and this node has no endpoint.
    Dropped,
    /// Pods and the node itself reach an endpoint, and other clients get no answer: external policy
    /// Local, and this node has no endpoint.
    DroppedFromOutside,
    /// Pods and the node itself reach an endpoint, and other clients get a TCP reset or an ICMP
    /// error: external policy Local, and this node has no endpoint.
    RejectedFromOutside,
}

/// An endpoint that connections to a frontend are sent to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ListedEndpoint {
    /// The address and port.
    pub address: SocketAddr,
    /// Whether the endpoint is on this node. An endpoint without a node name counts as on each node.
    pub local: bool,
}

/// The numbers of endpoints of a frontend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndpointCounts {
    /// The endpoints that connections are sent to.
    pub ready: usize,
    /// Those of them on this node.
    pub local: usize,
    /// The endpoints of the Service's port, in any state. The kernel does not know it.
    pub total: Option<usize>,
}

/// A frontend, as its elements describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendRow {
    /// The Service port, as `namespace/name:port-name`.
    pub service: String,
    /// The namespace of the Service.
    pub namespace: String,
    /// The name of the Service.
    pub name: String,
    /// The name of the port; empty if it has none.
    pub port_name: String,
    /// The kind of the frontend; `None` if an element without a label has an address that is not a
    /// `ClusterIP`.
    pub kind: Option<AddressKind>,
    /// The frontend as `protocol://address:port`, or `protocol://address:first-last` for a port range. A
    /// node port has the unspecified address.
    pub address: String,
    /// The family of the table that has the frontend: `IPv4` or `IPv6`.
    #[serde(serialize_with = "as_text")]
    pub family: Family,
    /// The protocol.
    #[serde(serialize_with = "as_text")]
    pub protocol: Protocol,
    /// The address; `None` for a node port.
    pub ip: Option<IpAddr>,
    /// The port; of port ranges the first one, also at the endpoints.
    pub port: u16,
    /// The traffic policy that applies to the frontend; `None` if no element shows it.
    pub policy: Option<TrafficPolicy>,
    /// The seconds that session affinity keeps a client at its endpoint; `None` without affinity.
    pub affinity_seconds: Option<u32>,
    /// Whether this node answers packets of unknown connections, since connections to removed endpoints
    /// are closed.
    pub closes_removed: bool,
    /// The hash that selects the endpoint of a connection, `maglev` or `source`; `None`: at random.
    pub balance: Option<Balance>,
    /// The slots that the endpoints share, if one of them has several.
    pub slots: Option<u32>,
    /// What happens to a new connection.
    pub result: FrontendResult,
    /// Whether `loadBalancerSourceRanges` restrict the sources.
    pub restricted: bool,
    /// The numbers of endpoints.
    pub endpoint_counts: EndpointCounts,
    /// The endpoints that connections are sent to.
    pub endpoints: Vec<ListedEndpoint>,
    /// The connections that the frontend's counter has counted since its element was written.
    pub connections: u64,
}

/// Serializes a value as its text.
fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl FrontendRow {
    /// Returns the key that sorts rows by namespace, name and port of the Service, then by kind,
    /// family and address.
    #[must_use]
    pub fn sort_key(&self) -> impl Ord + use<> {
        let names = [&self.namespace, &self.name, &self.port_name].map(String::clone);
        let kind = self.kind.map_or(u8::MAX, |kind| kind as u8);
        let family = self.family;
        (names, kind, family, self.ip, self.protocol, self.port)
    }
}
