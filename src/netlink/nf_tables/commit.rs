//! Commits: the transactions of all families, and the batches that they are sent as.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::batch::Batch;
use super::element::PinnedClient;
use super::{encode, operations, table};
use crate::per_family;
use crate::planner::diff::{Op, Operation, TimeLeft, Transaction};
use crate::planner::dual::Dual;
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Element, Program, SetName};

/// The part of a commit that changes one family's table.
#[derive(Debug)]
pub struct FamilyCommit<A: Address> {
    /// The program to recreate the table with, before the operations and in the same transaction.
    pub rebuild: Option<Program>,
    /// The operations, in order.
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
    /// Makes the commit that deletes these clients from the affinity map of a protocol, and adds a
    /// client with time left again with that time.
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
        let operations = deletes
            .chain(clients.iter().filter_map(keep))
            .map(|op| Operation { op, service: None })
            .collect();
        Transaction { operations }.into()
    }
}

impl<A: Address> From<Transaction<A>> for FamilyCommit<A> {
    fn from(transaction: Transaction<A>) -> Self {
        Self {
            rebuild: None,
            transaction,
        }
    }
}

/// A commit: the kernel accepts the parts of all families, or none.
pub type Commit = Dual<FamilyCommit<Ipv4Addr>, FamilyCommit<Ipv6Addr>>;

impl Commit {
    /// Returns the number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        per_family!(self.as_ref(), |part| part.transaction.len())
            .into_iter()
            .sum()
    }

    /// Returns the number of bytes that [`super::Kernel::commit`] sends.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let batch = self.batch(false);
        if batch.is_empty() {
            return 0;
        }
        let finished = batch.finish();
        finished.pages().iter().map(|page| page.len()).sum()
    }

    /// Returns the batch of this commit; rebuilt tables get this process as their `owner` or none.
    pub(super) fn batch(&self, owner: bool) -> Batch {
        let mut batch = Batch::with_room(operations::most_bytes(self.len()));
        per_family!(self.as_ref(), |part| push(&mut batch, part, owner));
        batch
    }

    /// Returns the batch of this commit that deletes elements whether they exist or not (Linux
    /// 6.3).
    pub(super) fn tolerant_batch(&self) -> Batch {
        let mut batch = Batch::with_room(operations::most_bytes(self.len()));
        per_family!(self.as_ref(), |part| operations::push_destroying(
            &mut batch,
            &part.transaction
        ));
        batch
    }

    /// Keeps the first half of each family's operations and returns the others; `None` if no family
    /// has two operations.
    pub fn split(&mut self) -> Option<Self> {
        let others = per_family!(self.as_mut(), |part| part.transaction.split().into());
        Some(others).filter(|others: &Self| !others.is_empty())
    }

    /// Whether the commit has no operation and rebuilds no table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !self.rebuilds()
    }

    /// Whether the commit rebuilds a table.
    #[must_use]
    pub fn rebuilds(&self) -> bool {
        per_family!(self.as_ref(), |part| part.rebuild.is_some()).any()
    }
}

impl From<Dual<Transaction<Ipv4Addr>, Transaction<Ipv6Addr>>> for Commit {
    fn from(transactions: Dual<Transaction<Ipv4Addr>, Transaction<Ipv6Addr>>) -> Self {
        per_family!(transactions, |transaction| transaction.into())
    }
}

impl From<FamilyCommit<Ipv4Addr>> for Commit {
    fn from(ipv4: FamilyCommit<Ipv4Addr>) -> Self {
        Self { ipv4, ipv6: None }
    }
}

impl From<FamilyCommit<Ipv6Addr>> for Commit {
    fn from(ipv6: FamilyCommit<Ipv6Addr>) -> Self {
        Self::both(FamilyCommit::default(), ipv6)
    }
}

/// Adds the messages of one family's part.
fn push<A: Address>(batch: &mut Batch, part: &FamilyCommit<A>, owner: bool) {
    if let Some(fixed) = &part.rebuild {
        table::push_recreate(batch, A::FAMILY, owner);
        encode::push_program(batch, A::FAMILY, fixed);
    }
    operations::push(batch, &part.transaction);
}
