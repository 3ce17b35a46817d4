//! The shared elements that the kernel holds, with the number of Services that need each.

use foldhash::HashMap;

use crate::planner::model::Address;
use crate::planner::ruleset::{Key, SetName};

/// Whether several Services may need the same element of a set: a `ClusterIP` for each of its
/// ports, an endpoint's address for each Service of the endpoint.
pub(super) fn is_shared(set: SetName) -> bool {
    SharedSet::new(set).is_some()
}

/// The number of Services that need each shared element.
#[derive(Debug)]
pub(super) struct SharedCounts<A: Address>(HashMap<SharedKey<A>, u32>);

/// A set of shared elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum SharedSet {
    ClusterIps,
    ClusterIpsSticky,
    LoadBalancerIps,
    Hairpin,
}

/// A shared element. A large cluster has many, so that it is as small as its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SharedKey<A> {
    set: SharedSet,
    address: A,
}

impl SharedSet {
    fn new(set: SetName) -> Option<Self> {
        let sets = [
            (SetName::ClusterIps, Self::ClusterIps),
            (SetName::ClusterIpsSticky, Self::ClusterIpsSticky),
            (SetName::LoadBalancerIps, Self::LoadBalancerIps),
            (SetName::Hairpin, Self::Hairpin),
        ];
        let found = sets.into_iter().find(|(name, _)| *name == set);
        found.map(|(_, shared)| shared)
    }
}

impl<A: Address> SharedKey<A> {
    /// Returns the element with this key; `None` for one that no Service needs.
    fn new(set: SetName, key: &Key<A>) -> Option<Self> {
        let set = SharedSet::new(set)?;
        match (set, *key) {
            (
                SharedSet::ClusterIps | SharedSet::ClusterIpsSticky | SharedSet::LoadBalancerIps,
                Key::Address(address),
            ) => Some(Self { set, address }),
            (SharedSet::Hairpin, Key::Pair(address, same)) if address == same => {
                Some(Self { set, address })
            }
            _ => None,
        }
    }
}

impl<A: Address> Default for SharedCounts<A> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<A: Address> SharedCounts<A> {
    /// Returns the number of Services that need an element.
    pub(super) fn count(&self, set: SetName, key: &Key<A>) -> u32 {
        let key = SharedKey::new(set, key);
        let count = key.and_then(|key| self.0.get(&key));
        count.copied().unwrap_or(0)
    }

    /// Sets the number of Services that need an element; returns the one before.
    pub(super) fn set_count(&mut self, set: SetName, key: &Key<A>, count: u32) -> u32 {
        let Some(key) = SharedKey::new(set, key) else {
            return 0;
        };
        let before = if count == 0 {
            self.0.remove(&key)
        } else {
            self.0.insert(key, count)
        };
        before.unwrap_or(0)
    }
}
