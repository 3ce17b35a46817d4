//! Chains with their hooks and rules.
//!
//! Every base chain has the type nat: the kernel evaluates it only for the first packet of a
//! connection (`nf_nat_inet_fn`). The exception is [`TcpPickup::Strict`], for packets of no
//! connection.

use super::{ChainName, DynamicChain, Rule, TcpPickup};

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    /// Evaluated for the first packet of a connection.
    Nat,
    /// Evaluated for every packet.
    Filter,
}

/// The netfilter hook that evaluates a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Incoming packets, before routing.
    Prerouting,
    /// Packets to the node itself.
    Input,
    /// Forwarded packets; kube-dnat has no chain here.
    Forward,
    /// Packets of the node itself.
    Output,
    /// Outgoing packets, after routing.
    Postrouting,
}

impl Hook {
    /// Returns the kernel's number of the hook (`enum nf_inet_hooks` in `linux/netfilter.h`).
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

/// A chain of kube-dnat's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The name of the chain.
    pub name: ChainName,
    /// The hook and priority of a base chain, whose policy is accept.
    pub hook: Option<(Hook, i32)>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

impl ChainType {
    /// Returns the kernel's and nft's name of the type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

impl Chain {
    /// Returns the type of a base chain; `None` for a chain that other chains call.
    #[must_use]
    pub fn chain_type(&self) -> Option<ChainType> {
        self.hook.as_ref()?;
        let strict = |name| {
            matches!(
                name,
                ChainName::Dynamic(DynamicChain::Closed(TcpPickup::Strict, _))
            )
        };
        Some(if strict(self.name) {
            ChainType::Filter
        } else {
            ChainType::Nat
        })
    }
}
