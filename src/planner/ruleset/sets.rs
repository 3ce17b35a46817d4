//! The sets and maps of a table: one row declares each, and everything else is derived from it.

use super::ElementType::{self, Endpoint, Nothing, Verdict};
use super::KeyField::{self, Address, Direction, Net, Port, Protocol, Slot};
use super::SetName::{
    self, Affinity, AffinityFull, ClusterIps, ClusterIpsSticky, Denied, Endpoints, External,
    ExternalNodeports, Gone, Hairpin, NodeIps, NodeportEndpoints, Nodeports, NodeportsCluster,
    NodeportsLocal, PodCidrs, PodCidrsLocal, ServiceCidrs, Services, ServicesCluster,
    ServicesLocal, ServicesRestricted, SourceRanges, Sticky, StickyNodeports,
};
use crate::planner::model::Protocol::{Sctp, Tcp, Udp};

/// The declaration of a set or map, or of one for each protocol.
#[derive(Debug)]
pub struct SetRow {
    /// Its name, here and in the table.
    pub names: &'static [(SetName, &'static str)],
    /// The fields of its key, concatenated if there are several.
    pub key: &'static [KeyField],
    /// What its elements carry.
    pub data: ElementType,
    /// How many elements packets can add to it, which time out; `None`: packets add none.
    pub dynamic: Option<u32>,
    /// Whether each element counts the packets that match it.
    pub counter: bool,
    /// What an element says.
    pub meaning: &'static str,
}

/// How many (client, frontend) pairs are remembered, of each protocol and family. A set without a
/// size would take 65,535 (`nft_dynset` in the kernel); this one takes memory as it fills.
pub const AFFINITY_SIZE: u32 = 1 << 20;

/// A set or map that neither packets fill nor counts.
const fn row(
    names: &'static [(SetName, &'static str)],
    key: &'static [KeyField],
    data: ElementType,
    meaning: &'static str,
) -> SetRow {
    SetRow {
        names,
        key,
        data,
        dynamic: None,
        counter: false,
        meaning,
    }
}

/// Every set and map of a table, in the order of a listing. Three of a kind are one for each
/// protocol: nft knows the type of `ct original proto-dst` only where the protocol is known.
pub const SETS: &[SetRow] = &[
    row(
        &[(PodCidrs, "pod-cidrs")],
        &[Net],
        Nothing,
        "sources in this range are Pods: `--cluster-cidr`, or the Node's podCIDRs with `--detect-local-mode NodeCIDR`; in a family for which the Node has none, everything",
    ),
    row(
        &[(PodCidrsLocal, "pod-cidrs-local")],
        &[Net],
        Nothing,
        "sources in this range are Pods of this node: the Node's podCIDRs within `pod-cidrs`; `pod-cidrs` where they are not known",
    ),
    row(
        &[(NodeIps, "node-ips")],
        &[Address],
        Nothing,
        "this address serves node ports (`--nodeport-addresses`)",
    ),
    row(
        &[(ClusterIps, "cluster-ips")],
        &[Address],
        Nothing,
        "this ClusterIP is in use, without session affinity",
    ),
    row(
        &[(ClusterIpsSticky, "cluster-ips-sticky")],
        &[Address],
        Nothing,
        "this ClusterIP is in use, with session affinity",
    ),
    row(
        &[(ServiceCidrs, "service-cidrs")],
        &[Net],
        Nothing,
        "ClusterIPs are allocated from this range: the ServiceCIDR objects, neighbours merged",
    ),
    row(
        &[(Endpoints, "endpoints")],
        &[Protocol, Address, Port, Slot],
        Endpoint,
        "frontend and slot: address and port of the endpoint",
    ),
    row(
        &[(NodeportEndpoints, "endpoints-nodeports")],
        &[Protocol, Port, Slot],
        Endpoint,
        "node port and slot: address and port of the endpoint",
    ),
    SetRow {
        counter: true,
        ..row(
            &[(Services, "services")],
            &[Protocol, Address, Port],
            Verdict,
            "what happens to a new connection to this frontend: `goto pick-N` (N endpoints), `goto sticky-N` (with session affinity), `goto external-local` (external policy Local), `goto restricted` (source ranges), `goto refuse` (no endpoint), `drop` (internal policy Local, no endpoint here). Its counter counts new connections, refused and dropped ones too",
        )
    },
    SetRow {
        counter: true,
        ..row(
            &[(Nodeports, "nodeports")],
            &[Protocol, Port],
            Verdict,
            "what happens to a new connection to this node port: `goto pick-nodeport-N`, `goto sticky-nodeport-N`, `goto external-local-nodeport` or `goto refuse`. Its counter counts new connections",
        )
    },
    row(
        &[(ServicesCluster, "services-cluster")],
        &[Protocol, Address, Port],
        Verdict,
        "external policy Local: how to pick among all endpoints (slots from 65536)",
    ),
    row(
        &[(ServicesLocal, "services-local")],
        &[Protocol, Address, Port],
        Verdict,
        "external policy Local: how to pick among this node's endpoints (slots from 0), or `drop` without any",
    ),
    row(
        &[(NodeportsCluster, "nodeports-cluster")],
        &[Protocol, Port],
        Verdict,
        "as `services-cluster`, of a node port",
    ),
    row(
        &[(NodeportsLocal, "nodeports-local")],
        &[Protocol, Port],
        Verdict,
        "as `services-local`, of a node port",
    ),
    row(
        &[(ServicesRestricted, "services-restricted")],
        &[Protocol, Address, Port],
        Verdict,
        "what happens to a new connection to this load-balancer frontend from a source in its ranges",
    ),
    // A lookup costs what the first field leaves to look at (`nft_set_pipapo.c`): an address
    // leaves the few ranges of its Service, a protocol would leave those of all.
    row(
        &[(SourceRanges, "source-ranges")],
        &[Address, Protocol, Port, Net],
        Nothing,
        "load-balancer frontend and source: `loadBalancerSourceRanges` allow it",
    ),
    row(
        &[(Denied, "denied")],
        &[Direction],
        Verdict,
        "what happens to a new connection that a ClusterIP, a ServiceCIDR or source ranges do not serve: `goto deny`. An element, since the kernel takes elements away before rules when a table is deleted: a packet on its way goes on to the next table",
    ),
    SetRow {
        dynamic: Some(AFFINITY_SIZE),
        ..row(
            &[
                (Affinity(Tcp), "affinity-tcp"),
                (Affinity(Udp), "affinity-udp"),
                (Affinity(Sctp), "affinity-sctp"),
            ],
            &[Address, Address, Port],
            Endpoint,
            "client and frontend (or the node's address with the node port): the endpoint that the client had last. Packets add to it; an element times out",
        )
    },
    row(
        &[
            (Gone(Tcp), "gone-tcp"),
            (Gone(Udp), "gone-udp"),
            (Gone(Sctp), "gone-sctp"),
        ],
        &[Address, Port, Address, Port],
        Verdict,
        "frontend with session affinity (or the node's address with the node port) and an endpoint that its clients must not keep: what happens to a connection that all the same was sent there, until they are forgotten: `goto gone`, `goto gone-outside` (external policy Local: only from outside), `goto unremembered` (it is about to go)",
    ),
    SetRow {
        counter: true,
        ..row(
            &[(AffinityFull, "affinity-full")],
            &[Protocol],
            Nothing,
            "the protocol; counts the connections whose clients found its affinity map full: served, not remembered",
        )
    },
    row(
        &[
            (Sticky(Tcp), "sticky-tcp"),
            (Sticky(Udp), "sticky-udp"),
            (Sticky(Sctp), "sticky-sctp"),
        ],
        &[Address, Port],
        Verdict,
        "this frontend has session affinity: `goto learn-SECONDSs`",
    ),
    row(
        &[
            (StickyNodeports(Tcp), "sticky-nodeports-tcp"),
            (StickyNodeports(Udp), "sticky-nodeports-udp"),
            (StickyNodeports(Sctp), "sticky-nodeports-sctp"),
        ],
        &[Port],
        Verdict,
        "as `sticky-tcp`, of a node port",
    ),
    row(
        &[
            (External(Tcp), "external-tcp"),
            (External(Udp), "external-udp"),
            (External(Sctp), "external-sctp"),
        ],
        &[Address, Port],
        Verdict,
        "how connections to this external or load-balancer frontend are masqueraded: `goto to-external` (policy Cluster), `goto to-external-local` (policy Local)",
    ),
    row(
        &[
            (ExternalNodeports(Tcp), "external-nodeports-tcp"),
            (ExternalNodeports(Udp), "external-nodeports-udp"),
            (ExternalNodeports(Sctp), "external-nodeports-sctp"),
        ],
        &[Port],
        Verdict,
        "as `external-tcp`, of a node port",
    ),
    row(
        &[(Hairpin, "hairpin")],
        &[Address, Address],
        Nothing,
        "an endpoint that is or may be on this node, twice: a Pod that reaches itself is masqueraded",
    ),
];
