//! `EndpointSlices`, which have the addresses of endpoints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Protocol, ServiceName};

/// Endpoints of one Service and one family that have the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The Service of the endpoints (label `kubernetes.io/service-name`).
    pub service: ServiceName,
    /// Whether the slice comes from an Endpoints object.
    ///
    /// As with the `EndpointSlice` mirroring controller, such a slice applies only to a Service
    /// without a selector.
    pub mirrored: bool,
    /// The time of the change that caused this state, in milliseconds since 1970.
    ///
    /// It is the annotation `endpoints.kubernetes.io/last-change-trigger-time`.
    pub triggered: Option<i64>,
    /// The ports of every endpoint in the slice.
    pub ports: Box<[SlicePort]>,
    /// The endpoints, each with one address.
    pub addresses: SliceEndpoints,
}

/// A port of every endpoint in a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the Service port, empty if that has none.
    pub name: Arc<str>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port number at the endpoint, from 1 to 65535.
    pub port: u16,
}

/// The endpoints of a slice, all of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceEndpoints {
    /// The endpoints of a slice with `addressType: IPv4`.
    Ipv4(Box<[Endpoint<Ipv4Addr>]>),
    /// The endpoints of a slice with `addressType: IPv6`.
    Ipv6(Box<[Endpoint<Ipv6Addr>]>),
}

/// The topology hints of an endpoint (`hints`, KEP-2433 and KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hints {
    /// The names of the zones in `forZones`.
    pub zones: Box<[Arc<str>]>,
    /// Whether `forNodes` names any node.
    pub has_nodes: bool,
    /// Whether `forNodes` names this node.
    pub has_this_node: bool,
}

/// The place of an endpoint in the cluster, which many endpoints share.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topology {
    /// The topology hints, which most endpoints do not have.
    pub hints: Option<Hints>,
    /// The name of the node (`nodeName`).
    pub node: Option<Arc<str>>,
    /// The name of the zone (`zone`).
    pub zone: Option<Arc<str>>,
}

/// The node of an endpoint, by `nodeName`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// Another node.
    Remote,
    /// Absent, so that the endpoint may be on this node.
    Unknown,
    /// This node.
    Local,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint<A> {
    /// The address, `addresses[0]`.
    pub address: A,
    /// The value of `conditions.ready`, `true` if absent.
    pub ready: bool,
    /// The value of `conditions.serving`, `true` if absent.
    pub serving: bool,
    /// The value of `conditions.terminating`, `false` if absent.
    pub terminating: bool,
    /// The node of the endpoint.
    pub placement: Placement,
    /// The place of the endpoint; `None` if nothing of it is known.
    pub topology: Option<Arc<Topology>>,
}

impl<A> Endpoint<A> {
    /// Returns the topology hints.
    #[must_use]
    pub fn hints(&self) -> Option<&Hints> {
        self.topology.as_ref()?.hints.as_ref()
    }

    /// Returns whether the endpoint is on this node.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.placement == Placement::Local
    }

    /// Returns whether the endpoint is or may be on this node.
    #[must_use]
    pub fn may_be_local(&self) -> bool {
        self.placement != Placement::Remote
    }
}

impl EndpointSlice {
    /// Returns the places of the endpoints that have one.
    pub(super) fn topologies(&mut self) -> impl Iterator<Item = &mut Arc<Topology>> {
        let (ipv4, ipv6) = match &mut self.addresses {
            SliceEndpoints::Ipv4(endpoints) => (&mut **endpoints, [].as_mut_slice()),
            SliceEndpoints::Ipv6(endpoints) => ([].as_mut_slice(), &mut **endpoints),
        };
        let ipv4 = ipv4.iter_mut().map(|endpoint| &mut endpoint.topology);
        let ipv6 = ipv6.iter_mut().map(|endpoint| &mut endpoint.topology);
        ipv4.chain(ipv6).flatten()
    }

    /// Returns the addresses of the endpoints on this node.
    pub fn local_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let (ipv4, ipv6) = match &self.addresses {
            SliceEndpoints::Ipv4(endpoints) => (&**endpoints, [].as_slice()),
            SliceEndpoints::Ipv6(endpoints) => ([].as_slice(), &**endpoints),
        };
        addresses_where(ipv4, Endpoint::is_local).chain(addresses_where(ipv6, Endpoint::is_local))
    }

    /// Returns the addresses of the ready endpoints.
    pub fn ready_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let (ipv4, ipv6) = match &self.addresses {
            SliceEndpoints::Ipv4(endpoints) => (&**endpoints, [].as_slice()),
            SliceEndpoints::Ipv6(endpoints) => ([].as_slice(), &**endpoints),
        };
        addresses_where(ipv4, |endpoint| endpoint.ready)
            .chain(addresses_where(ipv6, |endpoint| endpoint.ready))
    }

    /// Counts the endpoints on other nodes.
    #[must_use]
    pub fn remote_count(&self) -> usize {
        match &self.addresses {
            SliceEndpoints::Ipv4(endpoints) => remote_count(endpoints),
            SliceEndpoints::Ipv6(endpoints) => remote_count(endpoints),
        }
    }
}

/// Counts the endpoints on other nodes.
fn remote_count<A>(endpoints: &[Endpoint<A>]) -> usize {
    let is_remote = |endpoint: &&Endpoint<A>| !endpoint.may_be_local();
    endpoints.iter().filter(is_remote).count()
}

/// Returns the addresses of the endpoints that meet a condition.
fn addresses_where<A: Copy + Into<IpAddr>>(
    endpoints: &[Endpoint<A>],
    condition: fn(&Endpoint<A>) -> bool,
) -> impl Iterator<Item = IpAddr> {
    let matching = endpoints.iter().filter(move |endpoint| condition(endpoint));
    matching.map(|endpoint| endpoint.address.into())
}
