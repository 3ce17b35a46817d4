//! The names that `nft list ruleset` shows, which operators and other software rely on.

use std::fmt;

use super::{DynamicChain, TcpPickup};
use crate::planner::model::Protocol;

/// The name of kube-dnat's table in the families `ip` and `ip6`.
pub const TABLE: &str = "kube-dnat";

/// The comment of kube-dnat's table.
pub const TABLE_COMMENT: &str = "kube-dnat: Kubernetes Services";

/// The name of a set or map, declared in [`super::SETS`].
///
/// A name starts with the purpose of the elements. `nodeports` follows if they belong to node ports
/// and not to frontends at addresses, `ranges` if they belong to the port ranges of an address, then
/// the list or protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// The address ranges of Pods.
    PodCidrs,
    /// The address ranges of this node's Pods.
    PodCidrsLocal,
    /// The addresses that serve node ports.
    NodeIps,
    /// The `ClusterIPs` in use by Services without session affinity.
    ClusterIps,
    /// The `ClusterIPs` in use by Services with session affinity.
    ClusterIpsSticky,
    /// The load-balancer IPs whose other ports are refused.
    LoadBalancerIps,
    /// The address ranges of `ClusterIPs`.
    ServiceCidrs,
    /// Maps a frontend and slot to an endpoint.
    Endpoints,
    /// Maps a node port and slot to an endpoint.
    NodeportEndpoints,
    /// Maps an address with port ranges and a slot to the address of an endpoint.
    RangeEndpoints,
    /// Maps a frontend to a verdict.
    Services,
    /// Maps a node port to a verdict.
    Nodeports,
    /// Maps a frontend with external policy Local to the chain that balances over all endpoints.
    ServicesCluster,
    /// Maps a frontend with external policy Local to the chain that balances over local endpoints.
    ServicesLocal,
    /// Maps a node port with external policy Local to the chain that balances over all endpoints.
    NodeportsCluster,
    /// Maps a node port with external policy Local to the chain that balances over local endpoints.
    NodeportsLocal,
    /// Maps a frontend with source ranges to a verdict.
    ServicesRestricted,
    /// Maps a frontend with source ranges to the verdict for other sources.
    ServicesDenied,
    /// The pairs of a frontend and a source range that may use it.
    SourceRanges,
    /// The pairs of an address and a port range that it serves.
    PortRanges,
    /// Maps an address with port ranges to a verdict.
    Ranges,
    /// Maps an address with port ranges and external policy Local to the chain that balances over all
    /// endpoints.
    RangesCluster,
    /// Maps an address with port ranges and external policy Local to the chain that balances over
    /// local endpoints.
    RangesLocal,
    /// The verdict for new connections that no other element serves or denies.
    Denied,
    /// Maps a client and destination of a protocol to the endpoint that the client is pinned to.
    Affinity(Protocol),
    /// Maps a destination and endpoint of a protocol to a verdict for clients that must not stay.
    Gone(Protocol),
    /// The protocols; each counts the connections whose clients found the affinity map full.
    AffinityFull,
    /// Maps a frontend of a protocol with session affinity to the chain that pins its clients.
    Sticky(Protocol),
    /// Maps a node port of a protocol with session affinity to the chain that pins its clients.
    StickyNodeports(Protocol),
    /// Maps an external frontend of a protocol to the chain that masquerades its connections.
    External(Protocol),
    /// Maps a node port of a protocol to the chain that masquerades its connections.
    ExternalNodeports(Protocol),
    /// Maps an external address with port ranges to the chain that masquerades its connections.
    ExternalRanges,
    /// The frontends whose connections to removed endpoints are closed.
    CloseRemoved(TcpPickup),
    /// The node ports whose connections to removed endpoints are closed.
    CloseRemovedNodeports(TcpPickup),
    /// The pairs of an endpoint that may be on this node with itself.
    Hairpin,
}

impl SetName {
    /// The maps that dispatch connections by frontend; each frontend is in one of them.
    pub const OF_FRONTENDS: [Self; 3] = [Self::Services, Self::Nodeports, Self::Ranges];

    /// Returns every set and map, in the order of a listing.
    pub fn all() -> impl Iterator<Item = Self> {
        super::SETS
            .iter()
            .flat_map(|row| row.names)
            .map(|(name, _)| *name)
    }

    /// Returns the name in the table.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "a test proves that each name has a row"
    )]
    pub fn as_str(self) -> &'static str {
        let mut names = super::SETS.iter().flat_map(|row| row.names);
        let (_, text) = names
            .find(|(name, _)| *name == self)
            .expect("each name has a row");
        text
    }

    /// Returns the set or map with this name in the table.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|set| set.as_str() == name)
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a chain.
///
/// Base chains are named `nat-HOOK`, or `filter-HOOK` by their type. The target of a verdict map is named by what it does, then by
/// the connections that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainName {
    /// A chain that is created on demand.
    Dynamic(DynamicChain),
    /// Looks up the frontend.
    Services,
    /// Denies connections to a `ClusterIP` that does not serve their port.
    Unserved,
    /// Rejects connections to a load-balancer IP that does not serve their port.
    UnservedLoadBalancer,
    /// Chooses between local endpoints and all endpoints, for external policy Local.
    ExternalLocal,
    /// Chooses between local endpoints and all endpoints of a node port with policy Local.
    ExternalLocalNodeport,
    /// Chooses between local endpoints and all endpoints of port ranges with policy Local.
    ExternalLocalRange,
    /// Allows sources in `loadBalancerSourceRanges` and denies the others.
    Restricted,
    /// Rejects or drops a connection that no element serves.
    Deny,
    /// Rejects a connection.
    Refuse,
    /// Looks up frontends with session affinity.
    Affinity,
    /// Looks up node ports with session affinity.
    AffinityNodeport,
    /// Does nothing, so that the client is not pinned.
    Unremembered,
    /// Drops external connections to an endpoint that only Pods and the node itself may keep.
    GoneOutside,
    /// Masquerades connections to a `ClusterIP`.
    ToClusterIp,
    /// Masquerades connections to an external frontend or node port with policy Cluster.
    ToExternal,
    /// Masquerades connections to an external frontend or node port with policy Local.
    ToExternalLocal,
    /// Looks up how connections to a node port are masqueraded.
    ToNodeport,
    /// Base chain at prerouting, for incoming connections.
    NatPrerouting,
    /// Base chain at output, for connections of the node itself.
    NatOutput,
    /// Base chain at prerouting, for incoming connections without a translation.
    NatPreroutingUnserved,
    /// Base chain at output, for connections of the node itself without a translation.
    NatOutputUnserved,
    /// Base chain at input, for connections to endpoints on the node itself.
    NatInput,
    /// Base chain at postrouting, for connections that leave the node.
    NatPostrouting,
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dynamic(chain) => return chain.fmt(f),
            Self::Services => "services",
            Self::Unserved => "unserved",
            Self::UnservedLoadBalancer => "unserved-load-balancer",
            Self::ExternalLocal => "external-local",
            Self::ExternalLocalNodeport => "external-local-nodeport",
            Self::ExternalLocalRange => "external-local-range",
            Self::Restricted => "restricted",
            Self::Deny => "deny",
            Self::Refuse => "refuse",
            Self::Affinity => "affinity",
            Self::AffinityNodeport => "affinity-nodeport",
            Self::Unremembered => "unremembered",
            Self::GoneOutside => "gone-outside",
            Self::ToClusterIp => "to-cluster-ip",
            Self::ToExternal => "to-external",
            Self::ToExternalLocal => "to-external-local",
            Self::ToNodeport => "to-nodeport",
            Self::NatPrerouting => "nat-prerouting",
            Self::NatOutput => "nat-output",
            Self::NatPreroutingUnserved => "nat-prerouting-unserved",
            Self::NatOutputUnserved => "nat-output-unserved",
            Self::NatInput => "nat-input",
            Self::NatPostrouting => "nat-postrouting",
        }
        .fmt(f)
    }
}
