//! `EndpointSlices`: the addresses that connections are sent to.

use std::net::{Ipv4Addr, Ipv6Addr};
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
    /// The ports of every endpoint of this slice.
    pub ports: Vec<SlicePort>,
    /// The endpoints, one address each.
    pub addresses: Addresses,
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
pub enum Addresses {
    /// `addressType: IPv4`.
    Ipv4(Vec<Endpoint<Ipv4Addr>>),
    /// `addressType: IPv6`.
    Ipv6(Vec<Endpoint<Ipv6Addr>>),
}

/// One endpoint of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<A> {
    /// Its address (`addresses[0]`, the only one that counts).
    pub address: A,
    /// `conditions.ready`; absent means true.
    pub ready: bool,
    /// Whether `nodeName` is this node.
    pub local: bool,
}
