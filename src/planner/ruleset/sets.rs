//! The declarations of all sets and maps.

use super::ElementType::{self, Endpoint, Nothing, Verdict};
use super::KeyField::{self, Address, Direction, Net, Port, PortRange, Protocol, Slot};
use super::SetName::{
    self, Affinity, AffinityFull, CloseRemoved, CloseRemovedNodeports, ClusterIps,
    ClusterIpsSticky, Denied, Endpoints, External, ExternalNodeports, ExternalRanges, Gone,
    Hairpin, LoadBalancerIps, NodeIps, NodeportEndpoints, Nodeports, NodeportsCluster,
    NodeportsLocal, PodCidrs, PodCidrsLocal, PortRanges, RangeEndpoints, Ranges, RangesCluster,
    RangesLocal, ServiceCidrs, Services, ServicesCluster, ServicesDenied, ServicesLocal,
    ServicesRestricted, SourceRanges, Sticky, StickyNodeports,
};
use super::TcpPickup::{Loose, Strict};
use crate::planner::model::Protocol::{Sctp, Tcp, Udp};

/// The declaration of a set or map, or of three that differ in their protocol.
#[derive(Debug)]
pub struct SetRow {
    /// The names of the sets, here and in the table.
    pub names: &'static [(SetName, &'static str)],
    /// The fields of the key; several fields are a concatenation.
    pub key: &'static [KeyField],
    /// The type of the values.
    pub data: ElementType,
    /// The maximum number of elements, which packets add and which time out; `None`: not dynamic.
    pub dynamic: Option<u32>,
    /// Whether each element has a packet counter.
    pub counter: bool,
    /// The meaning of an element, for `docs/ruleset.md`.
    pub meaning: &'static str,
}

/// The maximum number of pinned clients of each protocol and family.
///
/// The kernel's default is 65,535 (`nft_dynset`). The map allocates memory as it grows.
pub const AFFINITY_SIZE: u32 = 1 << 20;

/// Returns the declaration of a set or map that is not dynamic and has no counters.
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

/// All sets and maps of a table, in the order of a listing.
///
/// Some exist once per protocol: nft knows the type of `ct original proto-dst` only in a rule that
/// matches a protocol.
pub const SETS: &[SetRow] = &[
    row(
        &[(PodCidrs, "pod-cidrs")],
        &[Net],
        Nothing,
        "sources in this range are Pods: `--cluster-cidr`, or the Node's podCIDRs with `--detect-local-mode NodeCIDR`; all addresses in a family for which the Node has none",
    ),
    row(
        &[(PodCidrsLocal, "pod-cidrs-local")],
        &[Net],
        Nothing,
        "sources in this range are Pods of this node: the Node's podCIDRs within `pod-cidrs`; `pod-cidrs` if they are not known",
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
        &[(LoadBalancerIps, "load-balancer-ips")],
        &[Address],
        Nothing,
        "this load-balancer IP is in use, and its other ports are refused (`--refuse-unserved-load-balancer-ports`)",
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
    row(
        &[(RangeEndpoints, "endpoints-ranges")],
        &[Protocol, Address, Slot],
        ElementType::Address,
        "address with port ranges and slot: address of the endpoint; the port stays",
    ),
    SetRow {
        counter: true,
        ..row(
            &[(Services, "services")],
            &[Protocol, Address, Port],
            Verdict,
            "the verdict for a new connection to this frontend: `goto pick-N` (N slots), `goto sticky-N` (with session affinity), `goto maglev-N` and `goto source-N` (a hash selects the slot), `goto external-local` (external policy Local), `goto restricted` (source ranges), `goto refuse` (no endpoint), `drop` (internal policy Local, no local endpoint). The counter counts new connections, including rejected and dropped ones",
        )
    },
    SetRow {
        counter: true,
        ..row(
            &[(Nodeports, "nodeports")],
            &[Protocol, Port],
            Verdict,
            "the verdict for a new connection to this node port: `goto pick-nodeport-N`, `goto sticky-nodeport-N`, `goto maglev-nodeport-N`, `goto source-nodeport-N`, `goto external-local-nodeport` or `goto refuse`. The counter counts new connections",
        )
    },
    row(
        &[(ServicesCluster, "services-cluster")],
        &[Protocol, Address, Port],
        Verdict,
        "external policy Local: the chain that picks one of all endpoints (slots from 65536)",
    ),
    SetRow {
        counter: true,
        ..row(
            &[(ServicesLocal, "services-local")],
            &[Protocol, Address, Port],
            Verdict,
            "external policy Local: the chain that picks one of this node's endpoints (slots from 0), or `drop` if there is none (`goto refuse` with `external-local-without-endpoints: reject`). The counter counts the new connections of other sources than Pods of this node and the node itself",
        )
    },
    row(
        &[(NodeportsCluster, "nodeports-cluster")],
        &[Protocol, Port],
        Verdict,
        "like `services-cluster`, for a node port",
    ),
    SetRow {
        counter: true,
        ..row(
            &[(NodeportsLocal, "nodeports-local")],
            &[Protocol, Port],
            Verdict,
            "like `services-local`, for a node port",
        )
    },
    SetRow {
        counter: true,
        ..row(
            &[(ServicesRestricted, "services-restricted")],
            &[Protocol, Address, Port],
            Verdict,
            "the verdict for a new connection to this load-balancer frontend from a source in its ranges. The counter counts these connections",
        )
    },
    SetRow {
        counter: true,
        ..row(
            &[(ServicesDenied, "services-denied")],
            &[Protocol, Address, Port],
            Verdict,
            "the verdict for a new connection to this load-balancer frontend from any other source: `goto deny`. The counter counts these connections",
        )
    },
    // The cost of a lookup depends on how many elements match the first field (`nft_set_pipapo.c`):
    // an address matches the few ranges of its Service, a protocol would match those of all.
    row(
        &[(SourceRanges, "source-ranges")],
        &[Address, Protocol, Port, Net],
        Nothing,
        "load-balancer frontend and a range of sources that `loadBalancerSourceRanges` allow",
    ),
    row(
        &[(PortRanges, "port-ranges")],
        &[Address, Protocol, PortRange],
        Nothing,
        "this address serves these ports (`kube-dnat.io/port-ranges`), except those in `services`",
    ),
    SetRow {
        counter: true,
        ..row(
            &[(Ranges, "ranges")],
            &[Protocol, Address],
            Verdict,
            "the verdict for a new connection to a port in the ranges of this address: `goto source-range-N` (a hash of the source address selects one of N slots), `goto external-local-range` (external policy Local), `goto refuse` or `drop`, as in `services`. The counter counts new connections",
        )
    },
    row(
        &[(RangesCluster, "ranges-cluster")],
        &[Protocol, Address],
        Verdict,
        "like `services-cluster`, for port ranges",
    ),
    SetRow {
        counter: true,
        ..row(
            &[(RangesLocal, "ranges-local")],
            &[Protocol, Address],
            Verdict,
            "like `services-local`, for port ranges",
        )
    },
    row(
        &[(Denied, "denied")],
        &[Direction],
        Verdict,
        "the verdict for a new connection that a ClusterIP or a ServiceCIDR does not serve, or whose source ranges a commit just removed: `goto deny`. It is an element because the kernel removes elements before rules when a table is deleted: a packet that is being evaluated then continues to the next table",
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
            "client and frontend (or the node's address with the node port): the endpoint that the client is pinned to. Packets add elements, which time out",
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
        "frontend with session affinity (or the node's address with the node port) and an endpoint that its clients must not keep: the verdict for a connection to it until the clients are forgotten: `goto gone`, `goto gone-outside` (external policy Local: only external clients), `goto unremembered` (the endpoint is about to be removed)",
    ),
    SetRow {
        counter: true,
        ..row(
            &[(AffinityFull, "affinity-full")],
            &[Protocol],
            Nothing,
            "the protocol; counts connections whose clients found its affinity map full: they are balanced without affinity",
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
        "like `sticky-tcp`, for a node port",
    ),
    row(
        &[
            (External(Tcp), "external-tcp"),
            (External(Udp), "external-udp"),
            (External(Sctp), "external-sctp"),
        ],
        &[Address, Port],
        Verdict,
        "the masquerading of connections to this external or load-balancer frontend: `goto to-external` (policy Cluster), `goto to-external-local` (policy Local)",
    ),
    row(
        &[
            (ExternalNodeports(Tcp), "external-nodeports-tcp"),
            (ExternalNodeports(Udp), "external-nodeports-udp"),
            (ExternalNodeports(Sctp), "external-nodeports-sctp"),
        ],
        &[Port],
        Verdict,
        "like `external-tcp`, for a node port",
    ),
    row(
        &[(ExternalRanges, "external-ranges")],
        &[Protocol, Address],
        Verdict,
        "like `external-tcp`, for the port ranges of this address",
    ),
    row(
        &[(CloseRemoved(Loose), "close-removed")],
        &[Address, Port],
        Nothing,
        "connections to removed endpoints of this TCP frontend are closed (`kube-dnat.io/close-removed`), with `nf_conntrack_tcp_loose` 1",
    ),
    row(
        &[(CloseRemovedNodeports(Loose), "close-removed-nodeports")],
        &[Port],
        Nothing,
        "like `close-removed`, for a node port",
    ),
    row(
        &[(CloseRemoved(Strict), "close-removed-strict")],
        &[Address, Port],
        Nothing,
        "like `close-removed`, with `nf_conntrack_tcp_loose` 0",
    ),
    row(
        &[(
            CloseRemovedNodeports(Strict),
            "close-removed-strict-nodeports",
        )],
        &[Port],
        Nothing,
        "like `close-removed-strict`, for a node port",
    ),
    row(
        &[(Hairpin, "hairpin")],
        &[Address, Address],
        Nothing,
        "an endpoint that is or may be on this node, twice: hairpin connections are masqueraded",
    ),
];
