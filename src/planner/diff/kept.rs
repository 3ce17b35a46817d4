//! The elements of skipped Services, which stay in the table.

use std::collections::{BTreeMap, BTreeSet};

use super::Applied;
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{Element, Key, SetName, Table, Value, Verdict};

/// The elements of each skipped Service, in the order of sets and keys.
pub type KeptElements<A> = BTreeMap<ServiceName, Vec<Element<A>>>;

/// Returns the elements of `found` that stay: those of a skipped Service, and the shared elements
/// that these need, which have no comment.
#[must_use]
pub fn kept_elements<A: Address>(
    found: &Table<A>,
    skipped_service: impl Fn(&Element<A>) -> Option<ServiceName>,
) -> KeptElements<A> {
    let mut kept: BTreeMap<ServiceName, BTreeSet<Element<A>>> = BTreeMap::new();
    for element in found.elements() {
        let Some(service) = skipped_service(&element) else {
            continue;
        };
        let elements = kept.entry(service).or_default();
        elements.extend(
            shared_by(&element).filter(|shared| found.get(shared.set, &shared.key).is_some()),
        );
        elements.insert(element);
    }
    kept.into_iter()
        .map(|(service, elements)| (service, Vec::from_iter(elements)))
        .collect()
}

/// Returns the shared elements that an element may need.
fn shared_by<A: Address>(element: &Element<A>) -> impl Iterator<Item = Element<A>> + use<A> {
    let cluster_ip = if let Key::Frontend(_, address, _) = element.key {
        let sets = [SetName::ClusterIps, SetName::ClusterIpsSticky];
        Some(sets.map(|set| (set, Key::Address(address))))
    } else {
        None
    };
    let hairpin = match element.value {
        Value::Endpoint(address, _) => Some((SetName::Hairpin, Key::Pair(address, address))),
        Value::Nothing | Value::Verdict(_) => None,
    };
    cluster_ip
        .into_iter()
        .flatten()
        .chain(hairpin)
        .map(|(set, key)| Element {
            set,
            key,
            value: Value::Nothing,
            comment: None,
        })
}

impl<A: Address> Applied<A> {
    /// Creates the applied state of a table that holds only `kept`.
    #[must_use]
    pub fn with_kept(kept: KeptElements<A>) -> Self {
        let mut applied = Self::default();
        for element in kept.values().flatten() {
            if super::planner::is_shared(element.set) {
                let count = applied
                    .shared
                    .entry((element.set, element.key))
                    .or_insert(0);
                *count += 1;
                if *count > 1 {
                    continue;
                }
            }
            *applied.elements.entry(element.set).or_insert(0) += 1;
        }
        let chains = kept
            .values()
            .flatten()
            .filter_map(|element| match element.value {
                Value::Verdict(Verdict::Dynamic(chain)) => Some(chain),
                Value::Nothing | Value::Verdict(_) | Value::Endpoint(..) => None,
            });
        for chain in chains {
            applied.adopt_unused([chain]);
            *applied.chains.entry(chain).or_insert(0) += 1;
        }
        applied.kept = kept;
        applied
    }

    /// Returns the elements of skipped Services.
    pub fn kept_elements(&self) -> impl Iterator<Item = &Element<A>> {
        self.kept.values().flatten()
    }

    /// Returns the skipped Services that have elements.
    pub fn kept_services(&self) -> impl Iterator<Item = &ServiceName> {
        self.kept.keys()
    }
}
