//! The elements of skipped Services, which stay in the table.

use super::Applied;
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{Element, Key, SetName, Value};

impl<A: Address> Applied<A> {
    /// Adds the elements that the table was found to have for a Service, in the order of sets and
    /// keys.
    pub fn adopt(&mut self, service: ServiceName, elements: Vec<Element<A>>) {
        for element in &elements {
            if super::shared::is_shared(element.set) {
                let key = (element.set, element.key);
                let count = self.shared.count(key.0, &key.1) + 1;
                self.shared.set_count(key.0, &key.1, count);
                if count > 1 || self.unneeded.take(&key) {
                    continue;
                }
            }
            self.count_found(element);
        }
        if !elements.is_empty() {
            self.kept.insert(service, elements);
        }
    }

    /// Counts an element that the table has, and its use of a chain.
    pub(super) fn count_found(&mut self, element: &Element<A>) {
        *self.elements.entry(element.set).or_insert(0) += 1;
        if let Some(chain) = element.value.chain_for(element.set) {
            self.adopt_unused([chain]);
            *self.chains.entry(chain).or_insert(0) += 1;
        }
    }

    /// Returns the elements of skipped Services.
    pub fn kept_elements(&self) -> impl Iterator<Item = &Element<A>> {
        self.kept.values().flatten()
    }

    /// Returns the value of an element of a Service that was found and is not planned yet.
    #[must_use]
    pub fn kept_value(
        &self,
        service: &ServiceName,
        set: SetName,
        key: &Key<A>,
    ) -> Option<Value<A>> {
        let elements = self.kept.get(service)?;
        let position =
            elements.binary_search_by(|element| (element.set, element.key).cmp(&(set, *key)));
        Some(elements.get(position.ok()?)?.value)
    }

    /// Returns the elements of a Service that were found and are not planned yet.
    #[must_use]
    pub fn kept_of(&self, service: &ServiceName) -> &[Element<A>] {
        self.kept.get(service).map_or(&[], Vec::as_slice)
    }

    /// Returns the skipped Services that have elements.
    pub fn kept_services(&self) -> impl Iterator<Item = &ServiceName> {
        self.kept.keys()
    }
}
