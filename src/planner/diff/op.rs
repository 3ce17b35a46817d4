//! Operations on a table, and the transaction they are committed in.

use std::fmt;
use std::time::Duration;

use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{DynamicChain, Element, InconsistentTable, Key, SetName, Table};

/// One operation, in nft's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<A: Address> {
    /// `add chain`, with its rule.
    AddChain(DynamicChain),
    /// `delete chain`.
    DeleteChain(DynamicChain),
    /// `add element`.
    Add(Element<A>),
    /// `add element`, which times out.
    AddFor(Element<A>, ElementTimeout),
    /// `delete element`.
    Delete(SetName, Key<A>),
}

/// For how long an element is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementTimeout {
    /// Since it was last made or renewed.
    pub whole: Duration,
    /// From now on; not longer.
    pub left: Duration,
}

/// What is left of the time that a client is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLeft {
    /// Nothing.
    Nothing,
    /// This.
    Time(ElementTimeout),
}

impl ElementTimeout {
    /// What is left once the time-out is another, which it became not longer than `since` ago. A packet may have renewed the element since then: it begins the new time-out, but the
    /// element keeps the old one (`nft_dynset_eval`).
    #[must_use]
    pub fn changed_to(self, whole: Duration, since: Duration) -> TimeLeft {
        let renewed = whole
            .checked_sub(self.left)
            .is_some_and(|gone| gone <= since);
        let left = if renewed {
            self.left
        } else {
            let gone = self.whole.saturating_sub(self.left);
            whole.saturating_sub(gone)
        };
        if left.is_zero() {
            TimeLeft::Nothing
        } else {
            TimeLeft::Time(Self { whole, left })
        }
    }
}

/// An operation and the Service it is for; `None` if it is for the node or for no one any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<A: Address> {
    /// What to do.
    pub op: Op<A>,
    /// For whom.
    pub service: Option<ServiceName>,
}

impl<A: Address> fmt::Display for Op<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddChain(chain) => write!(f, "add chain {chain}"),
            Self::DeleteChain(chain) => write!(f, "delete chain {chain}"),
            Self::Add(element) => write!(f, "add element {} {{ {element} }}", element.set),
            Self::AddFor(element, ElementTimeout { whole, left }) => write!(
                f,
                "add element {} {{ {element} timeout {whole:?} expires {left:?} }}",
                element.set
            ),
            Self::Delete(set, key) => write!(f, "delete element {set} {{ {key} }}"),
        }
    }
}

/// Operations that take effect together or not at all.
///
/// Their order is valid at each step: chains are added before the elements that go to them, and
/// elements are deleted before others are added under the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction<A: Address> {
    /// The operations, in order.
    pub operations: Vec<Operation<A>>,
}

impl<A: Address> Default for Transaction<A> {
    fn default() -> Self {
        Self {
            operations: Vec::new(),
        }
    }
}

impl<A: Address> Transaction<A> {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Leaves the first half of the operations, of one that one, and returns the others.
    #[must_use]
    pub fn split(&mut self) -> Self {
        let half = self.operations.len().div_ceil(2);
        Self {
            operations: self.operations.split_off(half),
        }
    }

    /// Does to `table` what the kernel would do to its own.
    ///
    /// # Errors
    /// If `table` cannot take an operation; those before it are done.
    pub fn apply(&self, table: &mut Table<A>) -> Result<(), InconsistentTable> {
        for operation in &self.operations {
            match &operation.op {
                Op::AddChain(chain) => table.add_chain(*chain)?,
                Op::DeleteChain(chain) => table.delete_chain(*chain)?,
                Op::Add(element) | Op::AddFor(element, _) => table.add(element.clone())?,
                Op::Delete(set, key) => table.delete(*set, key)?,
            }
        }
        Ok(())
    }
}

impl<A: Address> Transaction<A> {
    /// Applies a transaction to the table that it was planned for.
    ///
    /// # Panics
    /// Never: a planned operation fits the table before it.
    pub fn apply_planned(&self, table: &mut Table<A>) {
        #[expect(
            clippy::expect_used,
            reason = "tests/planner applies every plan to a checked table, whatever the events"
        )]
        self.apply(table)
            .expect("a planned operation fits the table");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn operations(count: u16) -> Transaction<Ipv4Addr> {
        let delete = |port| Operation {
            op: Op::Delete(SetName::Services, Key::Port(port)),
            service: None,
        };
        Transaction {
            operations: (0..count).map(delete).collect(),
        }
    }

    #[test]
    fn a_transaction_is_split_down_to_one() {
        let mut whole = operations(5);
        let others = whole.split();
        assert_eq!(whole, operations(3));
        assert_eq!(others.operations, operations(5).operations[3..]);
        let mut one = operations(1);
        assert!(one.split().is_empty());
        assert_eq!(one, operations(1));
    }

    #[test]
    fn what_is_left_of_a_time_counts_from_when_it_began() {
        let seconds = Duration::from_secs;
        let left = |whole, left, now, since| {
            let timeout = ElementTimeout {
                whole: seconds(whole),
                left: seconds(left),
            };
            match timeout.changed_to(seconds(now), seconds(since)) {
                TimeLeft::Nothing => None,
                TimeLeft::Time(timeout) => Some((timeout.whole.as_secs(), timeout.left.as_secs())),
            }
        };
        assert_eq!(left(10_800, 10_790, 60, 1), Some((60, 50)), "shorter");
        assert_eq!(left(10_800, 10_740, 60, 1), None, "over");
        assert_eq!(left(10_800, 30, 60, 1), None, "long over");
        assert_eq!(left(60, 50, 10_800, 1), Some((10_800, 10_790)), "longer");
        assert_eq!(left(10_800, 59, 60, 1), Some((60, 59)), "renewed since");
        assert_eq!(
            left(60, 10_799, 10_800, 1),
            Some((10_800, 10_799)),
            "renewed since"
        );
        assert_eq!(left(60, 50, 60, 1), Some((60, 50)), "the same");
    }
}
