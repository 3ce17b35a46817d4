//! The expressions and statements of kube-dnat's rules.

use std::fmt;
use std::sync::Arc;

use super::{ChainName, ElementType, SetName, SlotRange, set};
use crate::planner::model::addr::Family;
use crate::planner::model::{Balance, Protocol};

/// A rule: its statements, which the kernel evaluates in order.
pub type Rule = Vec<Statement>;

/// A match on the name of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The interface with this name.
    Named(Arc<str>),
    /// The interfaces whose names have this prefix.
    Prefixed(Arc<str>),
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Prefixed(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// A number of seconds, printed as nft prints a time: `1d2h3m4s`, without units that are zero.
struct Timeout(u32);

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (unit, seconds) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
            let (count, left) = (rest / seconds, rest % seconds);
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
            rest = left;
        }
        Ok(())
    }
}

/// An expression that a rule looks up, alone or in a concatenation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupField {
    /// `meta l4proto`, the transport protocol.
    Protocol,
    /// `ip saddr` or `ip6 saddr`, the source address.
    Saddr,
    /// `ip daddr` or `ip6 daddr`, the destination address.
    Daddr,
    /// `th dport`, the destination port.
    Dport,
    /// `tcp dport`, the destination port in a rule that matches TCP by a field of its header.
    TcpDport,
    /// `ct original ip daddr`, the destination address before DNAT.
    OriginalDaddr,
    /// `ct direction`, the direction of the packet in its connection.
    Direction,
    /// `ct original proto-dst`, the destination port before DNAT.
    OriginalDport,
    /// `numgen random mod SLOTS`, a random slot with the offset of its list.
    Random {
        /// The number of slots, at least 1.
        slots: u32,
        /// The list that has the slots.
        list: SlotRange,
    },
    /// `jhash ip saddr . th sport mod SLOTS seed SEED`, a slot that follows from the connection,
    /// with the offset of its list.
    Hash {
        /// The fields that are hashed.
        input: Balance,
        /// The number of slots, at least 1.
        slots: u32,
        /// The list that has the slots.
        list: SlotRange,
    },
}

impl LookupField {
    /// The seed of every hash, so that all nodes send a connection to the same endpoint.
    pub const HASH_SEED: u32 = 0x6b75_6265;

    /// Returns the slot that the field selects; `None` for a field of a packet or connection.
    #[must_use]
    pub fn selected_slot(self) -> Option<SelectedSlot> {
        let (slots, list, hash) = match self {
            Self::Random { slots, list } => (slots, list, None),
            Self::Hash { input, slots, list } => (slots, list, Some(input)),
            Self::Protocol
            | Self::Saddr
            | Self::Daddr
            | Self::Dport
            | Self::TcpDport
            | Self::OriginalDaddr
            | Self::Direction
            | Self::OriginalDport => return None,
        };
        Some(SelectedSlot { slots, list, hash })
    }
}

/// The slot that a rule selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectedSlot {
    /// The number of slots, at least 1.
    pub slots: u32,
    /// The list that has the slots.
    pub list: SlotRange,
    /// The fields whose hash selects the slot; `None`: a random slot.
    pub hash: Option<Balance>,
}

/// A statement of a rule; a match that fails ends the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Match connections without DNAT.
    CtStatusNotDnat,
    /// Match packets of a confirmed connection.
    ///
    /// A NAT chain sees one only if no NAT existed for its first packet; conntrack does not
    /// translate such a connection anymore.
    CtStatusConfirmed,
    /// Match packets that the kernel tracks, or does not track on purpose (`notrack`).
    CtStateNotInvalid,
    /// Match TCP packets that neither open a connection nor reset one.
    TcpMidstream,
    /// Match if the source is an address of the node.
    SourceIsLocal,
    /// Match if the destination is an address of the node.
    DestinationIsLocal,
    /// Match the input interface of the packet.
    InputInterface {
        /// The name or prefix to match.
        interface: Interface,
        /// Whether to match all other interfaces.
        inverted: bool,
    },
    /// Pin the client to the endpoint of its connection.
    ///
    /// `update @affinity-tcp { ip saddr . ct original ip daddr . ct original proto-dst timeout 3h :
    /// ip daddr . th dport }`
    UpdateAffinity {
        /// The protocol, which the rule has matched before.
        protocol: Protocol,
        /// The timeout in seconds.
        seconds: u32,
    },
    /// Unpin the client of the connection.
    ///
    /// `delete @affinity-tcp { ip saddr . ct original ip daddr . ct original proto-dst : ip daddr .
    /// th dport }`
    DeleteAffinity {
        /// The protocol, which the rule has matched before.
        protocol: Protocol,
    },
    /// Match this transport protocol.
    Protocol(Protocol),
    /// Match if the set has an element with these fields.
    Lookup {
        /// The fields of the key.
        fields: Vec<LookupField>,
        /// The set to look up.
        set: SetName,
        /// Whether to match if the set has no such element.
        inverted: bool,
    },
    /// Execute the verdict of the map's element with these fields; a match if there is one.
    Vmap {
        /// The fields of the key.
        fields: Vec<LookupField>,
        /// The map to look up.
        map: SetName,
    },
    /// Translate the destination to the endpoint of the map's element; a match if there is one.
    Dnat {
        /// The fields of the key.
        fields: Vec<LookupField>,
        /// The map to look up.
        map: SetName,
    },
    /// Translate the source to an address of this node, with a random port.
    Masquerade,
    /// Reject a TCP connection with a RST; matches TCP only.
    RejectTcp,
    /// Reject with ICMP port unreachable.
    Reject,
    /// Drop the packet.
    Drop,
    /// Return to the calling chain.
    Return,
    /// Evaluate the chain, then continue with the next rule.
    Jump(ChainName),
    /// Evaluate the chain instead of the remaining rules.
    Goto(ChainName),
}

/// Returns nft's name for the network layer of a family.
#[must_use]
pub fn layer(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

impl LookupField {
    /// Writes the expression as nft prints it.
    fn write(self, family: Family, text: &mut impl fmt::Write) -> fmt::Result {
        let ip = layer(family);
        match self {
            Self::Protocol => write!(text, "meta l4proto"),
            Self::Saddr => write!(text, "{ip} saddr"),
            Self::Daddr => write!(text, "{ip} daddr"),
            Self::Dport => write!(text, "th dport"),
            Self::TcpDport => write!(text, "tcp dport"),
            Self::OriginalDaddr => write!(text, "ct original {ip} daddr"),
            Self::OriginalDport => write!(text, "ct original proto-dst"),
            Self::Direction => write!(text, "ct direction"),
            Self::Random { slots, list } => {
                write!(text, "numgen random mod {slots}")?;
                list.write_offset(text)
            }
            Self::Hash { input, slots, list } => {
                let sport = match input {
                    Balance::Maglev => " . th sport",
                    Balance::Source => "",
                };
                let seed = Self::HASH_SEED;
                write!(text, "jhash {ip} saddr{sport} mod {slots} seed {seed:#x}")?;
                list.write_offset(text)
            }
        }
    }
}

impl SlotRange {
    /// Writes the offset of the list's slots as nft prints it, which omits 0.
    fn write_offset(self, text: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Own => Ok(()),
            Self::Cluster => write!(text, " offset {}", Self::CLUSTER),
        }
    }
}

/// Returns the statement before the look-up in a map. nft prints the family only with a port.
fn dnat_to(map: SetName, family: Family) -> &'static str {
    match (set(map).data, family) {
        (ElementType::Address, _) => "dnat to ",
        (_, Family::Ipv4) => "dnat ip to ",
        (_, Family::Ipv6) => "dnat ip6 to ",
    }
}

/// Writes a concatenation of fields as nft prints it.
fn write_fields(fields: &[LookupField], family: Family, text: &mut impl fmt::Write) -> fmt::Result {
    for (position, field) in fields.iter().enumerate() {
        if position > 0 {
            text.write_str(" . ")?;
        }
        field.write(family, text)?;
    }
    Ok(())
}

impl Statement {
    /// Writes the statement as `nft list` of 1.0.6 prints it in a table of this family.
    pub(super) fn write(&self, family: Family, text: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::CtStatusNotDnat => text.write_str("ct status & dnat != dnat"),
            Self::CtStatusConfirmed => text.write_str("ct status confirmed"),
            Self::CtStateNotInvalid => text.write_str("ct state != invalid"),
            // nft adds the match on TCP itself, and omits it in a listing.
            Self::TcpMidstream => text.write_str("tcp flags ! syn,rst"),
            Self::SourceIsLocal => text.write_str("fib saddr type local"),
            Self::DestinationIsLocal => text.write_str("fib daddr type local"),
            Self::InputInterface {
                interface,
                inverted,
            } => {
                let not = if *inverted { "!= " } else { "" };
                write!(text, "iifname {not}\"{interface}\"")
            }
            Self::UpdateAffinity { protocol, seconds } => {
                let (ip, set) = (layer(family), SetName::Affinity(*protocol));
                let timeout = Timeout(*seconds);
                write!(
                    text,
                    "update @{set} {{ {ip} saddr . ct original {ip} daddr . ct original proto-dst \
                     timeout {timeout} : {ip} daddr . th dport }}"
                )
            }
            Self::DeleteAffinity { protocol } => {
                let (ip, set) = (layer(family), SetName::Affinity(*protocol));
                write!(
                    text,
                    "delete @{set} {{ {ip} saddr . ct original {ip} daddr . ct original proto-dst : \
                     {ip} daddr . th dport }}"
                )
            }
            Self::Protocol(protocol) => write!(text, "meta l4proto {protocol}"),
            Self::Lookup {
                fields,
                set,
                inverted,
            } => {
                write_fields(fields, family, text)?;
                let not = if *inverted { "!= " } else { "" };
                write!(text, " {not}@{set}")
            }
            Self::Vmap { fields, map } => {
                write_fields(fields, family, text)?;
                write!(text, " vmap @{map}")
            }
            Self::Dnat { fields, map } => {
                text.write_str(dnat_to(*map, family))?;
                write_fields(fields, family, text)?;
                write!(text, " map @{map}")
            }
            Self::Masquerade => text.write_str("masquerade fully-random"),
            // nft adds the match on TCP itself, and omits it in a listing.
            Self::RejectTcp => text.write_str("reject with tcp reset"),
            Self::Reject => text.write_str("reject"),
            Self::Drop => text.write_str("drop"),
            Self::Return => text.write_str("return"),
            Self::Jump(chain) => write!(text, "jump {chain}"),
            Self::Goto(chain) => write!(text, "goto {chain}"),
        }
    }
}
