//! Balance chains: draw a slot and send the connection to the endpoint in it.

use std::fmt;
use std::str::FromStr;

use super::{Chain, ChainName, Field, SetName, Statement};

/// A balance chain, shared by every frontend that has this many endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Balance {
    /// `pick-N`: for an address and port.
    Pick(u32),
    /// `nodeport-N`: for a node port, on whichever address of the node it was reached.
    Nodeport(u32),
}

impl Balance {
    /// The chain with its rules.
    ///
    /// The second draws from one slot. A packet may have read its verdict before a commit that
    /// takes away the last slot, and draw that slot after it: it falls through to slot 0, which is
    /// there as long as the frontend has any endpoint.
    #[must_use]
    pub fn chain(self) -> Chain {
        let slots = match self {
            Self::Pick(slots) | Self::Nodeport(slots) => slots,
        };
        let fallback = (slots > 1).then(|| vec![self.pick(1)]);
        Chain {
            name: ChainName::Balance(self),
            hook: None,
            rules: [vec![self.pick(slots)]]
                .into_iter()
                .chain(fallback)
                .collect(),
        }
    }

    fn pick(self, slots: u32) -> Statement {
        let random = Field::Random { slots };
        match self {
            Self::Pick(_) => Statement::Dnat {
                fields: vec![Field::Protocol, Field::Daddr, Field::Dport, random],
                map: SetName::Endpoints,
            },
            Self::Nodeport(_) => Statement::Dnat {
                fields: vec![Field::Protocol, Field::Dport, random],
                map: SetName::NodeportEndpoints,
            },
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pick(slots) => write!(f, "pick-{slots}"),
            Self::Nodeport(slots) => write!(f, "nodeport-{slots}"),
        }
    }
}

/// The name is not one of a balance chain.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a balance chain")]
pub struct NotABalanceChain;

impl FromStr for Balance {
    type Err = NotABalanceChain;

    fn from_str(name: &str) -> Result<Self, NotABalanceChain> {
        let (kind, slots) = name.rsplit_once('-').ok_or(NotABalanceChain)?;
        let slots = slots.parse().ok().filter(|slots| *slots > 0);
        let balance = match (kind, slots) {
            ("pick", Some(slots)) => Self::Pick(slots),
            ("nodeport", Some(slots)) => Self::Nodeport(slots),
            _ => return Err(NotABalanceChain),
        };
        // "pick-007" would parse, but is not a name we give.
        if balance.to_string() == name {
            Ok(balance)
        } else {
            Err(NotABalanceChain)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for balance in [Balance::Pick(1), Balance::Pick(65535), Balance::Nodeport(3)] {
            assert_eq!(balance.to_string().parse(), Ok(balance));
        }
        for other in [
            "pick", "pick-", "pick-0", "pick-03", "services", "refuse", "pick-x",
        ] {
            assert_eq!(other.parse::<Balance>(), Err(NotABalanceChain), "{other}");
        }
    }
}
