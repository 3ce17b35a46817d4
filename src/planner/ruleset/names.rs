//! The names that `nft list ruleset` shows. They are public: operators and other software on the
//! node read them.

use std::fmt;

use super::DynamicChain;
use crate::planner::model::Protocol;

/// The name of our table, in the families `ip` and `ip6`.
pub const TABLE: &str = "kube-dnat";

/// The comment of our table.
pub const TABLE_COMMENT: &str = "kube-dnat: Kubernetes Services";

/// A set or map of the table; [`super::SETS`] declares each.
///
/// A name says first what the elements are for, then whose they are if not of address frontends
/// (`nodeports`), then which list or protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// Address ranges of Pods.
    PodCidrs,
    /// Address ranges of this node's Pods.
    PodCidrsLocal,
    /// Addresses that serve node ports.
    NodeIps,
    /// The `ClusterIPs` in use.
    ClusterIps,
    /// `ClusterIPs` in use by Services with session affinity.
    ClusterIpsSticky,
    /// Address ranges of `ClusterIPs`.
    ServiceCidrs,
    /// (frontend, slot) to endpoint.
    Endpoints,
    /// (node port, slot) to endpoint.
    NodeportEndpoints,
    /// Frontend to verdict.
    Services,
    /// Node port to verdict.
    Nodeports,
    /// Frontend with external policy Local to the balance chain of all its endpoints.
    ServicesCluster,
    /// Frontend with external policy Local to the balance chain of this node's endpoints.
    ServicesLocal,
    /// Node port with external policy Local to the balance chain of all its endpoints.
    NodeportsCluster,
    /// Node port with external policy Local to the balance chain of this node's endpoints.
    NodeportsLocal,
    /// Frontend with source ranges to verdict.
    ServicesRestricted,
    /// (frontend with source ranges, source range).
    SourceRanges,
    /// What happens to a new connection that no element serves.
    Denied,
    /// (client, frontend) to the endpoint that the client had last, of a protocol.
    Affinity(Protocol),
    /// (frontend, endpoint) of a protocol that clients no longer keep to the chain that sees to it.
    Gone(Protocol),
    /// The protocols; each counts the connections whose client could not be remembered.
    AffinityFull,
    /// Frontend of a protocol with session affinity to the chain that remembers.
    Sticky(Protocol),
    /// Node port of a protocol with session affinity to the chain that remembers.
    StickyNodeports(Protocol),
    /// External frontend of a protocol to the chain that masquerades.
    External(Protocol),
    /// Node port of a protocol to the chain that masquerades.
    ExternalNodeports(Protocol),
    /// (endpoint, endpoint) of the endpoints that are or may be on this node.
    Hairpin,
}

impl SetName {
    /// The maps that dispatch frontends: each frontend is in one of them.
    pub const OF_FRONTENDS: [Self; 2] = [Self::Services, Self::Nodeports];

    /// Every set and map, in the order of a listing.
    pub fn all() -> impl Iterator<Item = Self> {
        super::SETS
            .iter()
            .flat_map(|row| row.names)
            .map(|(name, _)| *name)
    }

    /// Its name in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let mut names = super::SETS.iter().flat_map(|row| row.names);
        // A test holds that each has its row.
        names
            .find(|(name, _)| *name == self)
            .map_or("", |(_, text)| text)
    }

    /// The set or map of that name in the table.
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

/// A chain of the table. A base chain is named `nat-HOOK`; a chain that a verdict map goes to says
/// what it does, then for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainName {
    /// Made on demand.
    OnDemand(DynamicChain),
    /// Finds the frontend.
    Services,
    /// Finds what is addressed to a `ClusterIP` that does not serve it.
    Unserved,
    /// Chooses between this node's endpoints and all of them, for external policy Local.
    ExternalLocal,
    /// The same for node ports.
    ExternalLocalNodeport,
    /// Lets sources in `loadBalancerSourceRanges` through; the others are denied.
    Restricted,
    /// Refuses or drops a connection that no element serves.
    Deny,
    /// Refuses a connection at once.
    Refuse,
    /// Finds frontends with session affinity.
    Affinity,
    /// Finds node ports with session affinity.
    AffinityNodeport,
    /// Does nothing: a client is not remembered.
    Unremembered,
    /// Drops connections from outside to an endpoint that only Pods and the node itself may keep.
    GoneOutside,
    /// Masquerades connections to a `ClusterIP`.
    ToClusterIp,
    /// Masquerades connections to an external frontend or node port with policy Cluster.
    ToExternal,
    /// Masquerades connections to an external frontend or node port with policy Local.
    ToExternalLocal,
    /// Finds how connections to a node port are masqueraded.
    ToNodeport,
    /// Base chain: connections that come in.
    NatPrerouting,
    /// Base chain: connections of the node itself.
    NatOutput,
    /// Base chain: connections that come in and that nobody translated.
    NatPreroutingUnserved,
    /// Base chain: connections of the node itself that nobody translated.
    NatOutputUnserved,
    /// Base chain: connections to endpoints on the node itself.
    NatInput,
    /// Base chain: connections that leave.
    NatPostrouting,
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnDemand(chain) => return chain.fmt(f),
            Self::Services => "services",
            Self::Unserved => "unserved",
            Self::ExternalLocal => "external-local",
            Self::ExternalLocalNodeport => "external-local-nodeport",
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
