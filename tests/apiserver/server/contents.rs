//! The objects of a cluster, as etcd has them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::store::{Collection, KINDS, Kind};

/// All objects at one version, and the history of their changes.
#[derive(Clone)]
pub(crate) struct Contents {
    pub(crate) version: u64,
    /// The version up to which changes are compacted.
    pub(crate) compacted: u64,
    collections: BTreeMap<&'static str, Collection>,
}

impl Contents {
    pub(crate) fn new() -> Self {
        let empty = KINDS
            .iter()
            .map(|kind| (kind.plural, Collection::default()));
        Self {
            version: 1,
            compacted: 0,
            collections: empty.collect(),
        }
    }

    pub(crate) fn collection(&self, plural: &str) -> &Collection {
        self.collections.get(plural).expect("a known plural")
    }

    pub(crate) fn apply(&mut self, kind: &Kind, object: Value) {
        self.version += 1;
        let version = self.version;
        self.changed(kind.plural).apply(kind, object, version);
    }

    pub(crate) fn delete(&mut self, plural: &str, key: &str) {
        self.version += 1;
        let version = self.version;
        self.changed(plural).delete(key, version);
    }

    /// Compacts all changes until now.
    pub(crate) fn compact(&mut self) {
        // A watch that received the last change can continue.
        self.compacted = self.version;
        for collection in self.collections.values_mut() {
            collection.compact(self.version);
        }
    }

    /// Reverts all changes after `version`.
    pub(crate) fn restore(&mut self, version: u64) {
        let known = self.compacted..=self.version;
        assert!(known.contains(&version), "{version} is not in {known:?}");
        self.version = version;
        for collection in self.collections.values_mut() {
            collection.restore(version);
        }
    }

    fn changed(&mut self, plural: &str) -> &mut Collection {
        self.collections.get_mut(plural).expect("a known plural")
    }
}
