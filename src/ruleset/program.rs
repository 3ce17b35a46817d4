//! The fixed program: the chains that every packet goes through, whatever the cluster holds.
//!
//! The rule in words stands above each rule; `../docs/ruleset.md` says what may be relied upon.

use super::{
    Chain, ChainName, ChainType, Field, Hook, Interface, Rule, Set, SetName, Statement, set,
};
use crate::model::Protocol;

/// Netfilter's priorities of the hooks we use (`include/uapi/linux/netfilter_ipv4.h`).
const BEFORE_DSTNAT: i32 = -110;
/// The priority of our nat chains that translate. One before the standard -100: of two chains that would translate a connection the first does
/// (`nf_nat_inet_fn`), and as long as kube-proxy's are there too it must be ours.
pub const DSTNAT: i32 = -101;
const AFTER_DSTNAT: i32 = -99;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

/// How we know that a source is one of this node's Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pods {
    /// We do not. Then nothing that goes to a `ClusterIP` is masqueraded, as kube-proxy has it
    /// without a local-traffic detector.
    #[default]
    Unknown,
    /// By its address: `@pod-cidrs`.
    Cidrs,
    /// By the interface that its first packet came in by; what the node makes itself has none.
    Interface(Interface),
}

/// What the fixed chains depend on; it changes only with the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// How we know Pods.
    pub pods: Pods,
    /// Whether all that goes to a `ClusterIP` is masqueraded (`--masquerade-all`).
    pub masquerade_all: bool,
    /// Whether frontends do without a counter of their connections.
    pub without_counters: bool,
}

impl Program {
    /// How a set is declared.
    #[must_use]
    pub fn set(&self, name: SetName) -> Set {
        let declared = set(name);
        let of_connections = matches!(name, SetName::Services | SetName::Nodeports);
        Set {
            counter: declared.counter && !(self.without_counters && of_connections),
            ..declared
        }
    }
}

impl Pods {
    /// The match on Pods, or on everyone else; `None` if we do not know them.
    fn matched(&self, inverted: bool) -> Option<Statement> {
        match self {
            Self::Unknown => None,
            Self::Cidrs => Some(Statement::Lookup {
                fields: vec![Field::Saddr],
                set: SetName::PodCidrs,
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
        before_dnat(),
        dnat(&program.pods),
        after_dnat(),
        postrouting(program),
        filter(),
    ];
    chains.into_iter().flatten().collect()
}

fn before_dnat() -> Vec<Chain> {
    let at = |name, hook| {
        let rules = vec![vec![Statement::Jump(ChainName::SourceRanges)]];
        base(name, ChainType::Filter, hook, BEFORE_DSTNAT, rules)
    };
    vec![
        source_ranges(),
        at(ChainName::SourceRangesPrerouting, Hook::Prerouting),
        at(ChainName::SourceRangesOutput, Hook::Output),
    ]
}

fn dnat(pods: &Pods) -> Vec<Chain> {
    let at = |name, hook| {
        let rules = vec![vec![Statement::Jump(ChainName::Services)]];
        base(name, ChainType::Nat, hook, DSTNAT, rules)
    };
    let frontends = local_policy(pods, &FRONTEND, LOCAL_SERVICES);
    let nodeports = local_policy(pods, &NODEPORT, LOCAL_NODEPORTS);
    vec![
        regular(ChainName::ExternalLocal, frontends),
        regular(ChainName::NodeportExternalLocal, nodeports),
        services(),
        at(ChainName::NatPrerouting, Hook::Prerouting),
        at(ChainName::NatOutput, Hook::Output),
    ]
}

fn after_dnat() -> Vec<Chain> {
    let at = |name, hook| {
        // ct state new ct status dnat jump affinity
        let rule = vec![
            Statement::New,
            Statement::Dnatted,
            Statement::Jump(ChainName::Affinity),
        ];
        base(name, ChainType::Filter, hook, AFTER_DSTNAT, vec![rule])
    };
    vec![
        affinity(),
        at(ChainName::AffinityPrerouting, Hook::Prerouting),
        at(ChainName::AffinityOutput, Hook::Output),
    ]
}

fn postrouting(program: &Program) -> Vec<Chain> {
    let (name, hook) = (ChainName::NatPostrouting, Hook::Postrouting);
    vec![base(
        name,
        ChainType::Nat,
        hook,
        SRCNAT,
        masquerade(program),
    )]
}

fn filter() -> Vec<Chain> {
    let at = |name, hook, rules| base(name, ChainType::Filter, hook, FILTER, rules);
    let inputs = vec![new_connections(ChainName::NoEndpoints)];
    vec![
        refuse(),
        no_endpoints(),
        cluster_ips(),
        at(ChainName::FilterInput, Hook::Input, inputs),
        at(ChainName::FilterForward, Hook::Forward, refusals()),
        at(ChainName::FilterOutput, Hook::Output, refusals()),
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

/// The maps of all endpoints and of this node's, for policy Local.
const LOCAL_SERVICES: [SetName; 2] = [SetName::ServicesWide, SetName::ServicesNodeLocal];
const LOCAL_NODEPORTS: [SetName; 2] = [SetName::NodeportsWide, SetName::NodeportsNodeLocal];

/// External policy Local: Pods and the node itself reach every endpoint, everyone else only this
/// node's; with none here nothing matches, and the filter drops.
fn local_policy(pods: &Pods, key: &[Field], [wide, node_local]: [SetName; 2]) -> Vec<Rule> {
    // ip saddr @pod-cidrs meta l4proto . ip daddr . th dport vmap @services-wide
    let from_pods = pods
        .matched(false)
        .map(|source| vec![source, vmap(key, wide)]);
    from_pods
        .into_iter()
        .chain([
            // fib saddr type local meta l4proto . ip daddr . th dport vmap @services-wide
            vec![
                Statement::SourceIsLocal { inverted: false },
                vmap(key, wide),
            ],
            // meta l4proto . ip daddr . th dport vmap @services-node-local
            vec![vmap(key, node_local)],
        ])
        .collect()
}

/// Who may not use a load-balancer frontend is dropped before DNAT, whoever it is.
fn source_ranges() -> Chain {
    let source = vec![Field::Daddr, Field::Protocol, Field::Dport, Field::Saddr];
    regular(
        ChainName::SourceRanges,
        vec![vec![
            Statement::New,
            lookup(&FRONTEND, SetName::SourceRangesChecked),
            Statement::Lookup {
                fields: source,
                set: SetName::SourceRanges,
                inverted: true,
            },
            Statement::Drop,
        ]],
    )
}

/// Session affinity is learned after DNAT: from what the connection was first sent to, and from
/// where it goes now.
fn affinity() -> Chain {
    let frontends = Protocol::ALL.map(|protocol| {
        // meta l4proto tcp ct original ip daddr . ct original proto-dst vmap @sticky-tcp
        vec![
            Statement::Protocol(protocol),
            vmap(
                &[Field::OriginalDaddr, Field::OriginalDport],
                SetName::Sticky(protocol),
            ),
        ]
    });
    let nodeports = Protocol::ALL.map(|protocol| {
        // meta l4proto tcp ct original ip daddr @node-ips ct original proto-dst vmap
        // @sticky-nodeport-tcp: the protocol first, so that one rule of three looks up
        vec![
            Statement::Protocol(protocol),
            lookup(&[Field::OriginalDaddr], SetName::NodeIps),
            vmap(&[Field::OriginalDport], SetName::StickyNodeport(protocol)),
        ]
    });
    regular(
        ChainName::Affinity,
        frontends.into_iter().chain(nodeports).collect(),
    )
}

/// Who is masqueraded, decided without packet marks from what the connection was first sent to.
fn masquerade(program: &Program) -> Vec<Rule> {
    let mut rules = vec![
        // ct status & dnat != dnat return
        vec![Statement::NotDnat, Statement::Return],
        // A Pod that drew itself: ip saddr . ip daddr @hairpin masquerade
        vec![
            lookup(&[Field::Saddr, Field::Daddr], SetName::Hairpin),
            Statement::Masquerade,
        ],
    ];
    let to_cluster_ips = [
        lookup(&[Field::OriginalDaddr], SetName::ClusterIps),
        Statement::Masquerade,
    ];
    if program.masquerade_all {
        // ct original ip daddr @cluster-ips masquerade
        rules.push(to_cluster_ips.to_vec());
    } else if let Some(others) = program.pods.matched(true) {
        // ip saddr != @pod-cidrs ct original ip daddr @cluster-ips masquerade
        rules.push([&[others], &to_cluster_ips[..]].concat());
    }
    rules.extend(masquerade_frontends(
        SetName::Masquerade,
        SetName::MasqueradeNodeport,
    ));
    // fib saddr type != local return
    rules.push(vec![
        Statement::SourceIsLocal { inverted: true },
        Statement::Return,
    ]);
    rules.extend(masquerade_frontends(
        SetName::MasqueradeNode,
        SetName::MasqueradeNodeNodeport,
    ));
    rules
}

/// One rule a protocol: nft types `ct proto-dst` only where the protocol is known.
fn masquerade_frontends(
    frontends: fn(Protocol) -> SetName,
    nodeports: fn(Protocol) -> SetName,
) -> impl Iterator<Item = Rule> {
    let of_frontends = Protocol::ALL.map(|protocol| {
        // meta l4proto tcp ct original ip daddr . ct original proto-dst @masquerade-tcp masquerade
        vec![
            Statement::Protocol(protocol),
            lookup(
                &[Field::OriginalDaddr, Field::OriginalDport],
                frontends(protocol),
            ),
            Statement::Masquerade,
        ]
    });
    let of_nodeports = Protocol::ALL.map(|protocol| {
        // meta l4proto tcp ct original ip daddr @node-ips ct original proto-dst
        // @masquerade-nodeport-tcp masquerade
        vec![
            Statement::Protocol(protocol),
            lookup(&[Field::OriginalDaddr], SetName::NodeIps),
            lookup(&[Field::OriginalDport], nodeports(protocol)),
            Statement::Masquerade,
        ]
    });
    of_frontends.into_iter().chain(of_nodeports)
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
