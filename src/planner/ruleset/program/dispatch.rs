//! The chains that choose the endpoint of a connection or deny it.

use super::{PodMatch, Program, lookup, regular, vmap};
use crate::planner::ruleset::{Chain, ChainName, LookupField, Rule, SetName, Statement};

/// The key of a frontend at an address.
const FRONTEND: [LookupField; 3] = [
    LookupField::Protocol,
    LookupField::Daddr,
    LookupField::Dport,
];
/// The key of a node port.
const NODEPORT: [LookupField; 2] = [LookupField::Protocol, LookupField::Dport];

/// The key of an address with port ranges.
const RANGES: [LookupField; 2] = [LookupField::Protocol, LookupField::Daddr];

/// Returns the chains from a frontend to the choice of its endpoint, or to a rejection.
pub(super) fn dispatch(program: &Program) -> Vec<Chain> {
    let pods = &program.pods;
    let frontends = [SetName::ServicesCluster, SetName::ServicesLocal];
    let nodeports = [SetName::NodeportsCluster, SetName::NodeportsLocal];
    let ranges = [SetName::RangesCluster, SetName::RangesLocal];
    vec![
        refuse(),
        deny(),
        regular(
            ChainName::ExternalLocal,
            external_local(pods, &FRONTEND, frontends),
        ),
        regular(
            ChainName::ExternalLocalNodeport,
            external_local(pods, &NODEPORT, nodeports),
        ),
        regular(
            ChainName::ExternalLocalRange,
            external_local(pods, &RANGES, ranges),
        ),
        restricted(),
        unserved(),
        unserved_load_balancer(),
        services(),
    ]
}

/// Returns the chain that looks up frontends and node ports.
fn services() -> Chain {
    regular(
        ChainName::Services,
        vec![
            // meta l4proto . ip daddr . th dport vmap @services
            vec![vmap(&FRONTEND, SetName::Services)],
            // ip daddr @node-ips meta l4proto . th dport vmap @nodeports
            vec![
                lookup(&[LookupField::Daddr], SetName::NodeIps),
                vmap(&NODEPORT, SetName::Nodeports),
            ],
        ],
    )
}

/// The sets with all `ClusterIPs`.
///
/// Those without session affinity have a set of their own, so that their connections, which are
/// most of all, need no look-up for affinity at postrouting.
const CLUSTER_IPS: [SetName; 2] = [SetName::ClusterIps, SetName::ClusterIpsSticky];

/// Returns the rules for connections to `ClusterIPs` and their ranges that no chain has translated.
pub(super) fn unserved_hook(program: &Program) -> Vec<Rule> {
    let to = |set, chain| vec![lookup(&[LookupField::Daddr], set), Statement::Goto(chain)];
    // ip daddr @cluster-ips goto unserved; ip daddr @cluster-ips-sticky goto unserved
    let cluster_ips = CLUSTER_IPS.map(|set| to(set, ChainName::Unserved));
    // ip daddr @load-balancer-ips goto unserved-load-balancer
    let load_balancer_ips = program
        .refuse_load_balancer_ports
        .then(|| to(SetName::LoadBalancerIps, ChainName::UnservedLoadBalancer));
    // ip daddr @service-cidrs goto unserved
    let service_cidrs = to(SetName::ServiceCidrs, ChainName::Unserved);
    cluster_ips
        .into_iter()
        .chain(load_balancer_ips)
        .chain([service_cidrs])
        .collect()
}

/// Returns the chain that denies connections to a `ClusterIP`, with two exceptions.
///
/// An address of the node itself (`NodeLocal` DNSCache) is served by the node. A retransmitted SYN
/// may have a conntrack entry from before the first start, which no rule translates until it is
/// deleted; such a connection must not be rejected.
fn unserved() -> Chain {
    let [confirmed, local] = exempt();
    regular(ChainName::Unserved, vec![confirmed, local, denied()])
}

/// Returns the chain that rejects connections to a load-balancer IP, with the same exceptions.
///
/// Without it, such a packet leaves by the default route, whose router sends it back, until its TTL
/// is 0. Source ranges do not matter: no Service has the port.
fn unserved_load_balancer() -> Chain {
    let [confirmed, local] = exempt();
    let refuse = vec![Statement::Goto(ChainName::Refuse)];
    regular(
        ChainName::UnservedLoadBalancer,
        vec![confirmed, local, refuse],
    )
}

/// Returns the rules that leave packets of earlier connections and to addresses of the node alone.
fn exempt() -> [Rule; 2] {
    [
        // ct status confirmed return
        vec![Statement::CtStatusConfirmed, Statement::Return],
        // fib daddr type local return
        vec![Statement::DestinationIsLocal, Statement::Return],
    ]
}

/// Returns the rule `ct direction vmap @denied` for connections that no element serves.
///
/// While the table is deleted or replaced, a packet between two rules finds empty maps but still
/// the rules (`nft_set_elem_active` uses the new generation at once). Such a packet must not be
/// rejected: the next table serves it.
fn denied() -> Rule {
    vec![vmap(&[LookupField::Direction], SetName::Denied)]
}

/// Returns the chain that rejects connections to a `ClusterIP` in use and drops all others.
fn deny() -> Chain {
    // ip daddr @cluster-ips goto refuse
    let rejected = CLUSTER_IPS.map(|set| {
        vec![
            lookup(&[LookupField::Daddr], set),
            Statement::Goto(ChainName::Refuse),
        ]
    });
    let rules = rejected.into_iter().chain([vec![Statement::Drop]]);
    regular(ChainName::Deny, rules.collect())
}

/// Returns the rules for external policy Local.
///
/// This node's Pods and the node itself reach every endpoint, other sources only local ones, or the
/// element drops. Pods of other nodes count as external: an endpoint on another node would answer
/// them directly, unless they were masqueraded.
fn external_local(
    pods: &PodMatch,
    key: &[LookupField],
    [cluster, local]: [SetName; 2],
) -> Vec<Rule> {
    // ip saddr @pod-cidrs-local meta l4proto . ip daddr . th dport vmap @services-cluster
    let from_pods = pods
        .of_this_node()
        .map(|source| vec![source, vmap(key, cluster)]);
    from_pods
        .into_iter()
        .chain([
            // fib saddr type local meta l4proto . ip daddr . th dport vmap @services-cluster
            vec![Statement::SourceIsLocal, vmap(key, cluster)],
            // meta l4proto . ip daddr . th dport vmap @services-local
            vec![vmap(key, local)],
        ])
        .collect()
}

/// Returns the chain for frontends with `loadBalancerSourceRanges`, which denies other sources.
fn restricted() -> Chain {
    let source = [
        LookupField::Daddr,
        LookupField::Protocol,
        LookupField::Dport,
        LookupField::Saddr,
    ];
    regular(
        ChainName::Restricted,
        vec![
            // ip daddr . meta l4proto . th dport . ip saddr @source-ranges
            //   meta l4proto . ip daddr . th dport vmap @services-restricted
            vec![
                lookup(&source, SetName::SourceRanges),
                vmap(&FRONTEND, SetName::ServicesRestricted),
            ],
            // meta l4proto . ip daddr . th dport vmap @services-denied
            vec![vmap(&FRONTEND, SetName::ServicesDenied)],
            // For a packet between two rules while a commit removes the ranges.
            denied(),
        ],
    )
}

/// Returns the chain that rejects a connection, TCP with a RST.
///
/// A RST is not subject to ICMP rate limits and filters, and in IPv6 an ICMP error is lost while
/// `connect()` holds the socket. The client gets ECONNREFUSED in both cases.
fn refuse() -> Chain {
    regular(
        ChainName::Refuse,
        vec![vec![Statement::RejectTcp], vec![Statement::Reject]],
    )
}
