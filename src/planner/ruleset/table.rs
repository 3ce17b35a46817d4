//! What a table holds: the elements of its sets and maps, and its balance chains.

use std::collections::{BTreeMap, BTreeSet};

use super::{Comment, DynamicChain, Element, Key, SetName, Value, Verdict};
use crate::planner::model::Address;

/// What an element carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementData<A> {
    /// Its value.
    pub value: Value<A>,
    /// Its comment.
    pub comment: Option<Comment>,
}

/// The content of our table of one family, as it is or as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<A: Address> {
    elements: BTreeMap<SetName, BTreeMap<Key<A>, ElementData<A>>>,
    balance: BTreeSet<DynamicChain>,
}

impl<A: Address> Default for Table<A> {
    fn default() -> Self {
        Self {
            elements: BTreeMap::new(),
            balance: BTreeSet::new(),
        }
    }
}

/// A change that the table cannot take: the planner that made it is wrong, or the table is not
/// what the planner thought.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InconsistentTable {
    /// The key is there already.
    #[error("{set} already has {key}")]
    Exists {
        /// The set or map.
        set: SetName,
        /// The key as nft writes it.
        key: String,
    },
    /// The key, or the chain, is not there.
    #[error("{set} has no {key}")]
    Missing {
        /// The set or map.
        set: SetName,
        /// The key as nft writes it.
        key: String,
    },
    /// The key does not have the set's fields.
    #[error("{set} cannot hold the key {key}")]
    WrongKey {
        /// The set or map.
        set: SetName,
        /// The key as nft writes it.
        key: String,
    },
    /// The value is not of the map's kind.
    #[error("{set} cannot hold the value of {key}")]
    WrongValue {
        /// The set or map.
        set: SetName,
        /// The key as nft writes it.
        key: String,
    },
    /// The balance chain is there already.
    #[error("chain {0} already exists")]
    ChainExists(DynamicChain),
    /// The balance chain is not there.
    #[error("chain {0} does not exist")]
    NoChain(DynamicChain),
    /// The balance chain is in use.
    #[error("chain {0} is in use")]
    ChainInUse(DynamicChain),
}

impl<A: Address> Table<A> {
    /// Whether a balance chain is there: from the start, or added.
    fn has_chain(&self, chain: DynamicChain) -> bool {
        chain.is_initial() || self.balance.contains(&chain)
    }

    /// Adds a balance chain.
    ///
    /// # Errors
    /// If it is there already.
    pub fn add_chain(&mut self, chain: DynamicChain) -> Result<(), InconsistentTable> {
        if let Some(needed) = chain.goto_target()
            && !self.has_chain(needed)
        {
            return Err(InconsistentTable::NoChain(needed));
        }
        if !chain.is_initial() && self.balance.insert(chain) {
            Ok(())
        } else {
            Err(InconsistentTable::ChainExists(chain))
        }
    }

    /// Deletes a balance chain. Linear in the table: it looks for elements that go there.
    ///
    /// # Errors
    /// If it is not there or is in use.
    pub fn delete_chain(&mut self, chain: DynamicChain) -> Result<(), InconsistentTable> {
        let target = Value::Verdict(Verdict::OnDemand(chain));
        let in_use = self
            .elements
            .values()
            .flat_map(BTreeMap::values)
            .any(|entry| entry.value == target);
        let mut others = self.balance.iter();
        if in_use || others.any(|other| other.goto_target() == Some(chain)) {
            return Err(InconsistentTable::ChainInUse(chain));
        }
        if self.balance.remove(&chain) {
            Ok(())
        } else {
            Err(InconsistentTable::NoChain(chain))
        }
    }

    /// Adds an element.
    ///
    /// # Errors
    /// If its key is there already, its value does not suit the map, or it goes to a chain that
    /// is not there.
    pub fn add(&mut self, element: Element<A>) -> Result<(), InconsistentTable> {
        let Element {
            set,
            key,
            value,
            comment,
        } = element;
        if !key.fits(set) {
            return Err(InconsistentTable::WrongKey {
                set,
                key: key.to_string(),
            });
        }
        if !value.fits(set) {
            return Err(InconsistentTable::WrongValue {
                set,
                key: key.to_string(),
            });
        }
        if let Value::Verdict(Verdict::OnDemand(chain)) = value
            && !self.has_chain(chain)
        {
            return Err(InconsistentTable::NoChain(chain));
        }
        let entries = self.elements.entry(set).or_default();
        if entries.contains_key(&key) {
            return Err(InconsistentTable::Exists {
                set,
                key: key.to_string(),
            });
        }
        entries.insert(key, ElementData { value, comment });
        Ok(())
    }

    /// Deletes an element.
    ///
    /// # Errors
    /// If it is not there.
    pub fn delete(&mut self, set: SetName, key: &Key<A>) -> Result<(), InconsistentTable> {
        let missing = || InconsistentTable::Missing {
            set,
            key: key.to_string(),
        };
        let entries = self.elements.get_mut(&set).ok_or_else(missing)?;
        entries.remove(key).ok_or_else(missing)?;
        if entries.is_empty() {
            self.elements.remove(&set);
        }
        Ok(())
    }

    /// What is under `key` of `set`.
    #[must_use]
    pub fn get(&self, set: SetName, key: &Key<A>) -> Option<&ElementData<A>> {
        self.elements.get(&set)?.get(key)
    }

    /// The keys of one set or map, in order, and what is under them.
    pub fn entries(&self, set: SetName) -> impl Iterator<Item = (&Key<A>, &ElementData<A>)> {
        self.elements.get(&set).into_iter().flatten()
    }

    /// The elements of one set or map, in the order of their keys.
    pub fn elements_of(&self, set: SetName) -> impl Iterator<Item = Element<A>> {
        self.entries(set).map(move |(key, entry)| Element {
            set,
            key: *key,
            value: entry.value,
            comment: entry.comment.clone(),
        })
    }

    /// Every element, in the order of sets and keys.
    pub fn elements(&self) -> impl Iterator<Item = Element<A>> {
        self.elements.keys().flat_map(|set| self.elements_of(*set))
    }

    /// The chains that were added, in order; those that are there from the start are not among them.
    #[must_use]
    pub fn balance(&self) -> &BTreeSet<DynamicChain> {
        &self.balance
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.values().map(BTreeMap::len).sum()
    }

    /// Whether it has no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}
