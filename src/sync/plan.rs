//! The plan and the outcome of a sync: the plans of both families together.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::family::{Effects, FamilyPlan};
use crate::per_family;
use crate::planner::diff::{KernelView, Transaction};
use crate::planner::dual::Dual;

/// The plan of a sync: one of each family.
pub type SyncPlan = Dual<FamilyPlan<Ipv4Addr>, FamilyPlan<Ipv6Addr>>;

/// The transactions of a sync.
pub type Transactions = Dual<Transaction<Ipv4Addr>, Transaction<Ipv6Addr>>;

/// The changes of the state that a committed [`SyncPlan`] causes.
pub type SyncEffects = Dual<Effects<Ipv4Addr>, Effects<Ipv6Addr>>;

/// The state of the kernel that a [`SyncPlan`] starts from.
pub type KernelViews = Dual<KernelView>;

impl SyncPlan {
    /// Splits the plan into the transactions for the kernel and the effects of their commit.
    #[must_use]
    pub fn split(self) -> (Transactions, SyncEffects) {
        per_family!(self, |plan| (plan.transaction, plan.effects)).unzip()
    }
}

/// The outcome of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// The kernel holds everything that is desired.
    Complete,
    /// The kernel holds everything except the Services that it rejects.
    SomeSkipped,
    /// The tables are being read back, and the next step can follow at once.
    Reading,
    /// A change is pending.
    Pending,
}
