//! The names that `nft list ruleset` shows. They are public: operators and other software on the
//! node read them.

use std::fmt;

use super::OnDemand;
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
    /// Frontend with external policy Local to the balance chain of all its endpoints.
    ServicesWide,
    /// Frontend with external policy Local to the balance chain of this node's endpoints.
    ServicesNodeLocal,
    /// Node port with external policy Local to the balance chain of all its endpoints.
    NodeportsWide,
    /// Node port with external policy Local to the balance chain of this node's endpoints.
    NodeportsNodeLocal,
    /// (client, frontend) to the endpoint that the client had last, of a protocol.
    Affinity(Protocol),
    /// The protocols; each counts the connections whose client could not be remembered.
    AffinityFull,
    /// Frontends of a protocol with session affinity to the chain that remembers.
    Sticky(Protocol),
    /// Node ports of a protocol with session affinity to the chain that remembers.
    StickyNodeport(Protocol),
    /// Frontends of a protocol whose connections are masqueraded if the node makes them.
    MasqueradeNode(Protocol),
    /// Node ports of a protocol whose connections are masqueraded if the node makes them.
    MasqueradeNodeNodeport(Protocol),
    /// Load-balancer frontends that not everyone may use.
    SourceRangesChecked,
    /// (load-balancer frontend, source range): who may use it.
    SourceRanges,
    /// Frontends without endpoints.
    NoEndpoints,
    /// Node ports without endpoints.
    NoEndpointsNodeports,
    /// The ranges that `ClusterIPs` are taken from.
    ServiceCidrs,
}

impl SetName {
    /// The maps that have every frontend and node port of every Service.
    pub const OF_FRONTENDS: [Self; 4] = [
        Self::Services,
        Self::Nodeports,
        Self::NoEndpoints,
        Self::NoEndpointsNodeports,
    ];

    /// Every set and map, in the order of the listing.
    pub const ALL: [Self; 39] = [
        Self::PodCidrs,
        Self::NodeIps,
        Self::ClusterIps,
        Self::Endpoints,
        Self::NodeportEndpoints,
        Self::Services,
        Self::Nodeports,
        Self::ServicesWide,
        Self::ServicesNodeLocal,
        Self::NodeportsWide,
        Self::NodeportsNodeLocal,
        Self::Affinity(Protocol::Tcp),
        Self::Affinity(Protocol::Udp),
        Self::Affinity(Protocol::Sctp),
        Self::AffinityFull,
        Self::Sticky(Protocol::Tcp),
        Self::Sticky(Protocol::Udp),
        Self::Sticky(Protocol::Sctp),
        Self::StickyNodeport(Protocol::Tcp),
        Self::StickyNodeport(Protocol::Udp),
        Self::StickyNodeport(Protocol::Sctp),
        Self::Hairpin,
        Self::Masquerade(Protocol::Tcp),
        Self::Masquerade(Protocol::Udp),
        Self::Masquerade(Protocol::Sctp),
        Self::MasqueradeNodeport(Protocol::Tcp),
        Self::MasqueradeNodeport(Protocol::Udp),
        Self::MasqueradeNodeport(Protocol::Sctp),
        Self::MasqueradeNode(Protocol::Tcp),
        Self::MasqueradeNode(Protocol::Udp),
        Self::MasqueradeNode(Protocol::Sctp),
        Self::MasqueradeNodeNodeport(Protocol::Tcp),
        Self::MasqueradeNodeNodeport(Protocol::Udp),
        Self::MasqueradeNodeNodeport(Protocol::Sctp),
        Self::SourceRangesChecked,
        Self::SourceRanges,
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
            Self::ServicesWide => "services-wide",
            Self::ServicesNodeLocal => "services-node-local",
            Self::NodeportsWide => "nodeports-wide",
            Self::NodeportsNodeLocal => "nodeports-node-local",
            Self::SourceRangesChecked => "source-ranges-checked",
            Self::SourceRanges => "source-ranges",
            Self::Affinity(Protocol::Tcp) => "affinity-tcp",
            Self::Affinity(Protocol::Udp) => "affinity-udp",
            Self::Affinity(Protocol::Sctp) => "affinity-sctp",
            Self::AffinityFull => "affinity-full",
            Self::Sticky(Protocol::Tcp) => "sticky-tcp",
            Self::Sticky(Protocol::Udp) => "sticky-udp",
            Self::Sticky(Protocol::Sctp) => "sticky-sctp",
            Self::StickyNodeport(Protocol::Tcp) => "sticky-nodeport-tcp",
            Self::StickyNodeport(Protocol::Udp) => "sticky-nodeport-udp",
            Self::StickyNodeport(Protocol::Sctp) => "sticky-nodeport-sctp",
            Self::MasqueradeNode(Protocol::Tcp) => "masquerade-node-tcp",
            Self::MasqueradeNode(Protocol::Udp) => "masquerade-node-udp",
            Self::MasqueradeNode(Protocol::Sctp) => "masquerade-node-sctp",
            Self::MasqueradeNodeNodeport(Protocol::Tcp) => "masquerade-node-nodeport-tcp",
            Self::MasqueradeNodeNodeport(Protocol::Udp) => "masquerade-node-nodeport-udp",
            Self::MasqueradeNodeNodeport(Protocol::Sctp) => "masquerade-node-nodeport-sctp",
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
    /// Made on demand.
    OnDemand(OnDemand),
    /// Finds the frontend.
    Services,
    /// nat, prerouting: connections that come in.
    NatPrerouting,
    /// nat, output: connections of the node itself.
    NatOutput,
    /// nat, postrouting: masquerade.
    NatPostrouting,
    /// Decides between this node's endpoints and all of them, for external policy Local.
    ExternalLocal,
    /// The same for node ports.
    NodeportExternalLocal,
    /// Finds frontends with session affinity.
    Affinity,
    /// filter after DNAT, prerouting: session affinity.
    AffinityPrerouting,
    /// filter after DNAT, output: session affinity.
    AffinityOutput,
    /// Drops who may not use a load-balancer frontend.
    SourceRanges,
    /// filter before DNAT, prerouting: source ranges.
    SourceRangesPrerouting,
    /// filter before DNAT, output: source ranges.
    SourceRangesOutput,
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
            Self::OnDemand(chain) => return chain.fmt(f),
            Self::Services => "services",
            Self::NatPrerouting => "nat-prerouting",
            Self::NatOutput => "nat-output",
            Self::NatPostrouting => "nat-postrouting",
            Self::ExternalLocal => "external-local",
            Self::NodeportExternalLocal => "nodeport-external-local",
            Self::Affinity => "affinity",
            Self::AffinityPrerouting => "affinity-prerouting",
            Self::AffinityOutput => "affinity-output",
            Self::SourceRanges => "source-ranges",
            Self::SourceRangesPrerouting => "source-ranges-prerouting",
            Self::SourceRangesOutput => "source-ranges-output",
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
