//! Operations on elements, by their sets.

use std::collections::BTreeMap;

use super::{Op, Operation};
use crate::planner::model::Address;
use crate::planner::ruleset::{self, Key, SetName};

/// Operations on elements, by their sets and in the order in which they were pushed.
///
/// Operations of one set in a row go into one message. The kernel does not need them in the order of
/// their keys, and to sort a full sync would take a third of its plan.
pub(super) struct OperationsBySet<A: Address>(BTreeMap<SetName, Vec<Operation<A>>>);

impl<A: Address> Default for OperationsBySet<A> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<A: Address> OperationsBySet<A> {
    /// Adds an operation on an element of this set.
    pub(super) fn push(&mut self, set: SetName, operation: Operation<A>) {
        self.0.entry(set).or_default().push(operation);
    }

    /// Returns the number of operations.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Returns the number of operations on each set.
    pub(super) fn counts(&self) -> impl Iterator<Item = (SetName, usize)> {
        self.0
            .iter()
            .map(|(set, operations)| (*set, operations.len()))
    }

    /// Appends the operations to a list: those of intervals in the order of their keys, in which
    /// `nft` sends them, too.
    pub(super) fn append_to(self, list: &mut Vec<Operation<A>>) {
        for (set, mut operations) in self.0 {
            if ruleset::set(set).is_interval() {
                operations.sort_by_key(element_key);
            }
            list.append(&mut operations);
        }
    }
}

/// Returns the key of an operation on an element.
fn element_key<A: Address>(operation: &Operation<A>) -> Option<Key<A>> {
    match &operation.op {
        Op::Add(element) | Op::AddFor(element, _) => Some(element.key),
        Op::Delete(_, key) => Some(*key),
        Op::AddChain(_) | Op::DeleteChain(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ipnet::Ipv4Net;

    use super::*;

    #[test]
    fn operations_are_in_the_order_of_sets_and_those_of_intervals_also_of_keys() {
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        let plain = |last| (SetName::ClusterIps, Key::Address(address(last)));
        let range = |last| {
            let net = Ipv4Net::from(address(last));
            (SetName::PodCidrs, Key::Net(net))
        };
        let pushed = [range(9), plain(2), range(3), plain(1)];
        let mut operations = OperationsBySet::default();
        for (set, key) in pushed {
            let op = Op::Delete(set, key);
            operations.push(set, Operation { op, service: None });
        }
        assert_eq!(operations.len(), 4);
        let mut list = Vec::new();
        operations.append_to(&mut list);
        let mut expected = [plain(2), plain(1), range(3), range(9)];
        expected.sort_by_key(|(set, _)| *set);
        let expected = expected.map(|(set, key)| Op::Delete(set, key));
        let ops = list.into_iter().map(|operation| operation.op);
        assert_eq!(ops.collect::<Vec<_>>(), expected);
    }
}
