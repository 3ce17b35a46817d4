//! `EndpointSlices`: the addresses that connections are sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Protocol, ServiceName};

/// Endpoints of one Service and one family, which share a list of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The Service it belongs to (label `kubernetes.io/service-name`).
    pub service: ServiceName,
    /// Whether it was made of an old-style Endpoints object: such a slice counts only for a
    /// Service without a selector, as the `EndpointSlice` mirroring controller has it.
    pub mirrored: bool,
    /// When what it says was brought about, in milliseconds since 1970, if it says so
    /// (`endpoints.kubernetes.io/last-change-trigger-time`).
    pub triggered: Option<i64>,
    /// The ports of every endpoint of this slice.
    pub ports: Vec<SlicePort>,
    /// The endpoints, one address each.
    pub addresses: SliceEndpoints,
}

/// One port of every endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the Service port it answers, empty if that has none.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port number on the endpoint; 1..=65535.
    pub port: u16,
}

/// The endpoints of a slice: all of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceEndpoints {
    /// `addressType: IPv4`.
    Ipv4(Vec<Endpoint<Ipv4Addr>>),
    /// `addressType: IPv6`.
    Ipv6(Vec<Endpoint<Ipv6Addr>>),
}

/// For whom the slice controller means an endpoint (`hints`, KEP-2433 and KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hints {
    /// `forZones`: the names of zones.
    pub zones: Vec<Arc<str>>,
    /// Whether `forNodes` names any node.
    pub nodes: bool,
    /// Whether it names this node.
    pub our_node: bool,
}

/// One endpoint of a slice.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the conditions are the API's, and independent of each other"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint<A> {
    /// Its address (`addresses[0]`, the only one that counts).
    pub address: A,
    /// `conditions.ready`; absent means true.
    pub ready: bool,
    /// `conditions.serving`; absent means true.
    pub serving: bool,
    /// `conditions.terminating`; absent means false.
    pub terminating: bool,
    /// Whether `nodeName` is this node.
    pub local: bool,
    /// Whether there is no `nodeName`: it may be on this node.
    pub unplaced: bool,
    /// For whom it is meant; most have none.
    pub hints: Option<Box<Hints>>,
}

impl EndpointSlice {
    /// The addresses of its endpoints on this node.
    pub fn here(&self) -> impl Iterator<Item = IpAddr> {
        let (ipv4, ipv6) = match &self.addresses {
            SliceEndpoints::Ipv4(endpoints) => (endpoints.as_slice(), [].as_slice()),
            SliceEndpoints::Ipv6(endpoints) => ([].as_slice(), endpoints.as_slice()),
        };
        of_this_node(ipv4).chain(of_this_node(ipv6))
    }

    /// How many of its endpoints are on other nodes.
    #[must_use]
    pub fn elsewhere(&self) -> usize {
        match &self.addresses {
            SliceEndpoints::Ipv4(endpoints) => of_other_nodes(endpoints),
            SliceEndpoints::Ipv6(endpoints) => of_other_nodes(endpoints),
        }
    }
}

fn of_other_nodes<A>(endpoints: &[Endpoint<A>]) -> usize {
    let elsewhere = |endpoint: &&Endpoint<A>| !endpoint.local && !endpoint.unplaced;
    endpoints.iter().filter(elsewhere).count()
}

fn of_this_node<A: Copy + Into<IpAddr>>(endpoints: &[Endpoint<A>]) -> impl Iterator<Item = IpAddr> {
    let here = endpoints.iter().filter(|endpoint| endpoint.local);
    here.map(|endpoint| endpoint.address.into())
}
