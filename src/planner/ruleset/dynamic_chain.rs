//! Chains that are created when the first element needs them.
//!
//! Their number depends on the distinct endpoint counts and affinity timeouts in use, not on the
//! number of Services or endpoints.

use std::fmt;
use std::str::FromStr;

use super::{Chain, ChainName, LookupField, Rule, SetName, Statement};
use crate::planner::model::Protocol;

/// The kind of frontend that a chain balances connections of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// An address with a port.
    Address,
    /// A node port, at any address of the node.
    Nodeport,
}

/// The list of a frontend's endpoints that a chain chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotRange {
    /// The endpoints for the frontend's policy, with slots from 0.
    Own,
    /// All endpoints of a frontend with policy Local, with slots from [`SlotRange::CLUSTER`].
    Cluster,
}

impl SlotRange {
    /// The first slot of [`SlotRange::Cluster`].
    pub const CLUSTER: u32 = 65536;

    /// Returns the first slot of this list.
    #[must_use]
    pub fn base(self) -> u32 {
        match self {
            Self::Own => 0,
            Self::Cluster => Self::CLUSTER,
        }
    }
}

/// A chain that is created on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DynamicChain {
    /// `pick-N` and similar names: sends the connection to the endpoint of one of N random slots.
    Pick(FrontendKind, SlotRange, u32),
    /// `sticky-N` and similar names: sends a pinned client to its endpoint, others to `pick`.
    Sticky(FrontendKind, SlotRange, u32),
    /// `learn-Ns`: pins a client to its endpoint for N seconds.
    Learn(u32),
    /// `gone`: unpins a client and drops its connection.
    Gone,
}

/// The maximum number of endpoints whose `pick` chain is part of the fixed program.
///
/// The kernel walks all elements of a map when a rule is bound to it (`nf_tables_bind_set`), which
/// costs nothing while the map is empty.
const MAX_INITIAL_SLOTS: u32 = 16;

impl DynamicChain {
    /// Returns the chains that are part of the fixed program.
    pub fn initial() -> impl Iterator<Item = Self> {
        kinds_and_lists().flat_map(|(kind, list)| {
            (1..=MAX_INITIAL_SLOTS).map(move |slots| Self::Pick(kind, list, slots))
        })
    }

    /// Returns whether the chain is part of the fixed program.
    #[must_use]
    pub fn is_initial(self) -> bool {
        matches!(self, Self::Pick(_, _, 1..=MAX_INITIAL_SLOTS))
    }

    /// Returns the chain with its rules.
    #[must_use]
    pub fn chain(self) -> Chain {
        let rules = match self {
            // The second rule uses the first slot only. A packet may get its verdict before a
            // commit that removes the last slot, and choose that slot after it. Such a packet
            // continues with the second rule: the first slot exists as long as the frontend has any
            // endpoint.
            Self::Pick(kind, list, slots) => {
                let fallback = (slots > 1).then(|| vec![pick(kind, list, 1)]);
                [vec![pick(kind, list, slots)]]
                    .into_iter()
                    .chain(fallback)
                    .collect()
            }
            Self::Sticky(kind, list, slots) => {
                let pick = Self::Pick(kind, list, slots);
                let pinned = Protocol::ALL.map(|protocol| {
                    // meta l4proto tcp dnat ip to ip saddr . ip daddr . th dport map @affinity-tcp
                    let fields = vec![LookupField::Saddr, LookupField::Daddr, LookupField::Dport];
                    let map = SetName::Affinity(protocol);
                    vec![
                        Statement::Protocol(protocol),
                        Statement::Dnat { fields, map },
                    ]
                });
                let otherwise = vec![Statement::Goto(ChainName::Dynamic(pick))];
                pinned.into_iter().chain([otherwise]).collect()
            }
            Self::Learn(seconds) => learn(seconds),
            Self::Gone => gone(),
        };
        Chain {
            name: ChainName::Dynamic(self),
            hook: None,
            rules,
        }
    }

    /// Returns the target of the chain's goto, which must exist before it.
    #[must_use]
    pub fn goto_target(self) -> Option<Self> {
        match self {
            Self::Sticky(kind, list, slots) => Some(Self::Pick(kind, list, slots)),
            Self::Pick(..) | Self::Learn(_) | Self::Gone => None,
        }
    }

    /// Returns the name without its number.
    fn prefix(self) -> &'static str {
        use FrontendKind::{Address, Nodeport};
        use SlotRange::{Cluster, Own};
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

/// Returns every combination of a kind of frontend and a list.
fn kinds_and_lists() -> impl Iterator<Item = (FrontendKind, SlotRange)> {
    [FrontendKind::Address, FrontendKind::Nodeport]
        .into_iter()
        .flat_map(|kind| [SlotRange::Own, SlotRange::Cluster].map(|list| (kind, list)))
}

/// Returns the rules that pin a client to its endpoint, unless it must not stay there.
fn learn(seconds: u32) -> Vec<Rule> {
    let destination_and_endpoint = [
        LookupField::OriginalDaddr,
        LookupField::OriginalDport,
        LookupField::Daddr,
        LookupField::Dport,
    ];
    let rules_of = |protocol| {
        let is_protocol = Statement::Protocol(protocol);
        // meta l4proto tcp ct original ip daddr . ct original proto-dst . ip daddr . th dport
        //   vmap @gone-tcp
        let (fields, map) = (destination_and_endpoint.to_vec(), SetName::Gone(protocol));
        let gone = vec![is_protocol.clone(), Statement::Vmap { fields, map }];
        let learn = Statement::UpdateAffinity { protocol, seconds };
        [gone, vec![is_protocol, learn, Statement::Return]]
    };
    // Reached only if the map is full: the update ends its rule (`nft_dynset_eval`: NFT_BREAK).
    let full = vec![Statement::Lookup {
        fields: vec![LookupField::Protocol],
        set: SetName::AffinityFull,
        inverted: false,
    }];
    Protocol::ALL
        .into_iter()
        .flat_map(rules_of)
        .chain([full])
        .collect()
}

/// Returns the rules that unpin a client and drop its packet.
///
/// The dropped packet leaves no conntrack entry, so that the client's next packet gets an endpoint.
fn gone() -> Vec<Rule> {
    let forget = Protocol::ALL.map(|protocol| {
        vec![
            Statement::Protocol(protocol),
            Statement::DeleteAffinity { protocol },
            Statement::Drop,
        ]
    });
    forget.into()
}

/// Returns the statement that sends a connection to a random endpoint.
///
/// `dnat ip to meta l4proto . ip daddr . th dport . numgen random mod N [offset 65536] map
/// @endpoints`; for a node port the key has no address.
fn pick(kind: FrontendKind, list: SlotRange, slots: u32) -> Statement {
    let random = LookupField::Random { slots, list };
    match kind {
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

/// The error for a name that no chain created on demand has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a chain that kube-dnat creates on demand")]
pub struct NotDynamicChain;

impl FromStr for DynamicChain {
    type Err = NotDynamicChain;

    fn from_str(name: &str) -> Result<Self, NotDynamicChain> {
        if name == Self::Gone.prefix() {
            return Ok(Self::Gone);
        }
        let (_, number) = name.rsplit_once('-').ok_or(NotDynamicChain)?;
        let digits = number.strip_suffix('s').unwrap_or(number);
        let number: u32 = digits
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .ok_or(NotDynamicChain)?;
        // The comparison with the whole name excludes names such as "pick-007".
        kinds_and_lists()
            .flat_map(|(kind, list)| {
                [
                    Self::Pick(kind, list, number),
                    Self::Sticky(kind, list, number),
                ]
            })
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
        let mut names = std::collections::BTreeSet::new();
        for (kind, list) in kinds_and_lists() {
            for chain in [
                DynamicChain::Pick(kind, list, 65535),
                DynamicChain::Sticky(kind, list, 1),
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
