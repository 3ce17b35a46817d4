//! The applied state while a table is read back: it has the elements that are known so far.

use std::cell::RefCell;
use std::collections::BTreeSet;

use foldhash::{HashMap, HashSet};

use super::applied::Unneeded;
use super::{Applied, Op, Operation, Transaction};
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{Element, Key, SetName, Table, Value};

impl<A: Address> Applied<A> {
    /// Creates the applied state of a table of which only the chains, the elements of the node and
    /// those of `gone-*` are known.
    ///
    /// Shared elements stay until [`Self::all_known`], since a Service whose elements are not known
    /// yet may need them.
    #[must_use]
    pub fn found(table: &Table<A>) -> Self {
        let mut applied = Self::default();
        applied.unneeded = Unneeded::Kept(BTreeSet::new());
        applied.adopt_unused(table.dynamic_chains().iter().copied());
        let mut found_node = Vec::new();
        for element in table.elements() {
            match (element.set, element.value) {
                (SetName::Gone(_), Value::Verdict(verdict)) => {
                    applied.gone.insert((element.set, element.key), verdict);
                }
                (set, _) if set.has_service_ranges() || set.has_service_keys() => continue,
                _ => found_node.push(element.clone()),
            }
            applied.count_found(&element);
        }
        applied.found_node = Some(found_node);
        applied
    }

    /// Returns the transaction that deletes the shared elements that no Service needs, once the
    /// elements of all Services are known.
    #[must_use]
    pub fn delete_unneeded(&self) -> Transaction<A> {
        let keys = match &self.unneeded {
            Unneeded::Deleted => None,
            Unneeded::Kept(keys) => Some(keys),
        };
        let operations = keys.into_iter().flatten();
        let operations = operations.map(|(set, key)| Operation {
            op: Op::Delete(*set, *key),
            service: None,
        });
        Transaction {
            operations: operations.collect(),
        }
    }

    /// Records that the elements of all Services are known, and that the kernel committed
    /// [`Self::delete_unneeded`].
    pub fn all_known(&mut self) {
        let unneeded = std::mem::replace(&mut self.unneeded, Unneeded::Deleted);
        if let Unneeded::Kept(keys) = unneeded {
            for (set, _) in keys {
                if let Some(count) = self.elements.get_mut(&set) {
                    *count = count.saturating_sub(1);
                }
            }
        }
    }

    /// Returns a table with the applied chains and these elements, which the kernel has.
    #[must_use]
    pub fn partial_table<'a>(
        &self,
        elements: impl IntoIterator<Item = &'a Element<A>>,
    ) -> Table<A> {
        let mut table = Table::default();
        for chain in self.chains.keys().filter(|chain| !chain.is_initial()) {
            // A chain comes after the chain that it goes to.
            let _exists = table.add_chain(*chain);
        }
        for element in elements {
            // Several Services may share an element.
            let _exists = table.add(element.clone());
        }
        table
    }
}

/// The keys of elements.
type ElementKeys<A> = HashSet<(SetName, Key<A>)>;

/// The keys of the applied elements, for many questions: those of a Service are computed once.
#[derive(Debug)]
pub struct AppliedKeys<'a, A: Address> {
    applied: &'a Applied<A>,
    of_services: RefCell<HashMap<ServiceName, ElementKeys<A>>>,
}

impl<'a, A: Address> AppliedKeys<'a, A> {
    /// Creates the keys of an applied state.
    #[must_use]
    pub fn new(applied: &'a Applied<A>) -> Self {
        Self {
            applied,
            of_services: RefCell::default(),
        }
    }

    /// Whether an element of a set of Services is applied, for a Service that may have it.
    #[must_use]
    pub fn has(&self, service: Option<&ServiceName>, set: SetName, key: &Key<A>) -> bool {
        let key = (set, *key);
        self.applied.shared.count(set, &key.1) > 0
            || self.applied.unneeded.contains(&key)
            || service.is_some_and(|service| self.service_has(service, &key))
    }

    fn service_has(&self, service: &ServiceName, key: &(SetName, Key<A>)) -> bool {
        let mut of_services = self.of_services.borrow_mut();
        let keys = of_services.entry(service.clone()).or_insert_with(|| {
            let elements = self.applied.elements_of(service).into_iter();
            elements.map(|element| (element.set, element.key)).collect()
        });
        keys.contains(key)
    }
}

impl<A: Address> Transaction<A> {
    /// Returns the keys of the elements of single Services that the transaction adds without
    /// deleting them first.
    #[must_use]
    pub fn added_keys(&self) -> Vec<(SetName, Key<A>)> {
        let mut added = BTreeSet::new();
        for operation in self.operations.iter().rev() {
            match &operation.op {
                Op::Add(element) if is_of_one_service(element.set) => {
                    added.insert((element.set, element.key));
                }
                Op::Delete(set, key) => {
                    added.remove(&(*set, *key));
                }
                Op::Add(_) | Op::AddFor(..) | Op::AddChain(_) | Op::DeleteChain(_) => {}
            }
        }
        added.into_iter().collect()
    }

    /// Deletes these elements first, which the table has although they are not applied.
    pub fn delete_first(&mut self, found: &[Element<A>]) {
        let deletes: Vec<_> = found
            .iter()
            .map(|element| Operation {
                op: Op::Delete(element.set, element.key),
                service: None,
            })
            .collect();
        self.operations.splice(0..0, deletes);
    }
}

/// Whether no two Services share an element of a set.
fn is_of_one_service(set: SetName) -> bool {
    set.has_service_keys() && !super::shared::is_shared(set)
}
