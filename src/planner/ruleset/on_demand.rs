//! Chains that are made when the first element needs them: they grow with the number of distinct
//! endpoint counts and affinity time-outs in use, never with Services or endpoints.

use std::fmt;
use std::str::FromStr;

use super::{Chain, ChainName, LookupField, Rule, SetName, Statement};
use crate::planner::model::Protocol;

/// What the connections that a chain balances were sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// An address and port.
    Address,
    /// A node port, on whichever address of the node.
    Nodeport,
}

/// Which endpoints of a frontend a chain draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointList {
    /// The endpoints of its policy: slots from 0.
    Own,
    /// All endpoints of a frontend with policy Local: slots from [`EndpointList::CLUSTER`].
    Cluster,
}

impl EndpointList {
    /// The first slot of [`EndpointList::Cluster`].
    pub const CLUSTER: u32 = 65536;

    /// The first slot of this list.
    #[must_use]
    pub fn base(self) -> u32 {
        match self {
            Self::Own => 0,
            Self::Cluster => Self::CLUSTER,
        }
    }
}

/// A chain that is made on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DynamicChain {
    /// `pick-N` and its like: draws one of N slots and sends the connection to its endpoint.
    Pick(FrontendKind, EndpointList, u32),
    /// `sticky-N` and its like: sends a client to the endpoint that it had last, or on to the
    /// `pick` of its kind.
    Sticky(FrontendKind, EndpointList, u32),
    /// `learn-Ns`: remembers for N seconds which endpoint a client got.
    Learn(u32),
    /// `gone`: forgets which endpoint a client has, and drops what was sent there.
    Gone,
}

/// Up to so many endpoints a balance chain is there from the start: a rule that is bound to a map
/// makes the kernel walk its elements (`nf_tables_bind_set`), of which an empty one has none.
const FROM_THE_START: u32 = 16;

impl DynamicChain {
    /// The balance chains that are there from the start.
    pub fn initial() -> impl Iterator<Item = Self> {
        let kinds = [FrontendKind::Address, FrontendKind::Nodeport]
            .into_iter()
            .flat_map(|frontends| {
                [EndpointList::Own, EndpointList::Cluster].map(|list| (frontends, list))
            });
        kinds.flat_map(|(frontends, list)| {
            (1..=FROM_THE_START).map(move |slots| Self::Pick(frontends, list, slots))
        })
    }

    /// Whether it is there from the start, and stays.
    #[must_use]
    pub fn is_initial(self) -> bool {
        matches!(self, Self::Pick(_, _, 1..=FROM_THE_START))
    }

    /// The chain with its rules.
    #[must_use]
    pub fn chain(self) -> Chain {
        let rules = match self {
            // The second draws from one slot. A packet may have read its verdict before a commit
            // that takes away the last slot, and draw that slot after it: it falls through to the
            // first, which is there as long as the frontend has any endpoint.
            Self::Pick(frontends, list, slots) => {
                let fallback = (slots > 1).then(|| vec![pick(frontends, list, 1)]);
                let first = vec![pick(frontends, list, slots)];
                [first].into_iter().chain(fallback).collect()
            }
            Self::Sticky(frontends, list, slots) => {
                let pick = Self::Pick(frontends, list, slots);
                let remembered = Protocol::ALL.map(|protocol| {
                    // meta l4proto tcp dnat ip to ip saddr . ip daddr . th dport map @affinity-tcp
                    let fields = vec![LookupField::Saddr, LookupField::Daddr, LookupField::Dport];
                    let map = SetName::Affinity(protocol);
                    vec![
                        Statement::Protocol(protocol),
                        Statement::Dnat { fields, map },
                    ]
                });
                let otherwise = vec![Statement::Goto(ChainName::OnDemand(pick))];
                remembered.into_iter().chain([otherwise]).collect()
            }
            Self::Learn(seconds) => learn(seconds),
            Self::Gone => gone(),
        };
        Chain {
            name: ChainName::OnDemand(self),
            hook: None,
            rules,
        }
    }

    /// The chain that this one goes to, which must be there before it.
    #[must_use]
    pub fn goto_target(self) -> Option<Self> {
        match self {
            Self::Sticky(frontends, list, slots) => Some(Self::Pick(frontends, list, slots)),
            Self::Pick(..) | Self::Learn(_) | Self::Gone => None,
        }
    }

    /// The name without its number.
    fn prefix(self) -> &'static str {
        use EndpointList::{Cluster, Own};
        use FrontendKind::{Address, Nodeport};
        match self {
            Self::Pick(Address, Own, _) => "pick",
            Self::Pick(Address, Cluster, _) => "pick-cluster",
            Self::Pick(Nodeport, Own, _) => "pick-nodeport",
            Self::Pick(Nodeport, Cluster, _) => "pick-nodeport-cluster",
            Self::Sticky(Address, Own, _) => "sticky",
            Self::Sticky(Address, Cluster, _) => "sticky-cluster",
            Self::Sticky(Nodeport, Own, _) => "sticky-nodeport",
            Self::Sticky(Nodeport, Cluster, _) => "sticky-nodeport-cluster",
            Self::Learn(_) => "learn",
            Self::Gone => "gone",
        }
    }
}

/// Remembers which endpoint a client got, unless it must not keep it.
fn learn(seconds: u32) -> Vec<Rule> {
    let sent = [
        LookupField::OriginalDaddr,
        LookupField::OriginalDport,
        LookupField::Daddr,
        LookupField::Dport,
    ];
    let of_protocol = |protocol| {
        let of_protocol = Statement::Protocol(protocol);
        // meta l4proto tcp ct original ip daddr . ct original proto-dst . ip daddr . th dport
        //   vmap @gone-tcp
        let (fields, map) = (sent.to_vec(), SetName::Gone(protocol));
        let gone = vec![of_protocol.clone(), Statement::Vmap { fields, map }];
        let learn = Statement::Learn { protocol, seconds };
        [gone, vec![of_protocol, learn, Statement::Return]]
    };
    // Only who finds the map full comes here (`nft_dynset_eval`: NFT_BREAK).
    let full = vec![Statement::Lookup {
        fields: vec![LookupField::Protocol],
        set: SetName::AffinityFull,
        inverted: false,
    }];
    let learn = Protocol::ALL.into_iter().flat_map(of_protocol);
    learn.chain([full]).collect()
}

/// A packet that is dropped here leaves no conntrack entry, so the retry of the client draws an endpoint.
fn gone() -> Vec<Rule> {
    let forget = Protocol::ALL.map(|protocol| {
        vec![
            Statement::Protocol(protocol),
            Statement::Forget { protocol },
            Statement::Drop,
        ]
    });
    forget.into()
}

/// dnat ip to meta l4proto . ip daddr . th dport . numgen random mod N [offset 65536] map
/// @endpoints; the same without the address for a node port.
fn pick(frontends: FrontendKind, list: EndpointList, slots: u32) -> Statement {
    let random = LookupField::Random { slots, list };
    match frontends {
        FrontendKind::Address => Statement::Dnat {
            fields: vec![
                LookupField::Protocol,
                LookupField::Daddr,
                LookupField::Dport,
                random,
            ],
            map: SetName::Endpoints,
        },
        FrontendKind::Nodeport => Statement::Dnat {
            fields: vec![LookupField::Protocol, LookupField::Dport, random],
            map: SetName::NodeportEndpoints,
        },
    }
}

impl fmt::Display for DynamicChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pick(_, _, slots) | Self::Sticky(_, _, slots) => {
                write!(f, "{}-{slots}", self.prefix())
            }
            Self::Learn(seconds) => write!(f, "{}-{seconds}s", self.prefix()),
            Self::Gone => f.write_str(self.prefix()),
        }
    }
}

/// The name is not one of a chain that is made on demand.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a chain that is made on demand")]
pub struct NotDynamicChain;

impl FromStr for DynamicChain {
    type Err = NotDynamicChain;

    fn from_str(name: &str) -> Result<Self, NotDynamicChain> {
        if name == Self::Gone.prefix() {
            return Ok(Self::Gone);
        }
        let (_, number) = name.rsplit_once('-').ok_or(NotDynamicChain)?;
        let digits = number.strip_suffix('s').unwrap_or(number);
        let number = digits.parse().ok().filter(|number| *number > 0);
        let number: u32 = number.ok_or(NotDynamicChain)?;
        let kinds = [FrontendKind::Address, FrontendKind::Nodeport]
            .into_iter()
            .flat_map(|frontends| {
                [EndpointList::Own, EndpointList::Cluster].map(|list| (frontends, list))
            });
        let lists = kinds.flat_map(|(frontends, list)| {
            [
                Self::Pick(frontends, list, number),
                Self::Sticky(frontends, list, number),
            ]
        });
        // By comparing with the whole name, "pick-007" is not taken for one of ours.
        lists
            .chain([Self::Learn(number)])
            .find(|chain| chain.to_string() == name)
            .ok_or(NotDynamicChain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let kinds = [
            (FrontendKind::Address, EndpointList::Own),
            (FrontendKind::Address, EndpointList::Cluster),
            (FrontendKind::Nodeport, EndpointList::Own),
            (FrontendKind::Nodeport, EndpointList::Cluster),
        ];
        let mut names = std::collections::BTreeSet::new();
        for (frontends, list) in kinds {
            for chain in [
                DynamicChain::Pick(frontends, list, 65535),
                DynamicChain::Sticky(frontends, list, 1),
                DynamicChain::Learn(10800),
                DynamicChain::Gone,
            ] {
                assert_eq!(chain.to_string().parse(), Ok(chain));
                names.insert(chain.to_string());
            }
        }
        assert_eq!(names.len(), 10);
        for other in [
            "pick", "pick-", "pick-0", "pick-03", "pick-3s", "learn-3", "services", "refuse",
            "gone-1",
        ] {
            assert_eq!(
                other.parse::<DynamicChain>(),
                Err(NotDynamicChain),
                "{other}"
            );
        }
    }
}
