//! The planner: from the picture and what changed to a transaction and the next picture.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Applied, Op, Operation, Transaction};
use crate::planner::desired::{NodeElements, ServiceElements};
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{DynamicChain, Element, Key, SetName, Table, Value, Verdict};

/// What should differ from the picture.
#[derive(Clone, Debug)]
pub struct DesiredChange<A: Address> {
    /// Services that may differ, and what each should contribute; `None`: nothing.
    pub services: BTreeMap<ServiceName, Option<ServiceElements<A>>>,
    /// What the node should contribute, if that may differ.
    pub node: Option<NodeElements<A>>,
    /// The endpoints that clients must not keep, if that may differ.
    pub gone: Option<GoneElements<A>>,
}

/// What happens to clients who still have an endpoint that they must not keep.
pub type GoneElements<A> = BTreeMap<(SetName, Key<A>), Verdict>;

impl<A: Address> Default for DesiredChange<A> {
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
            node: None,
            gone: None,
        }
    }
}

/// A transaction, and what it changes in the applied state once the kernel committed it.
#[derive(Debug)]
pub struct Plan<A: Address> {
    /// The operations, moved to the kernel.
    pub transaction: Transaction<A>,
    /// The change of the applied state, moved there by [`Applied::committed`].
    pub delta: Delta<A>,
}

/// What a committed transaction changes in the applied state.
#[derive(Debug)]
pub struct Delta<A: Address> {
    pub(super) change: DesiredChange<A>,
    pub(super) shared: BTreeMap<(SetName, Key<A>), usize>,
    pub(super) chains: BTreeMap<DynamicChain, usize>,
    /// How many elements there are of the sets that change.
    pub(super) elements: BTreeMap<SetName, usize>,
}

impl<A: Address> Plan<A> {
    /// Plans `change`. Linear in the Services that `change` names.
    #[must_use]
    pub fn new(applied: &Applied<A>, change: DesiredChange<A>) -> Self {
        let mut planner = Planner {
            applied,
            deletes: Vec::new(),
            adds: Vec::new(),
            shared: BTreeMap::new(),
            chains: BTreeMap::new(),
        };
        if let Some(node) = &change.node {
            planner.compare(&applied.node.elements(), node.elements(), None);
        }
        if let Some(gone) = &change.gone {
            planner.compare(&gone_elements(&applied.gone), gone_elements(gone), None);
        }
        for (name, service_elements) in &change.services {
            let before = applied.services.get(name);
            let (before, after) = match (before, service_elements) {
                (Some(before), Some(after)) => (
                    before.changed_elements(after),
                    after.changed_elements(before),
                ),
                (_, after) => {
                    let after = after.as_ref();
                    (
                        applied.elements_of(name),
                        after.map_or_else(Vec::new, ServiceElements::elements),
                    )
                }
            };
            planner.compare(&before, after, Some(name));
        }
        planner.finish(change)
    }
}

/// These as elements, in order.
pub(super) fn gone_elements<A: Address>(gone: &GoneElements<A>) -> Vec<Element<A>> {
    let element = |((set, key), verdict): (&(SetName, Key<A>), &Verdict)| Element {
        set: *set,
        key: *key,
        value: Value::Verdict(*verdict),
        comment: None,
    };
    gone.iter().map(element).collect()
}

/// Sets whose elements several Services may want at once: a `ClusterIP` for each of its ports, an
/// endpoint's address for each Service it answers.
pub(super) fn is_shared(set: SetName) -> bool {
    matches!(
        set,
        SetName::ClusterIps | SetName::ClusterIpsSticky | SetName::Hairpin
    )
}

fn chain_of<A>(value: &Value<A>) -> Option<DynamicChain> {
    match value {
        Value::Verdict(Verdict::OnDemand(chain)) => Some(*chain),
        Value::Verdict(_) | Value::Nothing | Value::Endpoint(..) => None,
    }
}

struct Planner<'a, A: Address> {
    applied: &'a Applied<A>,
    deletes: Vec<Operation<A>>,
    adds: Vec<Operation<A>>,
    /// How many want each shared element afterwards, and whose doing that is.
    shared: BTreeMap<(SetName, Key<A>), (usize, Option<ServiceName>)>,
    /// How many elements go to each chain afterwards.
    chains: BTreeMap<DynamicChain, usize>,
}

impl<A: Address> Planner<'_, A> {
    fn compare(&mut self, before: &[Element<A>], after: Vec<Element<A>>, by: Option<&ServiceName>) {
        let mut before = before.iter().peekable();
        for element in after {
            loop {
                let order = before.peek().map_or(Ordering::Greater, |old| {
                    (old.set, old.key).cmp(&(element.set, element.key))
                });
                match order {
                    Ordering::Less => {
                        if let Some(old) = before.next() {
                            self.delete(old, by);
                        }
                    }
                    Ordering::Equal => {
                        if let Some(old) = before.next().filter(|old| **old != element) {
                            self.delete(old, by);
                            self.add(element, by);
                        }
                        break;
                    }
                    Ordering::Greater => {
                        self.add(element, by);
                        break;
                    }
                }
            }
        }
        for old in before {
            self.delete(old, by);
        }
    }

    fn delete(&mut self, element: &Element<A>, by: Option<&ServiceName>) {
        if is_shared(element.set) {
            let (count, who) = self.shared_count(element);
            *count = count.saturating_sub(1);
            *who = by.cloned();
            return;
        }
        if let Some(chain) = chain_of(&element.value) {
            let count = self.chain_count(chain);
            *count = count.saturating_sub(1);
        }
        self.deletes.push(Operation {
            op: Op::Delete(element.set, element.key),
            service: by.cloned(),
        });
    }

    fn add(&mut self, element: Element<A>, by: Option<&ServiceName>) {
        if is_shared(element.set) {
            let (count, who) = self.shared_count(&element);
            *count += 1;
            *who = by.cloned();
            return;
        }
        if let Some(chain) = chain_of(&element.value) {
            *self.chain_count(chain) += 1;
        }
        self.adds.push(Operation {
            op: Op::Add(element),
            service: by.cloned(),
        });
    }

    fn shared_count(&mut self, element: &Element<A>) -> &mut (usize, Option<ServiceName>) {
        let key = (element.set, element.key);
        let now = || (self.applied.shared.get(&key).copied().unwrap_or(0), None);
        self.shared.entry(key).or_insert_with(now)
    }

    fn chain_count(&mut self, chain: DynamicChain) -> &mut usize {
        let now = || self.applied.chains.get(&chain).copied().unwrap_or(0);
        self.chains.entry(chain).or_insert_with(now)
    }

    fn finish(mut self, change: DesiredChange<A>) -> Plan<A> {
        for (key, (count, who)) in &self.shared {
            let before = self.applied.shared.get(key).copied().unwrap_or(0);
            let (set, key) = *key;
            let op = match (before, *count) {
                (0, 1..) => Op::Add(Element {
                    set,
                    key,
                    value: Value::Nothing,
                    comment: None,
                }),
                (1.., 0) => Op::Delete(set, key),
                _ => continue,
            };
            let operations = match op {
                Op::Delete(..) => &mut self.deletes,
                Op::Add(_) | Op::AddFor(..) | Op::AddChain(_) | Op::DeleteChain(_) => {
                    &mut self.adds
                }
            };
            operations.push(Operation {
                op,
                service: who.clone(),
            });
        }
        let is_new = |chain: &DynamicChain| is_new_chain(self.applied, *chain);
        let mut new_chains: Vec<_> = self.chains.keys().copied().filter(is_new).collect();
        let needed: Vec<_> = new_chains
            .iter()
            .filter_map(|chain| chain.goto_target())
            .collect();
        for chain in needed {
            // The rule of a chain counts like an element that goes there.
            *self.chain_count(chain) += 1;
            if is_new_chain(self.applied, chain) && !new_chains.contains(&chain) {
                new_chains.push(chain);
            }
        }
        // A chain is needed by those that sort after it.
        new_chains.sort_unstable();
        let mut operations: Vec<_> = new_chains.into_iter().map(add_chain).collect();
        let by_key = |operation: &Operation<A>| match &operation.op {
            Op::Add(element) | Op::AddFor(element, _) => Some((element.set, element.key)),
            Op::Delete(set, key) => Some((*set, *key)),
            Op::AddChain(_) | Op::DeleteChain(_) => None,
        };
        // Neighbours of one set go into one message.
        self.deletes.sort_by_key(by_key);
        self.adds.sort_by_key(by_key);
        operations.append(&mut self.deletes);
        // Of a full sync there are many: they stay where they are.
        self.adds.splice(0..0, operations);
        let counts = self.shared.into_iter();
        let elements = elements(self.applied, &self.adds);
        Plan {
            transaction: Transaction {
                operations: self.adds,
            },
            delta: Delta {
                change,
                shared: counts.map(|(key, (count, _))| (key, count)).collect(),
                chains: self.chains,
                elements,
            },
        }
    }
}

/// How many elements the sets have after these operations that they change.
fn elements<A: Address>(
    applied: &Applied<A>,
    operations: &[Operation<A>],
) -> BTreeMap<SetName, usize> {
    let mut elements = BTreeMap::new();
    for operation in operations {
        let (set, more) = match &operation.op {
            Op::Add(element) | Op::AddFor(element, _) => (element.set, true),
            Op::Delete(set, _) => (*set, false),
            Op::AddChain(_) | Op::DeleteChain(_) => continue,
        };
        let now = || applied.elements.get(&set).copied().unwrap_or(0);
        let count: &mut usize = elements.entry(set).or_insert_with(now);
        *count = if more {
            *count + 1
        } else {
            count.saturating_sub(1)
        };
    }
    elements
}

fn is_new_chain<A: Address>(applied: &Applied<A>, chain: DynamicChain) -> bool {
    !chain.is_initial() && !applied.chains.contains_key(&chain)
}

fn add_chain<A: Address>(chain: DynamicChain) -> Operation<A> {
    Operation {
        op: Op::AddChain(chain),
        service: None,
    }
}

/// The operations that make `found` hold the elements of `wanted`. Chains that only `found` has
/// stay. `planned` names the Service behind each operation that adds: a plan that makes `wanted` of
/// what stays of `found`.
#[must_use]
pub fn between<A: Address>(
    found: &Table<A>,
    wanted: &Table<A>,
    planned: &Transaction<A>,
) -> Transaction<A> {
    let chains = wanted.dynamic_chains().difference(found.dynamic_chains());
    let mut operations: Vec<_> = chains.map(|chain| add_chain(*chain)).collect();
    let differs = |element: &Element<A>, table: &Table<A>| {
        table
            .get(element.set, &element.key)
            .is_none_or(|entry| entry.value != element.value || entry.comment != element.comment)
    };
    let stale = found.elements().filter(|element| differs(element, wanted));
    operations.extend(stale.map(|element| Operation {
        op: Op::Delete(element.set, element.key),
        service: None,
    }));
    let missing = planned
        .operations
        .iter()
        .filter(|operation| matches!(&operation.op, Op::Add(element) if differs(element, found)));
    operations.extend(missing.cloned());
    Transaction { operations }
}
