//! Operations on a table, and the transaction that commits them.

use std::fmt;
use std::time::Duration;

use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{DynamicChain, Element, InconsistentTable, Key, SetName, Table};

/// One operation on a table, named as in nft(8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<A: Address> {
    /// `add chain`, with the rules of the chain.
    AddChain(DynamicChain),
    /// `delete chain`, whose rules go with it.
    DeleteChain(DynamicChain),
    /// `add element` without a timeout.
    Add(Element<A>),
    /// `add element` with a timeout.
    AddFor(Element<A>, ElementTimeout),
    /// `delete element` by its key.
    Delete(SetName, Key<A>),
}

/// The timeout of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementTimeout {
    /// The timeout from the last time that a packet added or renewed the element.
    pub whole: Duration,
    /// The time until the element expires, at most `whole`.
    pub left: Duration,
}

/// The time left until a pinned client expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLeft {
    /// The client must be unpinned now.
    Nothing,
    /// The client stays pinned for this time.
    Time(ElementTimeout),
}

impl ElementTimeout {
    /// Returns the time left under another timeout, which changed at most `since` ago.
    ///
    /// A packet may have renewed the element since then: the renewal starts the new timeout, but
    /// the element keeps the old one (`nft_dynset_eval`).
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

/// An operation, and the Service that needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<A: Address> {
    /// The operation on the table.
    pub op: Op<A>,
    /// The Service; `None` if the operation is of the node or of a deleted Service.
    pub service: Option<ServiceName>,
}

impl<A: Address> Op<A> {
    /// Returns the dynamic chain that an added element needs.
    #[must_use]
    pub fn chain_for_element(&self) -> Option<DynamicChain> {
        match self {
            Self::Add(element) | Self::AddFor(element, _) => element.value.chain_for(element.set),
            Self::AddChain(_) | Self::DeleteChain(_) | Self::Delete(..) => None,
        }
    }
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
/// elements are deleted before others are added with the same key.
///
/// # Example
///
/// A Service with one endpoint has these elements in `table ip kube-dnat`:
///
/// ```text
/// map services  { tcp . 10.96.0.7 . 80 comment "shop/cart:http" : goto pick-1 }
/// map endpoints { tcp . 10.96.0.7 . 80 . 0 comment "shop/cart:http" : 10.244.1.9 . 8080 }
/// set hairpin   { 10.244.1.9 . 10.244.1.9 }
/// ```
///
/// When another endpoint replaces that one, the transaction replaces the elements with its address:
///
/// ```
/// use kube_dnat::planner::desired::NodeFacts;
/// use kube_dnat::{State, manifests};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// const SERVICE: &str = "
/// apiVersion: v1
/// kind: Service
/// metadata: { namespace: shop, name: cart }
/// spec: { clusterIPs: [10.96.0.7], ports: [{ name: http, port: 80 }] }";
///
/// const SLICE: &str = "
/// apiVersion: discovery.k8s.io/v1
/// kind: EndpointSlice
/// metadata: { namespace: shop, name: a, labels: { kubernetes.io/service-name: cart } }
/// addressType: IPv4
/// ports: [{ name: http, port: 8080 }]
/// endpoints: [{ addresses: [10.244.1.9] }]";
///
/// let mut state = State::new(NodeFacts::default());
/// let mut commit = |objects: &str| -> Result<Vec<String>, Box<dyn std::error::Error>> {
///     for event in manifests::read_text(objects, "node-1")?.events {
///         let _diagnostics = state.apply(event);
///     }
///     let (transactions, effects) = state.plan_changes().split();
///     let _diagnostics = state.committed(effects);
///     let operations = transactions.ipv4.operations;
///     Ok(operations.iter().map(|operation| operation.op.to_string()).collect())
/// };
///
/// commit(SERVICE)?;
/// commit(SLICE)?;
/// assert_eq!(
///     commit(&SLICE.replace("10.244.1.9", "10.244.1.10"))?,
///     [
///         "delete element endpoints { tcp . 10.96.0.7 . 80 . 0 }",
///         "delete element hairpin { 10.244.1.9 . 10.244.1.9 }",
///         r#"add element endpoints { tcp . 10.96.0.7 . 80 . 0 comment "shop/cart:http" : 10.244.1.10 . 8080 }"#,
///         "add element hairpin { 10.244.1.10 . 10.244.1.10 }",
///     ]
/// );
/// # Ok(())
/// # }
/// ```
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
    /// Whether the transaction has no operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Returns the number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Keeps the first half of the operations, or the only one, and returns the others.
    #[must_use]
    pub fn split(&mut self) -> Self {
        let half = self.operations.len().div_ceil(2);
        Self {
            operations: self.operations.split_off(half),
        }
    }

    /// Applies the operations to a table, as the kernel does.
    ///
    /// # Errors
    /// If an operation does not fit the table; those before it are applied.
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

    /// Applies a transaction to the table that it was planned for.
    ///
    /// # Panics
    /// Never: a planned operation fits the table.
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
    fn a_transaction_is_split_down_to_one_operation() {
        let mut whole = operations(5);
        let others = whole.split();
        assert_eq!(whole, operations(3));
        assert_eq!(others.operations, operations(5).operations[3..]);
        let mut one = operations(1);
        assert!(one.split().is_empty());
        assert_eq!(one, operations(1));
    }

    #[test]
    fn the_time_left_counts_from_the_last_renewal() {
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
