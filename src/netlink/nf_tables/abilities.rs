//! The abilities of nf_tables that our tables need, and a probe of each.

use std::fmt;

use nix::errno::Errno;

use super::{Kernel, encode, table};
use crate::netlink::nf_tables::batch::Batch;
use crate::netlink::{Commit, Error, RejectedAt, Rejection};
use crate::planner::model::addr::Family;
use crate::planner::model::{Balance, Protocol};
use crate::planner::ruleset::{
    Chain, ChainName, DynamicChain, FrontendKind, Hook, LookupField, Program, SetName, SlotRange,
    Statement,
};

/// An ability of nf_tables, which is in a module of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// Base chains of type nat.
    NatChains,
    /// The expression `ct`.
    Ct,
    /// The expression `fib`.
    Fib,
    /// The statement `dnat`.
    Dnat,
    /// The expression `numgen`.
    Numgen,
    /// The statement `masquerade`.
    Masquerade,
    /// The statement `reject` in a chain of type nat at prerouting (Linux 5.9).
    Reject,
    /// The expression `jhash`, which only `kube-dnat.io/balance` needs.
    Hash,
}

impl Ability {
    /// The abilities that our tables need whatever the Services ask for.
    const REQUIRED: [Self; 7] = [
        Self::NatChains,
        Self::Ct,
        Self::Fib,
        Self::Dnat,
        Self::Numgen,
        Self::Masquerade,
        Self::Reject,
    ];

    /// Returns the kernel's modules with this ability, as modprobe(8) takes them.
    #[must_use]
    pub fn modules(self) -> &'static str {
        match self {
            Self::NatChains => "nft_chain_nat",
            Self::Ct => "nft_ct",
            Self::Fib => "nft_fib_ipv4 nft_fib_ipv6",
            Self::Dnat => "nft_nat",
            Self::Numgen => "nft_numgen",
            Self::Masquerade => "nft_masq",
            Self::Reject => "nft_reject_ipv4 nft_reject_ipv6",
            Self::Hash => "nft_hash",
        }
    }

    /// Returns a base chain that needs this ability.
    fn chain(self) -> Chain {
        let prerouting = (ChainName::NatPrerouting, Hook::Prerouting);
        let postrouting = (ChainName::NatPostrouting, Hook::Postrouting);
        let ((name, hook), rules) = match self {
            Self::NatChains => (prerouting, Vec::new()),
            Self::Ct => (
                postrouting,
                vec![vec![Statement::CtStatusNotDnat, Statement::Return]],
            ),
            Self::Fib => (
                prerouting,
                vec![vec![Statement::SourceIsLocal, Statement::Return]],
            ),
            Self::Dnat => {
                let fields = vec![LookupField::Saddr, LookupField::Daddr, LookupField::Dport];
                let map = SetName::Affinity(Protocol::Tcp);
                (prerouting, vec![vec![Statement::Dnat { fields, map }]])
            }
            Self::Numgen => {
                let pick = DynamicChain::Pick(FrontendKind::Address, SlotRange::Own, 1);
                (prerouting, pick.chain().rules)
            }
            Self::Masquerade => (postrouting, vec![vec![Statement::Masquerade]]),
            Self::Hash => {
                let (kind, list) = (FrontendKind::Address, SlotRange::Own);
                let hashed = DynamicChain::Hashed(Balance::Maglev, kind, list, 1);
                (prerouting, hashed.chain().rules)
            }
            Self::Reject => (
                prerouting,
                vec![vec![Statement::RejectTcp], vec![Statement::Reject]],
            ),
        };
        Chain {
            name,
            hook: Some((hook, 0)),
            rules,
        }
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::NatChains => "chains of type nat",
            Self::Ct => "ct",
            Self::Fib => "fib",
            Self::Dnat => "dnat",
            Self::Numgen => "numgen",
            Self::Masquerade => "masquerade",
            Self::Reject => "reject in chains of type nat",
            Self::Hash => "jhash",
        };
        write!(f, "{word} (modules {})", self.modules())
    }
}

impl Kernel {
    /// Returns the abilities that our tables of these families need and the kernel lacks. Each is
    /// probed in a transaction that the kernel undoes.
    ///
    /// # Errors
    /// As for [`Self::commit`], but for rejections.
    pub fn missing_abilities(&mut self, families: &[Family]) -> Result<Vec<Ability>, Error> {
        let mut missing = Vec::new();
        for ability in Ability::REQUIRED {
            if self.lacks(ability, families)? {
                missing.push(ability);
            }
        }
        Ok(missing)
    }

    /// Returns whether the kernel lacks an ability for tables of these families, with a transaction
    /// that the kernel undoes.
    ///
    /// # Errors
    /// As for [`Self::commit`], but for rejections.
    pub fn lacks(&mut self, ability: Ability, families: &[Family]) -> Result<bool, Error> {
        let mut batch = Batch::new();
        for family in families {
            table::push_recreate(&mut batch, *family, false);
            let chains = [ability.chain()];
            encode::push_objects(&mut batch, *family, &Program::default(), &chains);
        }
        self.rejects(batch)
    }

    /// Returns whether the kernel rejects a transaction for its content; the kernel undoes it in
    /// any case.
    fn rejects(&mut self, mut batch: Batch) -> Result<bool, Error> {
        table::push_undo(&mut batch);
        match self.send(batch, &Commit::default()) {
            Err(Error::Rejected(rejections)) => {
                // EPERM: another process owns the table, so the kernel has every ability.
                let is_real = |rejection: &Rejection| {
                    rejection.at != RejectedAt::Undo && rejection.errno != Errno::EPERM
                };
                Ok(rejections.iter().any(is_real))
            }
            Ok(()) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
