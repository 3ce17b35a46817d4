//! The picture of what the kernel holds of one family. It moves only when the kernel committed.

use std::collections::{BTreeMap, HashMap};

use super::plan::gone_elements;
use super::{Delta, DesiredChange, GoneElements, KeptElements, Op, Operation, Transaction};
use crate::planner::desired::{
    EndpointLists, NodeElements, PortElements, ServiceElements, WithoutLocalEndpoints,
};
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{DynamicChain, Element, InconsistentTable, Key, SetName, Table};

/// What the kernel holds, by whose it is.
#[derive(Debug)]
pub struct Applied<A: Address> {
    pub(super) services: HashMap<ServiceName, ServiceElements<A>>,
    /// What was found of Services that are left out since.
    pub(super) kept: KeptElements<A>,
    pub(super) node: NodeElements<A>,
    /// How many Services want an element that several may share.
    pub(super) shared: HashMap<(SetName, Key<A>), usize>,
    /// The balance chains that exist, and how many elements go to each.
    pub(super) chains: BTreeMap<DynamicChain, usize>,
    /// How many elements there are of each set.
    pub(super) elements: BTreeMap<SetName, usize>,
    without_local: WithoutLocalEndpoints,
    /// The endpoints that clients must not keep.
    pub(super) gone: GoneElements<A>,
}

impl<A: Address> Default for Applied<A> {
    fn default() -> Self {
        Self {
            services: HashMap::new(),
            kept: KeptElements::new(),
            node: NodeElements::default(),
            shared: HashMap::new(),
            chains: BTreeMap::new(),
            elements: BTreeMap::new(),
            without_local: WithoutLocalEndpoints::default(),
            gone: GoneElements::new(),
        }
    }
}

impl<A: Address> Applied<A> {
    /// The slots that a port of `service` has in the kernel.
    #[must_use]
    pub fn lists_of(
        &self,
        service: &ServiceName,
        port: &PortElements<A>,
    ) -> Option<&EndpointLists<A>> {
        self.services.get(service)?.lists_of(port)
    }

    /// What this Service contributes.
    #[must_use]
    pub fn service_elements(&self, service: &ServiceName) -> Option<&ServiceElements<A>> {
        self.services.get(service)
    }

    /// What the node contributes.
    #[must_use]
    pub fn node(&self) -> &NodeElements<A> {
        &self.node
    }

    /// The elements of a Service, in order.
    pub(super) fn elements_of(&self, service: &ServiceName) -> Vec<Element<A>> {
        let kept = || self.kept.get(service).cloned().unwrap_or_default();
        let service_elements = self.services.get(service);
        service_elements.map_or_else(kept, ServiceElements::elements)
    }

    /// The endpoints that clients must not keep, and who still has them.
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
            let count = service_elements
                .as_ref()
                .map(ServiceElements::without_local_endpoints);
            self.kept.remove(&name);
            let before = match service_elements {
                Some(service_elements) => self.services.insert(name, service_elements),
                None => self.services.remove(&name),
            };
            let before = before.map(|before| before.without_local_endpoints());
            let (now, before) = (count.unwrap_or_default(), before.unwrap_or_default());
            let all = &mut self.without_local;
            all.internal = (all.internal + now.internal).saturating_sub(before.internal);
            all.external = (all.external + now.external).saturating_sub(before.external);
        }
        self.elements.extend(elements);
        if let Some(node) = node {
            self.node = node;
        }
        if let Some(gone) = gone {
            self.gone = gone;
        }
        for (key, count) in shared {
            if count == 0 {
                self.shared.remove(&key);
            } else {
                self.shared.insert(key, count);
            }
        }
        self.chains.extend(chains);
    }

    /// Takes in that these chains exist too, though nothing goes there.
    pub fn adopt_unused(&mut self, chains: impl IntoIterator<Item = DynamicChain>) {
        let new = chains.into_iter();
        let new: Vec<_> = new
            .filter(|chain| !self.chains.contains_key(chain))
            .collect();
        self.chains.extend(new.iter().map(|chain| (*chain, 0)));
        for chain in new.into_iter().filter_map(DynamicChain::goto_target) {
            *self.chains.entry(chain).or_insert(0) += 1;
        }
    }

    /// The Services that have elements, in order, and what each contributes.
    #[must_use]
    pub fn all_service_elements(&self) -> BTreeMap<&ServiceName, &ServiceElements<A>> {
        #[expect(clippy::disallowed_methods, reason = "collected into an ordered map")]
        self.services.iter().collect()
    }

    /// How many Services have elements.
    #[must_use]
    pub fn services(&self) -> usize {
        self.services.len() + self.kept.len()
    }

    /// How many elements there are of each set that has or had any.
    #[must_use]
    pub fn elements(&self) -> &BTreeMap<SetName, usize> {
        &self.elements
    }

    /// How many ports of Services drop connections for want of an endpoint here.
    #[must_use]
    pub fn without_local_endpoints(&self) -> WithoutLocalEndpoints {
        self.without_local
    }

    /// Whether any Service has session affinity.
    #[must_use]
    pub fn has_affinity(&self) -> bool {
        let mut used = self.chains.iter().filter(|(_, count)| **count > 0);
        used.any(|(chain, _)| matches!(chain, DynamicChain::Learn(_)))
    }

    /// Whether there is a dynamic chain that nothing goes to.
    #[must_use]
    pub fn has_unused_chains(&self) -> bool {
        let mut chains = self.chains.iter();
        chains.any(|(chain, count)| !chain.is_initial() && *count == 0)
    }

    /// The operations that delete the balance chains that nothing goes to.
    ///
    /// A transaction of its own: before Linux 6.2 a chain cannot be deleted right after its last
    /// element (the kernel lets go of the element only after a grace period, EBUSY until then).
    #[must_use]
    pub fn unused_chains(&self) -> Transaction<A> {
        let unused = self.chains.iter().rev();
        let unused = unused.filter(|(chain, count)| !chain.is_initial() && **count == 0);
        Transaction {
            // Last come the chains that others go to: those will be unused the next time.
            operations: unused
                .map(|(chain, _)| Operation {
                    op: Op::DeleteChain(*chain),
                    service: None,
                })
                .collect(),
        }
    }

    /// Takes in that the kernel committed [`Self::unused_chains`].
    pub fn unused_chains_deleted(&mut self) {
        let unused = self.chains.iter().filter(|(_, count)| **count == 0);
        let freed: Vec<_> = unused
            .filter_map(|(chain, _)| chain.goto_target())
            .collect();
        self.chains.retain(|_, count| *count > 0);
        for chain in freed {
            if let Some(count) = self.chains.get_mut(&chain) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// The applied state as a table. Linear in all elements: for a listing or a full sync.
    ///
    /// # Panics
    /// Never: each operation that led here was checked against the state before it.
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
        for element in self
            .node
            .elements()
            .into_iter()
            .chain(gone_elements(&self.gone))
        {
            table.add(element)?;
        }
        #[expect(clippy::disallowed_methods, reason = "a table is ordered")]
        let all_service_elements = self.services.values();
        let elements = all_service_elements.flat_map(ServiceElements::elements);
        for element in elements.chain(self.kept.values().flatten().cloned()) {
            let shared = self.shared.contains_key(&(element.set, element.key));
            if shared && table.get(element.set, &element.key).is_some() {
                continue;
            }
            table.add(element)?;
        }
        Ok(table)
    }
}
