//! The plan of a change: a transaction, and the change of the applied state.

use std::collections::BTreeMap;

use super::planner::Planner;
use super::{Applied, Transaction};
use crate::planner::desired::{NodeElements, ServiceElements};
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{DynamicChain, Element, Key, SetName, Value, Verdict};

/// A change of the desired state, relative to the applied state.
#[derive(Clone, Debug)]
pub struct DesiredChange<A: Address> {
    /// The Services that may differ, with their desired elements, if they have any.
    pub services: BTreeMap<ServiceName, Option<ServiceElements<A>>>,
    /// The desired elements of the node, if they may differ.
    pub node: Option<NodeElements<A>>,
    /// The endpoints that pinned clients must not keep, if they may differ.
    pub gone: Option<GoneElements<A>>,
}

/// The endpoints that pinned clients must not keep, with the verdict on such a client.
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

/// A transaction, and the change of the applied state once the kernel committed it.
///
/// [`Transaction`] has an example.
#[derive(Debug)]
pub struct Plan<A: Address> {
    /// The operations, moved to the kernel.
    pub transaction: Transaction<A>,
    /// The change of the applied state, moved there by [`Applied::committed`].
    pub delta: Delta<A>,
}

/// The change of the applied state by a committed transaction.
#[derive(Debug)]
pub struct Delta<A: Address> {
    pub(super) change: DesiredChange<A>,
    /// The new numbers of Services that need a shared element.
    pub(super) shared: BTreeMap<(SetName, Key<A>), u32>,
    /// The new numbers of elements and chains that go to a dynamic chain.
    pub(super) chains: BTreeMap<DynamicChain, usize>,
    /// The new numbers of elements of the sets.
    pub(super) elements: BTreeMap<SetName, usize>,
}

impl<A: Address> Plan<A> {
    /// Plans a change. Takes time linear in the Services of the change.
    #[must_use]
    pub fn new(applied: &Applied<A>, change: DesiredChange<A>) -> Self {
        let mut planner = Planner::new(applied);
        if let Some(node) = &change.node {
            planner.compare(&applied.node_elements(), node.elements(), None);
        }
        if let Some(gone) = &change.gone {
            planner.compare(&gone_elements(&applied.gone), gone_elements(gone), None);
        }
        for (name, service_elements) in &change.services {
            let (before, after) = match (applied.services.get(name), service_elements) {
                (Some(before), Some(after)) => (
                    before.changed_elements(after, name),
                    after.changed_elements(before, name),
                ),
                (_, after) => (
                    applied.elements_of(name),
                    after
                        .as_ref()
                        .map_or_else(Vec::new, |after| after.elements(name)),
                ),
            };
            planner.compare(&before, after, Some(name));
        }
        planner.finish(change)
    }
}

/// Returns the elements of `gone-*`, in the order of sets and keys.
pub(super) fn gone_elements<A: Address>(gone: &GoneElements<A>) -> Vec<Element<A>> {
    let element = |((set, key), verdict): (&(SetName, Key<A>), &Verdict)| Element {
        set: *set,
        key: *key,
        value: Value::Verdict(*verdict),
        comment: None,
    };
    gone.iter().map(element).collect()
}
