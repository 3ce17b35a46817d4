//! What is committed at once.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::batch::Batch;
use super::element::PinnedClient;
use super::{encode, table};
use crate::planner::diff::{Op, Operation, TimeLeft, Transaction};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Element, Program, SetName};

/// What is committed for one family.
#[derive(Debug)]
pub struct FamilyCommit<A: Address> {
    /// Make the table anew first: whatever it holds goes, in the same transaction.
    pub rebuild: Option<Program>,
    /// The operations, after that.
    pub transaction: Transaction<A>,
}

impl<A: Address> Default for FamilyCommit<A> {
    fn default() -> Self {
        Self {
            rebuild: None,
            transaction: Transaction::default(),
        }
    }
}

impl<A: Address> FamilyCommit<A> {
    /// Deletes these clients from the affinity map of a protocol, but for those that have a time left:
    /// that is their time then.
    #[must_use]
    pub fn forget(protocol: Protocol, clients: &[(PinnedClient<A>, TimeLeft)]) -> Self {
        let set = SetName::Affinity(protocol);
        let delete = |(client, _): &(PinnedClient<A>, _)| Op::Delete(set, client.key);
        let keep = |(client, left): &(PinnedClient<A>, TimeLeft)| {
            let element = Element {
                set,
                key: client.key,
                value: client.endpoint,
                comment: None,
            };
            match left {
                TimeLeft::Nothing => None,
                TimeLeft::Time(time) => Some(Op::AddFor(element, *time)),
            }
        };
        let deletes = clients.iter().map(delete);
        let operations = deletes.chain(clients.iter().filter_map(keep));
        let operations = operations.map(|op| Operation { op, service: None });
        Self {
            rebuild: None,
            transaction: Transaction {
                operations: operations.collect(),
            },
        }
    }
}

/// What is committed at once: both families, all or nothing.
#[derive(Debug, Default)]
pub struct Commit {
    /// For `table ip kube-dnat`.
    pub ipv4: FamilyCommit<Ipv4Addr>,
    /// For `table ip6 kube-dnat`.
    pub ipv6: FamilyCommit<Ipv6Addr>,
}

impl Commit {
    /// The number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ipv4.transaction.len() + self.ipv6.transaction.len()
    }

    /// The bytes that the kernel is sent for it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let batch = self.batch(false);
        if batch.is_empty() {
            return 0;
        }
        let finished = batch.finish();
        finished.pages().iter().map(|page| page.len()).sum()
    }

    pub(super) fn batch(&self, owner: bool) -> Batch {
        let mut batch = Batch::new();
        push(&mut batch, &self.ipv4, owner);
        push(&mut batch, &self.ipv6, owner);
        batch
    }

    /// What deletes elements that may be gone already.
    pub(super) fn tolerant_batch(&self) -> Batch {
        let mut batch = Batch::new();
        encode::push_tolerant(&mut batch, &self.ipv4.transaction);
        encode::push_tolerant(&mut batch, &self.ipv6.transaction);
        batch
    }

    /// Leaves the first half of the operations of each family, and returns the others; `None`: there is
    /// no family with two.
    pub fn split(&mut self) -> Option<Self> {
        let mut others = Self::default();
        others.ipv4.transaction = self.ipv4.transaction.split();
        others.ipv6.transaction = self.ipv6.transaction.split();
        Some(others).filter(|others| !others.is_empty())
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !self.rebuilds()
    }

    /// Whether a table is replaced.
    #[must_use]
    pub fn rebuilds(&self) -> bool {
        self.ipv4.rebuild.is_some() || self.ipv6.rebuild.is_some()
    }
}

impl From<FamilyCommit<Ipv4Addr>> for Commit {
    fn from(ipv4: FamilyCommit<Ipv4Addr>) -> Self {
        let ipv6 = FamilyCommit::default();
        Self { ipv4, ipv6 }
    }
}

impl From<FamilyCommit<Ipv6Addr>> for Commit {
    fn from(ipv6: FamilyCommit<Ipv6Addr>) -> Self {
        let ipv4 = FamilyCommit::default();
        Self { ipv4, ipv6 }
    }
}

fn push<A: Address>(batch: &mut Batch, part: &FamilyCommit<A>, owner: bool) {
    if let Some(fixed) = &part.rebuild {
        table::push_anew(batch, A::FAMILY, owner);
        encode::push_program(batch, A::FAMILY, fixed);
    }
    encode::push_transaction(batch, &part.transaction);
}
