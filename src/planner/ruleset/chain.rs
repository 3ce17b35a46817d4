//! A chain: where the kernel calls it from, and its rules. Every base chain is of type nat, which
//! the kernel runs for the first packet of a connection only (`nf_nat_inet_fn`).

use super::{ChainName, Rule};

/// The point of the packet's way that a base chain is called from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What comes in, before routing.
    Prerouting,
    /// What is for the node itself.
    Input,
    /// What is routed through. None of our chains.
    Forward,
    /// What the node itself sends.
    Output,
    /// What leaves, after routing.
    Postrouting,
}

impl Hook {
    /// The kernel's number (`enum nf_inet_hooks` of `linux/netfilter.h`).
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

/// A chain of our table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: ChainName,
    /// For a base chain: its hook and priority. Its type is nat, its policy accept.
    pub hook: Option<(Hook, i32)>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}
