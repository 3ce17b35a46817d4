//! The names that `nft list ruleset` shows. They are public: operators and other software on the
//! node read them.

use std::fmt;

use super::Balance;
use crate::model::Protocol;

/// The name of our table, in the families `ip` and `ip6`.
pub const TABLE: &str = "kube-dnat";

/// The comment of our table.
pub const TABLE_COMMENT: &str = "kube-dnat: Kubernetes Services";

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// Address ranges of Pods (`--cluster-cidr`).
    PodCidrs,
    /// Addresses that node ports are served on.
    NodeIps,
    /// The `ClusterIPs` in use.
    ClusterIps,
    /// (frontend, slot) to endpoint.
    Endpoints,
    /// (node port, slot) to endpoint.
    NodeportEndpoints,
    /// Frontend to balance chain.
    Services,
    /// Node port to balance chain.
    Nodeports,
    /// (endpoint, endpoint) of this node's endpoints.
    Hairpin,
    /// Frontends of a protocol whose connections are masqueraded whoever makes them.
    Masquerade(Protocol),
    /// Node ports of a protocol whose connections are masqueraded whoever makes them.
    MasqueradeNodeport(Protocol),
    /// Frontends without endpoints.
    NoEndpoints,
    /// Node ports without endpoints.
    NoEndpointsNodeports,
    /// The ranges that `ClusterIPs` are taken from.
    ServiceCidrs,
}

impl SetName {
    /// Every set and map, in the order of the listing.
    pub const ALL: [Self; 17] = [
        Self::PodCidrs,
        Self::NodeIps,
        Self::ClusterIps,
        Self::Endpoints,
        Self::NodeportEndpoints,
        Self::Services,
        Self::Nodeports,
        Self::Hairpin,
        Self::Masquerade(Protocol::Tcp),
        Self::Masquerade(Protocol::Udp),
        Self::Masquerade(Protocol::Sctp),
        Self::MasqueradeNodeport(Protocol::Tcp),
        Self::MasqueradeNodeport(Protocol::Udp),
        Self::MasqueradeNodeport(Protocol::Sctp),
        Self::NoEndpoints,
        Self::NoEndpointsNodeports,
        Self::ServiceCidrs,
    ];

    /// Its name in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodCidrs => "pod-cidrs",
            Self::NodeIps => "node-ips",
            Self::ClusterIps => "cluster-ips",
            Self::Endpoints => "endpoints",
            Self::NodeportEndpoints => "nodeport-endpoints",
            Self::Services => "services",
            Self::Nodeports => "nodeports",
            Self::Hairpin => "hairpin",
            Self::Masquerade(Protocol::Tcp) => "masquerade-tcp",
            Self::Masquerade(Protocol::Udp) => "masquerade-udp",
            Self::Masquerade(Protocol::Sctp) => "masquerade-sctp",
            Self::MasqueradeNodeport(Protocol::Tcp) => "masquerade-nodeport-tcp",
            Self::MasqueradeNodeport(Protocol::Udp) => "masquerade-nodeport-udp",
            Self::MasqueradeNodeport(Protocol::Sctp) => "masquerade-nodeport-sctp",
            Self::NoEndpoints => "no-endpoints",
            Self::NoEndpointsNodeports => "no-endpoints-nodeports",
            Self::ServiceCidrs => "service-cidrs",
        }
    }

    /// The set or map of that name in the table.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.as_str() == name)
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A chain of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainName {
    /// Draws a slot and sends the connection to its endpoint.
    Balance(Balance),
    /// Finds the frontend.
    Services,
    /// nat, prerouting: connections that come in.
    NatPrerouting,
    /// nat, output: connections of the node itself.
    NatOutput,
    /// nat, postrouting: masquerade.
    NatPostrouting,
    /// Refuses a connection at once.
    Refuse,
    /// Finds frontends without endpoints.
    NoEndpoints,
    /// Refuses or drops what is addressed to a `ClusterIP` that does not serve it.
    ClusterIps,
    /// filter, input.
    FilterInput,
    /// filter, forward.
    FilterForward,
    /// filter, output.
    FilterOutput,
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Balance(balance) => return balance.fmt(f),
            Self::Services => "services",
            Self::NatPrerouting => "nat-prerouting",
            Self::NatOutput => "nat-output",
            Self::NatPostrouting => "nat-postrouting",
            Self::Refuse => "refuse",
            Self::NoEndpoints => "no-endpoints",
            Self::ClusterIps => "cluster-ips",
            Self::FilterInput => "filter-input",
            Self::FilterForward => "filter-forward",
            Self::FilterOutput => "filter-output",
        }
        .fmt(f)
    }
}
