//! Chains that are created when the first element needs them.
//!
//! Their number depends on the distinct endpoint counts and affinity timeouts in use, not on the
//! number of Services or endpoints.

use std::fmt;
use std::str::FromStr;

use super::closed::{self, closed};
use super::port_ranges::{self, port_ranges};
use super::{
    Chain, ChainName, ClientHook, LookupField, RangesHook, Rule, SetName, Statement, TcpPickup,
};
use crate::planner::model::{Balance, Protocol};

/// The kind of frontend that a chain balances connections of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// An address with a port.
    Address,
    /// A node port, at any address of the node.
    Nodeport,
    /// The port ranges of an address.
    Range,
}

impl FrontendKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Address, Self::Nodeport, Self::Range];
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
    /// `maglev-N`, `source-N` and similar names: sends the connection to the endpoint of the slot,
    /// of N, that a hash of the connection selects.
    Hashed(Balance, FrontendKind, SlotRange, u32),
    /// `sticky-N` and similar names: sends a pinned client to its endpoint, others to `pick`.
    Sticky(FrontendKind, SlotRange, u32),
    /// `learn-Ns`: pins a client to its endpoint for N seconds.
    Learn(u32),
    /// `gone`: unpins a client and drops its connection.
    Gone,
    /// `nat-prerouting-closed` and similar names: resets connections to removed endpoints.
    ///
    /// It is a base chain: no element goes to it, but those of its sets need it.
    Closed(TcpPickup, ClientHook),
    /// `nat-prerouting-ranges` and similar names: serves port ranges.
    ///
    /// It is a base chain: no element goes to it, but those of its set need it.
    PortRanges(RangesHook),
}

/// The maximum number of endpoints whose `pick` chain is part of the fixed program.
///
/// The kernel walks all elements of a map when a rule is bound to it (`nf_tables_bind_set`), which
/// costs nothing while the map is empty.
const MAX_INITIAL_SLOTS: u32 = 16;

impl DynamicChain {
    /// Returns the chains that are part of the fixed program.
    pub fn initial() -> impl Iterator<Item = Self> {
        // A hash always selects the endpoint of port ranges.
        let picked = kinds_and_lists().filter(|(kind, _)| *kind != FrontendKind::Range);
        picked.flat_map(|(kind, list)| {
            (1..=MAX_INITIAL_SLOTS).map(move |slots| Self::Pick(kind, list, slots))
        })
    }

    /// Returns whether the chain is part of the fixed program.
    #[must_use]
    pub fn is_initial(self) -> bool {
        matches!(self, Self::Pick(kind, _, 1..=MAX_INITIAL_SLOTS) if kind != FrontendKind::Range)
    }

    /// Returns the chain with its rules.
    #[must_use]
    pub fn chain(self) -> Chain {
        let rules = match self {
            Self::Pick(kind, list, slots) => {
                with_fallback(kind, list, LookupField::Random { slots, list })
            }
            Self::Hashed(input, kind, list, slots) => {
                with_fallback(kind, list, LookupField::Hash { input, slots, list })
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
            Self::Closed(pickup, hook) => return closed(pickup, hook),
            Self::PortRanges(hook) => return port_ranges(hook),
        };
        Chain {
            name: ChainName::Dynamic(self),
            hook: None,
            rules,
        }
    }

    /// Returns the target of the chain's goto, or the base chain that belongs to it. It must exist
    /// before the chain.
    #[must_use]
    pub fn goto_target(self) -> Option<Self> {
        match self {
            Self::Sticky(kind, list, slots) => Some(Self::Pick(kind, list, slots)),
            Self::Closed(pickup, ClientHook::Prerouting) => {
                Some(Self::Closed(pickup, ClientHook::Output))
            }
            Self::PortRanges(hook) => hook.required().map(Self::PortRanges),
            Self::Pick(..)
            | Self::Hashed(..)
            | Self::Learn(_)
            | Self::Gone
            | Self::Closed(_, ClientHook::Output) => None,
        }
    }

    /// Returns the hash that selects a slot, and the number of slots; `None` if it selects none.
    #[must_use]
    pub fn spread(self) -> Option<(Option<Balance>, u32)> {
        match self {
            Self::Pick(_, _, slots) | Self::Sticky(_, _, slots) => Some((None, slots)),
            Self::Hashed(balance, _, _, slots) => Some((Some(balance), slots)),
            Self::Learn(_) | Self::Gone | Self::Closed(..) | Self::PortRanges(_) => None,
        }
    }
}

/// Returns every combination of a kind of frontend and a list.
fn kinds_and_lists() -> impl Iterator<Item = (FrontendKind, SlotRange)> {
    FrontendKind::ALL
        .into_iter()
        .flat_map(|kind| [SlotRange::Own, SlotRange::Cluster].map(|list| (kind, list)))
}

/// Writes the name of a chain that selects a slot: the action, the kind of frontend, the list, and the
/// number of slots.
fn write_selection(
    action: &str,
    kind: FrontendKind,
    list: SlotRange,
    slots: u32,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let kind = match kind {
        FrontendKind::Address => "",
        FrontendKind::Nodeport => "-nodeport",
        FrontendKind::Range => "-range",
    };
    let list = match list {
        SlotRange::Own => "",
        SlotRange::Cluster => "-cluster",
    };
    write!(f, "{action}{kind}{list}-{slots}")
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

/// Returns the rules that send a connection to the endpoint of a slot, or of the first slot.
///
/// The second rule uses the first slot only. A packet may get its verdict before a commit that
/// removes the last slot, and choose that slot after it. Such a packet continues with the second
/// rule: the first slot exists as long as the frontend has any endpoint.
fn with_fallback(kind: FrontendKind, list: SlotRange, slot: LookupField) -> Vec<Rule> {
    let first = LookupField::Random { slots: 1, list };
    let fallback = (slot != first).then(|| vec![dnat_to_slot(kind, first)]);
    let rule = vec![dnat_to_slot(kind, slot)];
    [rule].into_iter().chain(fallback).collect()
}

/// Returns the statement that sends a connection to the endpoint of a slot.
///
/// `dnat ip to meta l4proto . ip daddr . th dport . numgen random mod N [offset 65536] map
/// @endpoints`, or `dnat to meta l4proto . ip daddr . jhash ip saddr mod N seed SEED map
/// @endpoints-ranges`, which keeps the port
fn dnat_to_slot(kind: FrontendKind, slot: LookupField) -> Statement {
    match kind {
        FrontendKind::Address => Statement::Dnat {
            fields: vec![
                LookupField::Protocol,
                LookupField::Daddr,
                LookupField::Dport,
                slot,
            ],
            map: SetName::Endpoints,
        },
        FrontendKind::Nodeport => Statement::Dnat {
            fields: vec![LookupField::Protocol, LookupField::Dport, slot],
            map: SetName::NodeportEndpoints,
        },
        FrontendKind::Range => Statement::Dnat {
            fields: vec![LookupField::Protocol, LookupField::Daddr, slot],
            map: SetName::RangeEndpoints,
        },
    }
}

impl fmt::Display for DynamicChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pick(kind, list, slots) => write_selection("pick", *kind, *list, *slots, f),
            Self::Hashed(Balance::Maglev, kind, list, slots) => {
                write_selection("maglev", *kind, *list, *slots, f)
            }
            Self::Hashed(Balance::Source, kind, list, slots) => {
                write_selection("source", *kind, *list, *slots, f)
            }
            Self::Sticky(kind, list, slots) => write_selection("sticky", *kind, *list, *slots, f),
            Self::Learn(seconds) => write!(f, "learn-{seconds}s"),
            Self::Gone => f.write_str("gone"),
            Self::Closed(pickup, hook) => closed::write_name(*pickup, *hook, f),
            Self::PortRanges(hook) => port_ranges::write_name(*hook, f),
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
        let closed = TcpPickup::ALL
            .into_iter()
            .flat_map(|pickup| ClientHook::ALL.map(|hook| Self::Closed(pickup, hook)));
        let ranges = RangesHook::ALL.map(Self::PortRanges);
        let mut without_number = closed.chain(ranges).chain([Self::Gone]);
        if let Some(chain) = without_number.find(|chain| chain.to_string() == name) {
            return Ok(chain);
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
                    Self::Hashed(Balance::Maglev, kind, list, number),
                    Self::Hashed(Balance::Source, kind, list, number),
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
                DynamicChain::Hashed(Balance::Maglev, kind, list, 251),
                DynamicChain::Hashed(Balance::Source, kind, list, 1021),
                DynamicChain::Sticky(kind, list, 1),
                DynamicChain::Learn(10800),
                DynamicChain::Gone,
            ] {
                assert_eq!(chain.to_string().parse(), Ok(chain));
                names.insert(chain.to_string());
            }
        }
        for pickup in TcpPickup::ALL {
            for hook in ClientHook::ALL {
                let chain = DynamicChain::Closed(pickup, hook);
                assert_eq!(chain.to_string().parse(), Ok(chain));
                names.insert(chain.to_string());
            }
        }
        for hook in RangesHook::ALL {
            let chain = DynamicChain::PortRanges(hook);
            assert_eq!(chain.to_string().parse(), Ok(chain));
            names.insert(chain.to_string());
        }
        assert_eq!(names.len(), 33);
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
