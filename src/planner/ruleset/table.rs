//! The content of a table: elements of sets and maps, and chains that are created on demand.

use std::collections::{BTreeMap, BTreeSet};

use super::{Comment, DynamicChain, Element, Key, SetName, Value};
use crate::planner::model::Address;

/// The value and comment of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementData<A> {
    /// The value.
    pub value: Value<A>,
    /// The Service port that the element belongs to.
    pub comment: Option<Comment>,
}

/// The content of kube-dnat's table in one family, actual or desired.
///
/// A table accepts only changes that the kernel accepts.
///
/// # Examples
///
/// A frontend with one endpoint is these two elements:
///
/// ```text
/// $ nft list table ip kube-dnat
///     map endpoints {
///         elements = { tcp . 10.96.0.80 . 80 . 0 comment "shop/web" : 10.244.1.13 . 8080 }
///     map services {
///         elements = { tcp . 10.96.0.80 . 80 comment "shop/web" : goto pick-1 }
/// ```
///
/// ```
/// use std::net::Ipv4Addr;
///
/// use kube_dnat::planner::model::Protocol::Tcp;
/// use kube_dnat::planner::ruleset::{
///     DynamicChain, Element, SlotRange, FrontendKind, InconsistentTable, Key, Program, SetName,
///     Table, Value, Verdict, render,
/// };
///
/// let (ip, pod) = (Ipv4Addr::new(10, 96, 0, 80), Ipv4Addr::new(10, 244, 1, 13));
/// let element = |set, key, value| Element {
///     set,
///     key,
///     value,
///     comment: Some("shop/web".into()),
/// };
/// let slot = Key::Slot(Tcp, ip, 80, 0);
/// let pick_1 = DynamicChain::Pick(FrontendKind::Address, SlotRange::Own, 1);
/// let goto = Value::Verdict(Verdict::Dynamic(pick_1));
///
/// let mut table = Table::default();
/// table.add(element(SetName::Endpoints, slot, Value::Endpoint(pod, 8080)))?;
/// table.add(element(SetName::Services, Key::Frontend(Tcp, ip, 80), goto))?;
///
/// let text = render(&table, &Program::default());
/// assert!(text.contains("tcp . 10.96.0.80 . 80 comment \"shop/web\" : goto pick-1"));
///
/// // The key of a slot does not fit the map of frontends.
/// let result = table.add(element(SetName::Services, slot, goto));
/// assert!(matches!(result, Err(InconsistentTable::WrongKey { .. })));
/// # Ok::<(), InconsistentTable>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<A: Address> {
    /// The elements of each set and map that is not empty.
    elements: BTreeMap<SetName, BTreeMap<Key<A>, ElementData<A>>>,
    /// The chains that were added.
    dynamic: BTreeSet<DynamicChain>,
}

impl<A: Address> Default for Table<A> {
    fn default() -> Self {
        Self {
            elements: BTreeMap::new(),
            dynamic: BTreeSet::new(),
        }
    }
}

/// The reason why a change does not apply to a table.
///
/// The plan is wrong, or the table differs from the state that the plan is based on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InconsistentTable {
    /// The set already has an element with this key.
    #[error("{set} already has {key}")]
    Exists {
        /// The set or map.
        set: SetName,
        /// The key as nft prints it.
        key: String,
    },
    /// The set has no element with this key.
    #[error("{set} has no {key}")]
    Missing {
        /// The set or map.
        set: SetName,
        /// The key as nft prints it.
        key: String,
    },
    /// The key does not have the fields of the set's keys.
    #[error("{set} cannot hold the key {key}")]
    WrongKey {
        /// The set or map.
        set: SetName,
        /// The key as nft prints it.
        key: String,
    },
    /// The value does not have the type of the set's values.
    #[error("{set} cannot hold the value of {key}")]
    WrongValue {
        /// The set or map.
        set: SetName,
        /// The key as nft prints it.
        key: String,
    },
    /// The table already has the chain.
    #[error("chain {0} already exists")]
    ChainExists(DynamicChain),
    /// The table does not have the chain.
    #[error("chain {0} does not exist")]
    NoChain(DynamicChain),
    /// An element or another chain uses the chain.
    #[error("chain {0} is in use")]
    ChainInUse(DynamicChain),
}

impl<A: Address> Table<A> {
    /// Returns whether the table has a chain: a fixed one, or one that was added.
    fn has_chain(&self, chain: DynamicChain) -> bool {
        chain.is_initial() || self.dynamic.contains(&chain)
    }

    /// Adds a chain.
    ///
    /// # Errors
    /// If the table already has the chain, or does not have the target of its goto.
    pub fn add_chain(&mut self, chain: DynamicChain) -> Result<(), InconsistentTable> {
        if let Some(target) = chain.goto_target()
            && !self.has_chain(target)
        {
            return Err(InconsistentTable::NoChain(target));
        }
        if !chain.is_initial() && self.dynamic.insert(chain) {
            Ok(())
        } else {
            Err(InconsistentTable::ChainExists(chain))
        }
    }

    /// Deletes a chain, in time linear in the table.
    ///
    /// # Errors
    /// If the table does not have the chain, or uses it.
    pub fn delete_chain(&mut self, chain: DynamicChain) -> Result<(), InconsistentTable> {
        let mut elements = self.elements.iter();
        let in_use = elements.any(|(set, elements)| {
            let mut elements = elements.values();
            elements.any(|data| data.value.chain_for(*set) == Some(chain))
        });
        let mut others = self.dynamic.iter();
        if in_use || others.any(|other| other.goto_target() == Some(chain)) {
            return Err(InconsistentTable::ChainInUse(chain));
        }
        if self.dynamic.remove(&chain) {
            Ok(())
        } else {
            Err(InconsistentTable::NoChain(chain))
        }
    }

    /// Adds an element.
    ///
    /// # Errors
    /// If the key exists, the key or value does not have the set's type, or the chain of the
    /// verdict does not exist.
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
        if let Some(chain) = value.chain_for(set)
            && !self.has_chain(chain)
        {
            return Err(InconsistentTable::NoChain(chain));
        }
        let elements = self.elements.entry(set).or_default();
        if elements.contains_key(&key) {
            return Err(InconsistentTable::Exists {
                set,
                key: key.to_string(),
            });
        }
        elements.insert(key, ElementData { value, comment });
        Ok(())
    }

    /// Deletes an element.
    ///
    /// # Errors
    /// If the set has no element with this key.
    pub fn delete(&mut self, set: SetName, key: &Key<A>) -> Result<(), InconsistentTable> {
        let missing = || InconsistentTable::Missing {
            set,
            key: key.to_string(),
        };
        let elements = self.elements.get_mut(&set).ok_or_else(missing)?;
        elements.remove(key).ok_or_else(missing)?;
        if elements.is_empty() {
            self.elements.remove(&set);
        }
        Ok(())
    }

    /// Returns the value and comment of an element.
    #[must_use]
    pub fn get(&self, set: SetName, key: &Key<A>) -> Option<&ElementData<A>> {
        self.elements.get(&set)?.get(key)
    }

    /// Returns the keys of a set or map in order, with their values and comments.
    pub fn entries(&self, set: SetName) -> impl Iterator<Item = (&Key<A>, &ElementData<A>)> {
        self.elements.get(&set).into_iter().flatten()
    }

    /// Returns the elements of a set or map, in the order of their keys.
    pub fn elements_of(&self, set: SetName) -> impl Iterator<Item = Element<A>> {
        self.entries(set).map(move |(key, data)| Element {
            set,
            key: *key,
            value: data.value,
            comment: data.comment.clone(),
        })
    }

    /// Returns all elements, in the order of sets and keys.
    pub fn elements(&self) -> impl Iterator<Item = Element<A>> {
        self.elements.keys().flat_map(|set| self.elements_of(*set))
    }

    /// Returns the chains that were added, in order; the fixed chains are not among them.
    #[must_use]
    pub fn dynamic_chains(&self) -> &BTreeSet<DynamicChain> {
        &self.dynamic
    }

    /// Returns the number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.values().map(BTreeMap::len).sum()
    }

    /// Returns whether the table has no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }
}
