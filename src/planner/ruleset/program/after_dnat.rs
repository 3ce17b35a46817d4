//! The chains after DNAT, which pin clients and masquerade.

use super::{PodMatch, Program, lookup, regular, vmap};
use crate::planner::model::Protocol;
use crate::planner::ruleset::{Chain, ChainName, LookupField, Rule, SetName, Statement};

/// The destination address and port before DNAT.
const ORIGINAL: [LookupField; 2] = [LookupField::OriginalDaddr, LookupField::OriginalDport];
/// The destination port before DNAT.
const ORIGINAL_PORT: [LookupField; 1] = [LookupField::OriginalDport];

/// Returns one look-up per protocol: nft knows the type of `ct proto-dst` only with a protocol.
fn by_protocol(fields: &[LookupField], map: fn(Protocol) -> SetName) -> Vec<Rule> {
    // meta l4proto tcp ct original ip daddr . ct original proto-dst vmap @sticky-tcp
    Protocol::ALL
        .map(|protocol| vec![Statement::Protocol(protocol), vmap(fields, map(protocol))])
        .into()
}

/// Returns the chains of session affinity, which pin a client after DNAT has chosen its endpoint.
pub(super) fn session_affinity(pods: &PodMatch) -> Vec<Chain> {
    // ip saddr @pod-cidrs-local return
    let from_pods = pods
        .of_this_node()
        .map(|source| vec![source, Statement::Return]);
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

/// Returns the chains that masquerade, one for each kind of frontend.
///
/// They need no packet marks: they look up the destination before DNAT.
pub(super) fn masquerading(program: &Program) -> Vec<Chain> {
    // A Pod that connects to itself: ip saddr . ip daddr @hairpin masquerade
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
        let external = program
            .pods
            .others()
            .map(|others| vec![others, Statement::Masquerade]);
        external.into_iter().chain([hairpin()]).collect()
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

/// Returns the rule that ignores connections without DNAT: `ct status & dnat != dnat return`.
fn untranslated() -> Rule {
    vec![Statement::CtStatusNotDnat, Statement::Return]
}

/// Returns the rules for connections that leave the node: pin the client, then masquerade.
///
/// Frontends at addresses take precedence over node ports.
pub(super) fn postrouting() -> Vec<Rule> {
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

/// Returns the rules for connections to an endpoint on the node itself: pin the client.
///
/// The kernel cannot masquerade at this hook, and such connections do not need it.
pub(super) fn input() -> Vec<Rule> {
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
