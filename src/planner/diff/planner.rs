//! The planner, which compares elements and computes the transaction of a change.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::by_set::OperationsBySet;
use super::shared::is_shared;
use super::{Applied, Delta, DesiredChange, Op, Operation, Plan, Transaction};
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{DynamicChain, Element, Key, SetName};

/// The operations and counters of a plan, while its elements are compared.
pub(super) struct Planner<'a, A: Address> {
    applied: &'a Applied<A>,
    deletes: OperationsBySet<A>,
    adds: OperationsBySet<A>,
    /// The new number of Services that need each shared element, and the Service that changed it.
    shared: BTreeMap<(SetName, Key<A>), (u32, Option<ServiceName>)>,
    /// The new number of elements and chains that go to each chain.
    chains: BTreeMap<DynamicChain, usize>,
}

impl<'a, A: Address> Planner<'a, A> {
    /// Creates a planner without operations.
    pub(super) fn new(applied: &'a Applied<A>) -> Self {
        Self {
            applied,
            deletes: OperationsBySet::default(),
            adds: OperationsBySet::default(),
            shared: BTreeMap::new(),
            chains: BTreeMap::new(),
        }
    }

    /// Adds the operations between two lists of elements in the order of sets and keys.
    pub(super) fn compare(
        &mut self,
        before: &[Element<A>],
        after: Vec<Element<A>>,
        service: Option<&ServiceName>,
    ) {
        let mut before = before.iter().peekable();
        for element in after {
            loop {
                let order = before.peek().map_or(Ordering::Greater, |old| {
                    (old.set, old.key).cmp(&(element.set, element.key))
                });
                match order {
                    Ordering::Less => {
                        if let Some(old) = before.next() {
                            self.delete(old, service);
                        }
                    }
                    Ordering::Equal => {
                        if let Some(old) = before.next().filter(|old| **old != element) {
                            self.delete(old, service);
                            self.add(element, service);
                        }
                        break;
                    }
                    Ordering::Greater => {
                        self.add(element, service);
                        break;
                    }
                }
            }
        }
        for old in before {
            self.delete(old, service);
        }
    }

    fn delete(&mut self, element: &Element<A>, service: Option<&ServiceName>) {
        if is_shared(element.set) {
            let (count, changed_by) = self.shared_count(element);
            *count = count.saturating_sub(1);
            *changed_by = service.cloned();
            return;
        }
        if let Some(chain) = element.value.chain_for(element.set) {
            let count = self.chain_count(chain);
            *count = count.saturating_sub(1);
        }
        let operation = Operation {
            op: Op::Delete(element.set, element.key),
            service: service.cloned(),
        };
        self.deletes.push(element.set, operation);
    }

    fn add(&mut self, element: Element<A>, service: Option<&ServiceName>) {
        if is_shared(element.set) {
            let (count, changed_by) = self.shared_count(&element);
            *count += 1;
            *changed_by = service.cloned();
            return;
        }
        if let Some(chain) = element.value.chain_for(element.set) {
            *self.chain_count(chain) += 1;
        }
        let set = element.set;
        let operation = Operation {
            op: Op::Add(element),
            service: service.cloned(),
        };
        self.adds.push(set, operation);
    }

    fn shared_count(&mut self, element: &Element<A>) -> &mut (u32, Option<ServiceName>) {
        let key = (element.set, element.key);
        let now = || (self.applied.shared.count(key.0, &key.1), None);
        self.shared.entry(key).or_insert_with(now)
    }

    fn chain_count(&mut self, chain: DynamicChain) -> &mut usize {
        let now = || self.applied.chains.get(&chain).copied().unwrap_or(0);
        self.chains.entry(chain).or_insert_with(now)
    }

    /// Returns the plan of a change whose elements are compared.
    pub(super) fn finish(mut self, change: DesiredChange<A>) -> Plan<A> {
        self.push_shared();
        let elements = self.element_counts();
        let chains = self.new_chains();
        let count = chains.len() + self.deletes.len() + self.adds.len();
        let mut operations = Vec::with_capacity(count);
        operations.extend(chains.into_iter().map(add_chain));
        self.deletes.append_to(&mut operations);
        self.adds.append_to(&mut operations);
        Plan {
            delta: Delta {
                change,
                shared: self
                    .shared
                    .into_iter()
                    .map(|(key, (count, _))| (key, count))
                    .collect(),
                chains: self.chains,
                elements,
            },
            transaction: Transaction { operations },
        }
    }

    /// Adds the operations on the shared elements that a first Service needs, or none any more.
    fn push_shared(&mut self) {
        for ((set, key), (count, changed_by)) in &self.shared {
            let (set, key) = (*set, *key);
            let before = self.applied.shared.count(set, &key);
            let unneeded = &self.applied.unneeded;
            let (operations, op) = match (before, *count) {
                (0, 1..) if unneeded.contains(&(set, key)) => continue,
                (1.., 0) if unneeded.are_kept() => continue,
                (0, 1..) => (&mut self.adds, Op::Add(Element::shared(set, key))),
                (1.., 0) => (&mut self.deletes, Op::Delete(set, key)),
                (0, 0) | (1.., 1..) => continue,
            };
            let service = changed_by.clone();
            operations.push(set, Operation { op, service });
        }
    }

    /// Returns the new numbers of elements of the sets that operations change.
    fn element_counts(&self) -> BTreeMap<SetName, usize> {
        let before = |set| self.applied.elements.get(&set).copied().unwrap_or(0);
        let mut counts = BTreeMap::new();
        for (set, added) in self.adds.counts() {
            *counts.entry(set).or_insert_with(|| before(set)) += added;
        }
        for (set, deleted) in self.deletes.counts() {
            let count = counts.entry(set).or_insert_with(|| before(set));
            *count = count.saturating_sub(deleted);
        }
        counts
    }

    /// Returns the chains that do not exist yet, each after those that it goes to, and counts their
    /// rules, which go to a chain as an element does.
    fn new_chains(&mut self) -> Vec<DynamicChain> {
        let applied = self.applied;
        let mut new_chains: BTreeSet<_> = self
            .chains
            .keys()
            .copied()
            .filter(|chain| is_new_chain(applied, *chain))
            .collect();
        let mut targets: Vec<_> = new_chains
            .iter()
            .filter_map(|chain| chain.goto_target())
            .collect();
        while let Some(chain) = targets.pop() {
            *self.chain_count(chain) += 1;
            if is_new_chain(applied, chain) && new_chains.insert(chain) {
                targets.extend(chain.goto_target());
            }
        }
        // A chain sorts after those that it goes to.
        new_chains.into_iter().collect()
    }
}

fn is_new_chain<A: Address>(applied: &Applied<A>, chain: DynamicChain) -> bool {
    !chain.is_initial() && !applied.chains.contains_key(&chain)
}

/// Returns the operation that adds a dynamic chain.
fn add_chain<A: Address>(chain: DynamicChain) -> Operation<A> {
    Operation {
        op: Op::AddChain(chain),
        service: None,
    }
}
