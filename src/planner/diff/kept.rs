//! What a table holds of Services that are left out: of them only elements are known.

use std::collections::{BTreeMap, BTreeSet};

use super::Applied;
use crate::planner::model::{Address, ServiceName};
use crate::planner::ruleset::{Element, Key, SetName, Table, Value, Verdict};

/// The elements of each Service that is left out, in the order of sets and keys.
pub type KeptElements<A> = BTreeMap<ServiceName, Vec<Element<A>>>;

/// The elements of `found` that stay: those that `whose` names a Service for, and those without a
/// name that these need: of its `ClusterIPs`, and of its endpoints that may be sent back to themselves.
#[must_use]
pub fn kept<A: Address>(
    found: &Table<A>,
    whose: impl Fn(&Element<A>) -> Option<ServiceName>,
) -> KeptElements<A> {
    let mut kept: BTreeMap<ServiceName, BTreeSet<Element<A>>> = BTreeMap::new();
    for element in found.elements() {
        let Some(service) = whose(&element) else {
            continue;
        };
        let elements = kept.entry(service).or_default();
        let needed = needed(&element);
        elements.extend(needed.filter(|needed| found.get(needed.set, &needed.key).is_some()));
        elements.insert(element);
    }
    let in_order = |(service, elements): (_, BTreeSet<_>)| (service, Vec::from_iter(elements));
    kept.into_iter().map(in_order).collect()
}

/// The elements without a name that an element may need.
fn needed<A: Address>(element: &Element<A>) -> impl Iterator<Item = Element<A>> + use<A> {
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
    /// A picture of a table that holds no more than `kept`.
    #[must_use]
    pub fn holding(kept: KeptElements<A>) -> Self {
        let mut applied = Self::default();
        for element in kept.values().flatten() {
            if super::plan::is_shared(element.set) {
                let count = applied.shared.entry((element.set, element.key));
                let count = count.or_insert(0);
                *count += 1;
                if *count > 1 {
                    continue;
                }
            }
            *applied.elements.entry(element.set).or_insert(0) += 1;
        }
        let values = kept.values().flatten().map(|element| element.value);
        let chains = values.filter_map(|value| match value {
            Value::Verdict(Verdict::OnDemand(chain)) => Some(chain),
            Value::Nothing | Value::Verdict(_) | Value::Endpoint(..) => None,
        });
        for chain in chains {
            applied.adopt_unused([chain]);
            *applied.chains.entry(chain).or_insert(0) += 1;
        }
        applied.kept = kept;
        applied
    }

    /// The elements of Services of which nothing else is known.
    pub fn kept_elements(&self) -> impl Iterator<Item = &Element<A>> {
        self.kept.values().flatten()
    }

    /// The Services of which only elements are known.
    pub fn kept(&self) -> impl Iterator<Item = &ServiceName> {
        self.kept.keys()
    }
}
