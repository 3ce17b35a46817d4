//! The applied state of one family, which changes only when the kernel commits a transaction.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;

use super::plan::gone_elements;
use super::shared::SharedCounts;
use super::{Delta, DesiredChange, GoneElements, Op, Operation, Transaction};
use crate::planner::desired::{
    NodeElements, PortElements, PortSlots, ServiceElements, WithoutLocalEndpoints,
};
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{DynamicChain, Element, InconsistentTable, Key, SetName, Table};

/// The applied state: the elements that the kernel holds, by the Service or node that needs them.
#[derive(Debug)]
pub struct Applied<A: Address> {
    pub(super) services: HashMap<ServiceName, ServiceElements<A>>,
    /// The elements of skipped Services, as they were read back.
    pub(super) kept: BTreeMap<ServiceName, Vec<Element<A>>>,
    pub(super) node: NodeElements<A>,
    /// The number of Services that need each shared element.
    pub(super) shared: SharedCounts<A>,
    /// The dynamic chains that exist, and the number of elements and chains that go to each.
    pub(super) chains: BTreeMap<DynamicChain, usize>,
    /// The number of elements of each set.
    pub(super) elements: BTreeMap<SetName, usize>,
    without_local: WithoutLocalEndpoints,
    /// The endpoints that pinned clients must not keep.
    pub(super) gone: GoneElements<A>,
    /// The elements of the node as they were read back, until they are compared with `node`.
    pub(super) found_node: Option<Vec<Element<A>>>,
    /// The shared elements that no known Service needs, while the elements of others are unknown.
    pub(super) unneeded: Unneeded<A>,
}

/// What happens to shared elements that no Service of the applied state needs any more.
#[derive(Debug)]
pub(super) enum Unneeded<A: Address> {
    /// They are deleted at once.
    Deleted,
    /// They stay until the elements of all Services are known.
    Kept(BTreeSet<(SetName, Key<A>)>),
}

impl<A: Address> Unneeded<A> {
    /// Whether the table has this element although no known Service needs it.
    pub(super) fn contains(&self, key: &(SetName, Key<A>)) -> bool {
        match self {
            Self::Deleted => false,
            Self::Kept(keys) => keys.contains(key),
        }
    }

    /// Whether elements stay that no known Service needs.
    pub(super) fn are_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }

    /// Records that a known Service needs an element; returns whether it stayed without one.
    pub(super) fn take(&mut self, key: &(SetName, Key<A>)) -> bool {
        match self {
            Self::Deleted => false,
            Self::Kept(keys) => keys.remove(key),
        }
    }
}

impl<A: Address> Default for Applied<A> {
    fn default() -> Self {
        Self {
            services: HashMap::default(),
            kept: BTreeMap::new(),
            node: NodeElements::default(),
            shared: SharedCounts::default(),
            chains: BTreeMap::new(),
            elements: BTreeMap::new(),
            without_local: WithoutLocalEndpoints::default(),
            gone: GoneElements::new(),
            found_node: None,
            unneeded: Unneeded::Deleted,
        }
    }
}

impl<A: Address> Applied<A> {
    /// Returns the applied slots of a port.
    #[must_use]
    pub fn lists_of(&self, service: &ServiceName, port: &PortElements<A>) -> Option<&PortSlots<A>> {
        self.services.get(service)?.lists_of(port)
    }

    /// Returns the applied elements of a Service, by port.
    #[must_use]
    pub fn service_elements(&self, service: &ServiceName) -> Option<&ServiceElements<A>> {
        self.services.get(service)
    }

    /// Returns the applied elements of the node.
    #[must_use]
    pub fn node(&self) -> &NodeElements<A> {
        &self.node
    }

    /// Returns the elements of a Service in the order of sets and keys.
    #[must_use]
    pub fn elements_of(&self, service: &ServiceName) -> Vec<Element<A>> {
        match self.services.get(service) {
            Some(service_elements) => service_elements.elements(service),
            None => self.kept.get(service).cloned().unwrap_or_default(),
        }
    }

    /// Returns the elements of the node in the order of sets and keys.
    pub(super) fn node_elements(&self) -> Vec<Element<A>> {
        match &self.found_node {
            Some(found) => found.clone(),
            None => self.node.elements(),
        }
    }

    /// Returns the endpoints that pinned clients must not keep.
    #[must_use]
    pub fn gone(&self) -> &GoneElements<A> {
        &self.gone
    }

    /// Applies the delta of a plan whose transaction the kernel committed.
    pub fn committed(&mut self, delta: Delta<A>) {
        let Delta {
            change,
            shared,
            chains,
            elements,
        } = delta;
        let DesiredChange {
            services,
            node,
            gone,
        } = change;
        for (name, service_elements) in services {
            let after = service_elements
                .as_ref()
                .map(ServiceElements::without_local_endpoints)
                .unwrap_or_default();
            self.kept.remove(&name);
            let replaced = match service_elements {
                Some(service_elements) => self.services.insert(name, service_elements),
                None => self.services.remove(&name),
            };
            let before = replaced
                .map(|replaced| replaced.without_local_endpoints())
                .unwrap_or_default();
            let all = &mut self.without_local;
            all.internal = (all.internal + after.internal).saturating_sub(before.internal);
            all.external = (all.external + after.external).saturating_sub(before.external);
        }
        self.elements.extend(elements);
        if let Some(node) = node {
            self.node = node;
            self.found_node = None;
        }
        if let Some(gone) = gone {
            self.gone = gone;
        }
        for (key, count) in shared {
            let before = self.shared.set_count(key.0, &key.1, count);
            if count > 0 {
                self.unneeded.take(&key);
            } else if before > 0
                && let Unneeded::Kept(keys) = &mut self.unneeded
            {
                keys.insert(key);
            }
        }
        self.chains.extend(chains);
    }

    /// Adds existing chains that no element goes to.
    pub fn adopt_unused(&mut self, chains: impl IntoIterator<Item = DynamicChain>) {
        let new: Vec<_> = chains
            .into_iter()
            .filter(|chain| !self.chains.contains_key(chain))
            .collect();
        self.chains.extend(new.iter().map(|chain| (*chain, 0)));
        for chain in new.into_iter().filter_map(DynamicChain::goto_target) {
            *self.chains.entry(chain).or_insert(0) += 1;
        }
    }

    /// Returns the applied elements of every Service, in the order of names.
    #[must_use]
    pub fn all_service_elements(&self) -> BTreeMap<&ServiceName, &ServiceElements<A>> {
        #[expect(clippy::disallowed_methods, reason = "collected into an ordered map")]
        self.services.iter().collect()
    }

    /// Returns the number of Services that have elements.
    #[must_use]
    pub fn service_count(&self) -> usize {
        self.services.len() + self.kept.len()
    }

    /// Returns the number of elements of each set that has or had any.
    #[must_use]
    pub fn element_counts(&self) -> &BTreeMap<SetName, usize> {
        &self.elements
    }

    /// Returns the number of ports that drop connections, since policy Local finds no endpoint on
    /// this node.
    #[must_use]
    pub fn without_local_endpoints(&self) -> WithoutLocalEndpoints {
        self.without_local
    }

    /// Whether any Service has session affinity.
    #[must_use]
    pub fn has_affinity(&self) -> bool {
        self.chains
            .iter()
            .any(|(chain, count)| *count > 0 && matches!(chain, DynamicChain::Learn(_)))
    }

    /// Whether there is an unused dynamic chain.
    #[must_use]
    pub fn has_unused_chains(&self) -> bool {
        self.unused().next().is_some()
    }

    /// Returns the dynamic chains that no element or chain goes to, but for the initial ones.
    fn unused(&self) -> impl DoubleEndedIterator<Item = DynamicChain> {
        self.chains
            .iter()
            .filter(|(chain, count)| !chain.is_initial() && **count == 0)
            .map(|(chain, _)| *chain)
    }

    /// Returns the transaction that deletes the unused dynamic chains.
    ///
    /// Before Linux 6.2, it must not be part of the transaction that deletes their last elements:
    /// the kernel releases an element only after a grace period, and returns EBUSY until then.
    #[must_use]
    pub fn delete_unused_chains(&self) -> Transaction<A> {
        Transaction {
            // A chain is deleted before those that it goes to, which are unused the next time.
            operations: self
                .unused()
                .rev()
                .map(|chain| Operation {
                    op: Op::DeleteChain(chain),
                    service: None,
                })
                .collect(),
        }
    }

    /// Records that the kernel committed [`Self::delete_unused_chains`].
    pub fn unused_chains_deleted(&mut self) {
        let freed: Vec<_> = self
            .chains
            .iter()
            .filter(|(_, count)| **count == 0)
            .filter_map(|(chain, _)| chain.goto_target())
            .collect();
        self.chains.retain(|_, count| *count > 0);
        for chain in freed {
            if let Some(count) = self.chains.get_mut(&chain) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Returns the applied state as a table. Takes time linear in all elements.
    ///
    /// # Panics
    /// Never: every committed plan fits the state before it.
    #[must_use]
    pub fn table(&self) -> Table<A> {
        #[expect(
            clippy::expect_used,
            reason = "tests/planner compares this table with a checked one after any events"
        )]
        self.checked_table()
            .expect("the applied state is a consistent table")
    }

    fn checked_table(&self) -> Result<Table<A>, InconsistentTable> {
        let mut table = Table::default();
        for chain in self.chains.keys().filter(|chain| !chain.is_initial()) {
            table.add_chain(*chain)?;
        }
        let node = self.node_elements();
        for element in node.into_iter().chain(gone_elements(&self.gone)) {
            table.add(element)?;
        }
        if let Unneeded::Kept(keys) = &self.unneeded {
            for (set, key) in keys {
                table.add(Element::shared(*set, *key))?;
            }
        }
        #[expect(clippy::disallowed_methods, reason = "a table is ordered")]
        let all_service_elements = self.services.iter();
        let elements = all_service_elements.flat_map(|(name, service)| service.elements(name));
        for element in elements.chain(self.kept.values().flatten().cloned()) {
            let shared = self.shared.count(element.set, &element.key) > 0;
            if shared && table.get(element.set, &element.key).is_some() {
                continue;
            }
            table.add(element)?;
        }
        Ok(table)
    }
}
