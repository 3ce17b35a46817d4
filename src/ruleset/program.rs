//! The fixed program: the chains that every packet goes through, whatever the cluster holds.
//!
//! The rule in words stands above each rule; `../docs/ruleset.md` says what may be relied upon.

use super::{Chain, ChainName, ChainType, Field, Hook, Rule, SetName, Statement};
use crate::model::Protocol;

/// Netfilter's priorities of the hooks we use (`include/uapi/linux/netfilter_ipv4.h`).
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

/// What the fixed chains depend on; it changes only with the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Whether we know which sources are Pods (`@pod-cidrs`). Without it nothing that goes to a
    /// `ClusterIP` is masqueraded, as kube-proxy has it without a local-traffic detector.
    pub knows_pods: bool,
}

/// The fixed chains, each before the chains that call it.
#[must_use]
pub fn program(program: Program) -> Vec<Chain> {
    vec![
        services(),
        base(
            ChainName::NatPrerouting,
            ChainType::Nat,
            Hook::Prerouting,
            DSTNAT,
            dispatch(),
        ),
        base(
            ChainName::NatOutput,
            ChainType::Nat,
            Hook::Output,
            DSTNAT,
            dispatch(),
        ),
        base(
            ChainName::NatPostrouting,
            ChainType::Nat,
            Hook::Postrouting,
            SRCNAT,
            masquerade(program),
        ),
        refuse(),
        no_endpoints(),
        cluster_ips(),
        base(
            ChainName::FilterInput,
            ChainType::Filter,
            Hook::Input,
            FILTER,
            vec![new_connections(ChainName::NoEndpoints)],
        ),
        base(
            ChainName::FilterForward,
            ChainType::Filter,
            Hook::Forward,
            FILTER,
            refusals(),
        ),
        base(
            ChainName::FilterOutput,
            ChainType::Filter,
            Hook::Output,
            FILTER,
            refusals(),
        ),
    ]
}

fn base(name: ChainName, kind: ChainType, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        hook: Some((kind, hook, priority)),
        rules,
    }
}

fn regular(name: ChainName, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        hook: None,
        rules,
    }
}

const FRONTEND: [Field; 3] = [Field::Protocol, Field::Daddr, Field::Dport];
const NODEPORT: [Field; 2] = [Field::Protocol, Field::Dport];

fn lookup(fields: &[Field], set: SetName) -> Statement {
    Statement::Lookup {
        fields: fields.to_vec(),
        set,
        inverted: false,
    }
}

fn vmap(fields: &[Field], map: SetName) -> Statement {
    Statement::Vmap {
        fields: fields.to_vec(),
        map,
    }
}

fn services() -> Chain {
    regular(
        ChainName::Services,
        vec![
            // meta l4proto . ip daddr . th dport vmap @services
            vec![vmap(&FRONTEND, SetName::Services)],
            // ip daddr @node-ips meta l4proto . th dport vmap @nodeports
            vec![
                lookup(&[Field::Daddr], SetName::NodeIps),
                vmap(&NODEPORT, SetName::Nodeports),
            ],
        ],
    )
}

fn dispatch() -> Vec<Rule> {
    vec![vec![Statement::Jump(ChainName::Services)]]
}

/// Who is masqueraded, decided without packet marks from what the connection was first sent to.
fn masquerade(program: Program) -> Vec<Rule> {
    let mut rules = vec![
        // ct status & dnat != dnat return
        vec![Statement::NotDnat, Statement::Return],
        // A Pod that drew itself: ip saddr . ip daddr @hairpin masquerade
        vec![
            lookup(&[Field::Saddr, Field::Daddr], SetName::Hairpin),
            Statement::Masquerade,
        ],
    ];
    if program.knows_pods {
        // ip saddr != @pod-cidrs ct original ip daddr @cluster-ips masquerade
        rules.push(vec![
            Statement::Lookup {
                fields: vec![Field::Saddr],
                set: SetName::PodCidrs,
                inverted: true,
            },
            lookup(&[Field::OriginalDaddr], SetName::ClusterIps),
            Statement::Masquerade,
        ]);
    }
    // One rule a protocol: nft types `ct proto-dst` only where the protocol is known.
    rules.extend(Protocol::ALL.map(|protocol| {
        // meta l4proto tcp ct original ip daddr . ct original proto-dst @masquerade-tcp masquerade
        vec![
            Statement::Protocol(protocol),
            lookup(
                &[Field::OriginalDaddr, Field::OriginalDport],
                SetName::Masquerade(protocol),
            ),
            Statement::Masquerade,
        ]
    }));
    rules.extend(Protocol::ALL.map(|protocol| {
        // ct original ip daddr @node-ips meta l4proto tcp ct original proto-dst
        // @masquerade-nodeport-tcp masquerade
        vec![
            lookup(&[Field::OriginalDaddr], SetName::NodeIps),
            Statement::Protocol(protocol),
            lookup(
                &[Field::OriginalDport],
                SetName::MasqueradeNodeport(protocol),
            ),
            Statement::Masquerade,
        ]
    }));
    rules
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

fn no_endpoints() -> Chain {
    regular(
        ChainName::NoEndpoints,
        vec![
            vec![vmap(&FRONTEND, SetName::NoEndpoints)],
            vec![
                lookup(&[Field::Daddr], SetName::NodeIps),
                vmap(&NODEPORT, SetName::NoEndpointsNodeports),
            ],
        ],
    )
}

/// What is still addressed to a `ClusterIP` after DNAT met no frontend. A live `ClusterIP` refuses
/// it, an address that no Service has is silent.
fn cluster_ips() -> Chain {
    regular(
        ChainName::ClusterIps,
        vec![
            vec![
                lookup(&[Field::Daddr], SetName::ClusterIps),
                Statement::Goto(ChainName::Refuse),
            ],
            vec![
                lookup(&[Field::Daddr], SetName::ServiceCidrs),
                Statement::Drop,
            ],
        ],
    )
}

/// Only new connections are ever refused: what is untracked (`NodeLocal` DNSCache), established or
/// invalid passes.
fn new_connections(chain: ChainName) -> Rule {
    vec![Statement::New, Statement::Jump(chain)]
}

fn refusals() -> Vec<Rule> {
    vec![
        new_connections(ChainName::NoEndpoints),
        new_connections(ChainName::ClusterIps),
    ]
}
