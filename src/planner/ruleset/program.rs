//! The fixed program: the chains that every packet goes through, whatever the cluster holds.
//!
//! The rule in words stands above each rule; `../docs/ruleset.md` says what may be relied upon.

use super::{
    Chain, ChainName, DynamicChain, Hook, Interface, LookupField, Rule, Set, SetName, Statement,
    set,
};
use crate::planner::model::Protocol;

/// The priority of the chains that send connections to endpoints. One before the standard -100
/// (`include/uapi/linux/netfilter_ipv4.h`): of two chains that would translate a connection the first
/// does (`nf_nat_inet_fn`), and as long as kube-proxy's are there too it must be ours.
pub const DSTNAT: i32 = -101;

/// The priority of the chains that deny what no Service has. After the standard -100, so that another
/// program that serves an address of a ServiceCIDR (`service.kubernetes.io/service-proxy-name`) comes
/// before: the kernel asks no further chain once a connection is translated (`nf_nat_inet_fn`).
const AFTER_DSTNAT: i32 = -90;

/// The priority of the chains that remember clients and masquerade. One before the standard 100: what
/// another program translates first could not be remembered.
const SRCNAT: i32 = 99;

/// How we know that a source is a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PodMatch {
    /// We do not. Then nothing that goes to a `ClusterIP` is masqueraded, as kube-proxy has it
    /// without a local-traffic detector.
    #[default]
    Unknown,
    /// By its address: `@pod-cidrs`, and of this node `@pod-cidrs-local`.
    Cidrs,
    /// By the interface that its first packet came in by; what the node makes itself has none.
    Interface(Interface),
}

/// The options of the fixed chains; they change only with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// How we know Pods.
    pub pods: PodMatch,
    /// Whether all that goes to a `ClusterIP` is masqueraded (`--masquerade-all`).
    pub masquerade_all: bool,
    /// Whether the elements of frontends count connections (`--connection-counters`).
    pub counters: bool,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            pods: PodMatch::default(),
            masquerade_all: false,
            counters: true,
        }
    }
}

impl Program {
    /// Returns the declaration of a set.
    #[must_use]
    pub fn set(&self, name: SetName) -> Set {
        let declared = set(name);
        let of_connections = matches!(name, SetName::Services | SetName::Nodeports);
        Set {
            counter: declared.counter && (self.counters || !of_connections),
            ..declared
        }
    }
}

impl PodMatch {
    /// The match on all but Pods; `None` if we do not know them.
    fn others(&self) -> Option<Statement> {
        self.matched(SetName::PodCidrs, true)
    }

    /// The match on Pods of this node; `None` if we do not know them.
    fn of_this_node(&self) -> Option<Statement> {
        self.matched(SetName::PodCidrsLocal, false)
    }

    fn matched(&self, set: SetName, inverted: bool) -> Option<Statement> {
        match self {
            Self::Unknown => None,
            Self::Cidrs => Some(Statement::Lookup {
                fields: vec![LookupField::Saddr],
                set,
                inverted,
            }),
            Self::Interface(interface) => Some(Statement::InputInterface {
                interface: interface.clone(),
                inverted,
            }),
        }
    }
}

/// The fixed chains, each before the chains that call it.
#[must_use]
pub fn program(program: &Program) -> Vec<Chain> {
    let chains = [
        DynamicChain::initial().map(DynamicChain::chain).collect(),
        dispatch(&program.pods),
        session_affinity(&program.pods),
        masquerading(program),
        base_chains(),
    ];
    chains.into_iter().flatten().collect()
}

fn regular(name: ChainName, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        hook: None,
        rules,
    }
}

fn base_chains() -> Vec<Chain> {
    let base = |name, hook, priority, rules| Chain {
        name,
        hook: Some((hook, priority)),
        rules,
    };
    let services = || vec![vec![Statement::Jump(ChainName::Services)]];
    vec![
        base(
            ChainName::NatPrerouting,
            Hook::Prerouting,
            DSTNAT,
            services(),
        ),
        base(ChainName::NatOutput, Hook::Output, DSTNAT, services()),
        base(
            ChainName::NatPreroutingUnserved,
            Hook::Prerouting,
            AFTER_DSTNAT,
            unserved(),
        ),
        base(
            ChainName::NatOutputUnserved,
            Hook::Output,
            AFTER_DSTNAT,
            unserved(),
        ),
        base(ChainName::NatInput, Hook::Input, SRCNAT, input()),
        base(
            ChainName::NatPostrouting,
            Hook::Postrouting,
            SRCNAT,
            postrouting(),
        ),
    ]
}

const FRONTEND: [LookupField; 3] = [
    LookupField::Protocol,
    LookupField::Daddr,
    LookupField::Dport,
];
const NODEPORT: [LookupField; 2] = [LookupField::Protocol, LookupField::Dport];

fn lookup(fields: &[LookupField], set: SetName) -> Statement {
    Statement::Lookup {
        fields: fields.to_vec(),
        set,
        inverted: false,
    }
}

fn vmap(fields: &[LookupField], map: SetName) -> Statement {
    Statement::Vmap {
        fields: fields.to_vec(),
        map,
    }
}

/// From a frontend to how its endpoint is picked, or to a refusal.
fn dispatch(pods: &PodMatch) -> Vec<Chain> {
    let frontends = [SetName::ServicesCluster, SetName::ServicesLocal];
    let nodeports = [SetName::NodeportsCluster, SetName::NodeportsLocal];
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
        restricted(),
        unless_local(),
        services(),
    ]
}

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

/// The sets that hold all `ClusterIPs`. Those without session affinity have one of their own, so that
/// their connections, which are the most, need no look-up for it at postrouting.
const CLUSTER_IPS: [SetName; 2] = [SetName::ClusterIps, SetName::ClusterIpsSticky];

/// What is addressed to a `ClusterIP`, or into a range of them, and nobody translated.
fn unserved() -> Vec<Rule> {
    // ip daddr @cluster-ips goto unserved; ip daddr @service-cidrs goto unserved
    let sets = CLUSTER_IPS.into_iter().chain([SetName::ServiceCidrs]);
    let rules = sets.map(|set| {
        vec![
            lookup(&[LookupField::Daddr], set),
            Statement::Goto(ChainName::Unserved),
        ]
    });
    rules.collect()
}

/// A `ClusterIP` in use refuses other ports and protocols; an address that no Service has is silent.
/// An address that the node itself holds (`NodeLocal` DNSCache) is its own affair. A SYN that is sent again
/// may meet its entry from before the first start, which nothing translates until it is deleted: that is
/// no reason to refuse what is served.
fn unless_local() -> Chain {
    regular(
        ChainName::Unserved,
        vec![
            // ct status confirmed return
            vec![Statement::Confirmed, Statement::Return],
            // fib daddr type local return
            vec![Statement::DestinationIsLocal, Statement::Return],
            denied(),
        ],
    )
}

/// ct direction vmap @denied, for what no element serves. When the table is deleted or replaced, a packet
/// that is between two rules finds the maps empty and the rules still there (`nft_set_elem_active`
/// goes by the new generation at once). It must not be refused then: what comes after serves it.
fn denied() -> Rule {
    vec![vmap(&[LookupField::Direction], SetName::Denied)]
}

fn deny() -> Chain {
    // ip daddr @cluster-ips goto refuse
    let refused = CLUSTER_IPS.map(|set| {
        vec![
            lookup(&[LookupField::Daddr], set),
            Statement::Goto(ChainName::Refuse),
        ]
    });
    let rules = refused.into_iter().chain([vec![Statement::Drop]]);
    regular(ChainName::Deny, rules.collect())
}

/// External policy Local: this node's Pods and the node itself reach every endpoint, everyone else only
/// this node's, or the element drops. An endpoint elsewhere answers a Pod of another node directly,
/// so it would have to be masqueraded.
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

/// `loadBalancerSourceRanges`: only frontends that have them come here. Another source is dropped.
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
            denied(),
        ],
    )
}

/// A RST instead of ICMP for TCP: no ICMP rate limit, no ICMP filter, and under IPv6 an ICMP
/// refusal is lost while `connect()` still holds the socket. The client sees ECONNREFUSED either
/// way.
fn refuse() -> Chain {
    regular(
        ChainName::Refuse,
        vec![vec![Statement::RejectTcp], vec![Statement::Reject]],
    )
}

/// The address and the port that the connection was first sent to.
const ORIGINAL: [LookupField; 2] = [LookupField::OriginalDaddr, LookupField::OriginalDport];
const ORIGINAL_PORT: [LookupField; 1] = [LookupField::OriginalDport];

/// One rule a protocol: nft types `ct proto-dst` only where the protocol is known.
fn by_protocol(fields: &[LookupField], map: fn(Protocol) -> SetName) -> Vec<Rule> {
    // meta l4proto tcp ct original ip daddr . ct original proto-dst vmap @sticky-tcp
    let rules = Protocol::ALL
        .map(|protocol| vec![Statement::Protocol(protocol), vmap(fields, map(protocol))]);
    rules.into()
}

/// Session affinity is learned after DNAT: from what the connection was first sent to, and from
/// where it goes now.
fn session_affinity(pods: &PodMatch) -> Vec<Chain> {
    // ip saddr @pod-cidrs-local return
    let from_pods = pods.of_this_node();
    let from_pods = from_pods.map(|source| vec![source, Statement::Return]);
    let gone_outside = from_pods.into_iter().chain([
        // fib saddr type local return
        vec![Statement::SourceIsLocal, Statement::Return],
        vec![Statement::Drop],
    ]);
    vec![
        regular(ChainName::Unremembered, Vec::new()),
        regular(ChainName::GoneOutside, gone_outside.collect()),
        regular(ChainName::Affinity, by_protocol(&ORIGINAL, SetName::Sticky)),
        regular(
            ChainName::AffinityNodeport,
            by_protocol(&ORIGINAL_PORT, SetName::StickyNodeports),
        ),
    ]
}

/// Who is masqueraded, decided without packet marks from what the connection was first sent to. Each
/// chain is the whole answer for its kind of frontend.
fn masquerading(program: &Program) -> Vec<Chain> {
    // A Pod that drew itself: ip saddr . ip daddr @hairpin masquerade
    let hairpin = || {
        vec![
            lookup(&[LookupField::Saddr, LookupField::Daddr], SetName::Hairpin),
            Statement::Masquerade,
        ]
    };
    let to_cluster_ip = if program.masquerade_all {
        vec![vec![Statement::Masquerade]]
    } else {
        // ip saddr != @pod-cidrs masquerade
        let others = program.pods.others();
        let others = others.map(|others| vec![others, Statement::Masquerade]);
        others.into_iter().chain([hairpin()]).collect()
    };
    let to_external_local = vec![
        // fib saddr type local masquerade
        vec![Statement::SourceIsLocal, Statement::Masquerade],
        hairpin(),
    ];
    let to_nodeport = [vec![vec![Statement::Jump(ChainName::AffinityNodeport)]]]
        .into_iter()
        .chain([by_protocol(&ORIGINAL_PORT, SetName::ExternalNodeports)])
        .flatten()
        .collect();
    vec![
        regular(ChainName::ToClusterIp, to_cluster_ip),
        regular(ChainName::ToExternal, vec![vec![Statement::Masquerade]]),
        regular(ChainName::ToExternalLocal, to_external_local),
        regular(ChainName::ToNodeport, to_nodeport),
    ]
}

/// What was not translated is not ours: ct status & dnat != dnat return
fn untranslated() -> Rule {
    vec![Statement::NotDnat, Statement::Return]
}

/// Connections that leave: remember the client, then masquerade. Address frontends come before node
/// ports, and are final.
fn postrouting() -> Vec<Rule> {
    // ct original ip daddr @cluster-ips goto to-cluster-ip
    let to_cluster_ip = |set| {
        vec![
            lookup(&[LookupField::OriginalDaddr], set),
            Statement::Goto(ChainName::ToClusterIp),
        ]
    };
    let mut rules = vec![
        untranslated(),
        to_cluster_ip(SetName::ClusterIps),
        vec![Statement::Jump(ChainName::Affinity)],
        to_cluster_ip(SetName::ClusterIpsSticky),
    ];
    rules.extend(by_protocol(&ORIGINAL, SetName::External));
    // ct original ip daddr @node-ips goto to-nodeport
    rules.push(vec![
        lookup(&[LookupField::OriginalDaddr], SetName::NodeIps),
        Statement::Goto(ChainName::ToNodeport),
    ]);
    rules
}

/// Connections to an endpoint on the node itself: remember the client. The kernel cannot masquerade
/// here, and need not.
fn input() -> Vec<Rule> {
    vec![
        untranslated(),
        vec![Statement::Jump(ChainName::Affinity)],
        // ct original ip daddr @node-ips goto affinity-nodeport
        vec![
            lookup(&[LookupField::OriginalDaddr], SetName::NodeIps),
            Statement::Goto(ChainName::AffinityNodeport),
        ],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_chains_are_called_by_the_kernel() {
        // Their type is nat (`netlink::encode`): an established packet meets none of them.
        let chains = program(&Program::default());
        let hooks: Vec<_> = chains.iter().filter_map(|chain| chain.hook).collect();
        assert_eq!(
            hooks,
            [
                (Hook::Prerouting, -101),
                (Hook::Output, -101),
                (Hook::Prerouting, -90),
                (Hook::Output, -90),
                (Hook::Input, 99),
                (Hook::Postrouting, 99)
            ]
        );
    }
}
