//! The few expressions and statements that our rules are made of.

use std::fmt;
use std::sync::Arc;

use super::{ChainName, EndpointList, SetName};
use crate::planner::model::Protocol;
use crate::planner::model::addr::Family;

/// A rule: statements from left to right.
pub type Rule = Vec<Statement>;

/// An interface by its name, or by how its name begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Just this one.
    Named(Arc<str>),
    /// Every one whose name begins so.
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

/// Seconds as nft prints a time: `1d2h3m4s` without what is 0.
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

/// A value that is looked up, alone or concatenated with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupField {
    /// `meta l4proto`.
    Protocol,
    /// `ip saddr` or `ip6 saddr`.
    Saddr,
    /// `ip daddr` or `ip6 daddr`.
    Daddr,
    /// `th dport`.
    Dport,
    /// `ct original ip daddr`: the address that the connection was first sent to.
    OriginalDaddr,
    /// `ct direction`.
    Direction,
    /// `ct original proto-dst`: the port that the connection was first sent to.
    OriginalDport,
    /// `numgen random mod SLOTS`, with the offset of the list.
    Random {
        /// How many slots to draw from; at least 1.
        slots: u32,
        /// The list they are of.
        list: EndpointList,
    },
}

/// One statement of a rule: a match, or what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Go on only with connections that no DNAT was applied to.
    NotDnat,
    /// Go on only with packets of connections whose first packet has passed: it came before there was any
    /// NAT, and conntrack translates them no more.
    Confirmed,
    /// Go on only if the source is one of the node's own addresses.
    SourceIsLocal,
    /// Go on only if the destination is one of the node's own addresses.
    DestinationIsLocal,
    /// Go on only if the packet came in, or did not come in, by an interface.
    InputInterface {
        /// Its name, or how the name begins.
        interface: Interface,
        /// Whether to go on if it did *not*.
        inverted: bool,
    },
    /// Remember for which endpoint a client's connection was meant: `update @affinity-tcp { ip
    /// saddr . ct original ip daddr . ct original proto-dst timeout 3h : ip daddr . th dport }`.
    Learn {
        /// The protocol, known to be that of the connection.
        protocol: Protocol,
        /// For how many seconds.
        seconds: u32,
    },
    /// Forget which endpoint a client has: `delete @affinity-tcp { ip saddr . ct original ip daddr .
    /// ct original proto-dst : ip daddr . th dport }`.
    Forget {
        /// The protocol, known to be that of the connection.
        protocol: Protocol,
    },
    /// Go on only with this protocol.
    Protocol(Protocol),
    /// Go on only if the fields are (or are not) in the set.
    Lookup {
        /// What is looked up.
        fields: Vec<LookupField>,
        /// Where.
        set: SetName,
        /// Whether to go on if they are *not* there.
        inverted: bool,
    },
    /// Do what the map says of the fields; go on if it says nothing.
    Vmap {
        /// What is looked up.
        fields: Vec<LookupField>,
        /// Where.
        map: SetName,
    },
    /// Send the connection to the endpoint that the map has for the fields; go on if it has none.
    Dnat {
        /// What is looked up.
        fields: Vec<LookupField>,
        /// Where.
        map: SetName,
    },
    /// Give the connection an address of this node as its source, and a random port.
    Masquerade,
    /// Refuse a TCP connection with a RST; go on with anything else.
    RejectTcp,
    /// Refuse with ICMP port unreachable.
    Reject,
    /// Drop silently.
    Drop,
    /// Leave the chain.
    Return,
    /// Go through the chain and come back.
    Jump(ChainName),
    /// Go through the chain and do not come back.
    Goto(ChainName),
}

/// nft's word for the network layer of a family.
#[must_use]
pub fn layer(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

impl LookupField {
    fn write(self, family: Family, text: &mut impl fmt::Write) -> fmt::Result {
        let ip = layer(family);
        match self {
            Self::Protocol => write!(text, "meta l4proto"),
            Self::Saddr => write!(text, "{ip} saddr"),
            Self::Daddr => write!(text, "{ip} daddr"),
            Self::Dport => write!(text, "th dport"),
            Self::OriginalDaddr => write!(text, "ct original {ip} daddr"),
            Self::OriginalDport => write!(text, "ct original proto-dst"),
            Self::Direction => write!(text, "ct direction"),
            Self::Random {
                slots,
                list: EndpointList::Own,
            } => write!(text, "numgen random mod {slots}"),
            Self::Random {
                slots,
                list: EndpointList::Cluster,
            } => write!(
                text,
                "numgen random mod {slots} offset {}",
                EndpointList::CLUSTER
            ),
        }
    }
}

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
            Self::NotDnat => text.write_str("ct status & dnat != dnat"),
            Self::Confirmed => text.write_str("ct status confirmed"),
            Self::SourceIsLocal => text.write_str("fib saddr type local"),
            Self::DestinationIsLocal => text.write_str("fib daddr type local"),
            Self::InputInterface {
                interface,
                inverted,
            } => {
                let not = if *inverted { "!= " } else { "" };
                write!(text, "iifname {not}\"{interface}\"")
            }
            Self::Learn { protocol, seconds } => {
                let (ip, set) = (layer(family), SetName::Affinity(*protocol));
                let timeout = Timeout(*seconds);
                write!(
                    text,
                    "update @{set} {{ {ip} saddr . ct original {ip} daddr . ct original proto-dst \
                     timeout {timeout} : {ip} daddr . th dport }}"
                )
            }
            Self::Forget { protocol } => {
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
                write!(text, "dnat {} to ", layer(family))?;
                write_fields(fields, family, text)?;
                write!(text, " map @{map}")
            }
            Self::Masquerade => text.write_str("masquerade fully-random"),
            // nft adds the match on TCP by itself, and leaves it out when it lists.
            Self::RejectTcp => text.write_str("reject with tcp reset"),
            Self::Reject => text.write_str("reject"),
            Self::Drop => text.write_str("drop"),
            Self::Return => text.write_str("return"),
            Self::Jump(chain) => write!(text, "jump {chain}"),
            Self::Goto(chain) => write!(text, "goto {chain}"),
        }
    }
}
