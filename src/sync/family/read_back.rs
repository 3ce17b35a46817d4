//! The read-back of one family's table in steps: some Services at a time, those that changed first.
//! Pure.
//!
//! The elements that a Service should have are read by their keys, and what its elements show to
//! exist besides. They are part of the applied state from then on, so that the next plan corrects
//! them. Changes of Services are committed between the steps.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use foldhash::HashMap;

use super::FamilyState;
use crate::netlink::ElementKey;
use crate::planner::desired::{
    Claim, ClientSides, NodeElements, NodeFacts, PortElements, PortSlots, ServiceElements, Slots,
    UnservedReason, claims, keys_behind, service_elements, shared_by, verdict_keys,
};
use crate::planner::diff::{Applied, AppliedKeys, Op, Operation, Transaction};
use crate::planner::model::{Address, Service, ServiceName, Store};
use crate::planner::ruleset::{Element, Key, SetName, SlotRange, Table, Value, service_and_port};

/// The most Services of a step that did not change, so that a change waits for a short time only.
pub const SERVICES_PER_STEP: usize = 300;

/// The number of keys at which a thread's part of a step is full: a Service has up to 131,072 slots.
/// 150 Services with two frontends and 20 endpoints have fewer keys.
const KEYS_PER_STEP: usize = 10_000;

/// The state of a read-back that is not complete.
#[derive(Debug)]
pub(in crate::sync) struct ReadBack<A: Address> {
    /// The Services whose elements are not known yet.
    unread: BTreeSet<ServiceName>,
    /// The frontends that unread Services had and may have lost.
    former_claims: BTreeMap<ServiceName, BTreeSet<Claim<A>>>,
    /// The ranges of sources and ports in the table, by the frontend that they are for, without those
    /// of Services that were read.
    ranges: BTreeMap<Claim<A>, Vec<Element<A>>>,
    /// The applied state before the read-back, which may be wrong.
    pub(super) previous: Applied<A>,
    /// The addresses that serve node ports in the table.
    pub(in crate::sync) node_ips: BTreeSet<A>,
    /// Whether clients may be on the other side of external policy Local now.
    pub(in crate::sync) sides_changed: bool,
    /// The hashes of the keys that were desired when their Service was read.
    known: KnownKeys,
}

impl<A: Address> ReadBack<A> {
    /// Returns a Service to read: what it should have, and the frontends and keys that it has or had.
    fn to_read(&self, name: &ServiceName, (desired, unserved): Desired<A>) -> ServiceInStep<A> {
        let former = self.former_claims.get(name);
        let mut claims: BTreeSet<_> = former.into_iter().flatten().copied().collect();
        claims.extend(desired.frontends().map(|(claim, ..)| claim));
        let before = self.previous.elements_of(name);
        let before_claims = before
            .iter()
            .filter_map(|element| Claim::of_element(element.set, &element.key));
        claims.extend(before_claims);
        let elements = keyed_elements(&desired, name);
        let keys = elements.iter().map(|element| (element.set, element.key));
        let mut keys: Vec<_> = keys.collect();
        if !before.is_empty() {
            let before = before
                .iter()
                .filter(|element| element.set.has_service_keys());
            keys.extend(before.map(|element| (element.set, element.key)));
            keys.sort_unstable();
            keys.dedup();
        }
        ServiceInStep {
            name: name.clone(),
            desired,
            unserved,
            elements,
            claims,
            keys,
            new_from: 0,
            differs: false,
        }
    }

    /// Records the keys of a Service that was read.
    fn know<'k>(&mut self, keys: impl IntoIterator<Item = &'k ElementKey<A>>)
    where
        A: 'k,
    {
        for (set, key) in keys {
            self.known.entry(*set).or_default().push(key_hash(key));
        }
    }
}

/// The hashes of keys, by set.
pub type KnownKeys = BTreeMap<SetName, Vec<u64>>;

/// Returns the hash of a key.
#[must_use]
pub fn key_hash<A: Address>(key: &Key<A>) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

/// The Services of one step, and the elements that the table has for them.
pub struct ReadBackStep<A: Address> {
    services: Vec<ServiceInStep<A>>,
    found: HashMap<ElementKey<A>, Element<A>>,
}

/// A Service of a step.
struct ServiceInStep<A: Address> {
    name: ServiceName,
    desired: ServiceElements<A>,
    unserved: Vec<UnservedReason>,
    /// The elements of `desired` that have keys, in the order of sets and keys.
    elements: Vec<Element<A>>,
    /// The frontends of the Service, now or before.
    claims: BTreeSet<Claim<A>>,
    /// The keys that are or were asked for.
    keys: Vec<ElementKey<A>>,
    /// The position of the first key that was not asked for yet.
    new_from: usize,
    /// Whether the verdicts of its frontends were asked for, since its elements differ from the
    /// desired ones.
    differs: bool,
}

/// The desired elements of a Service, and the reasons for the parts that are not programmed.
pub(super) type Desired<A> = (ServiceElements<A>, Vec<UnservedReason>);

impl<A: Address> FamilyState<A> {
    /// Begins to read back a table of which only the shape and the elements without keys of
    /// Services are known.
    pub fn begin_read_back(&mut self, store: &Store, facts: &NodeFacts, table: &Table<A>) {
        let node = NodeElements::new(facts, store, &self.claims);
        let sides: ClientSides<A> = facts.sides(&node);
        let sides_changed = self.sides.as_ref() != Some(&sides);
        self.sides = Some(sides);
        let previous = std::mem::replace(&mut self.applied, Applied::found(table));
        let mut unread = store.service_names();
        unread.append(&mut self.dirty);
        unread.extend(previous.all_service_elements().into_keys().cloned());
        unread.extend(previous.kept_services().cloned());
        let mut ranges: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for set in SetName::all().filter(|set| set.has_service_ranges()) {
            for element in table.elements_of(set) {
                if let Some(claim) = Claim::of_element(set, &element.key) {
                    ranges.entry(claim).or_default().push(element);
                }
            }
        }
        let node_ips = table.entries(SetName::NodeIps);
        let node_ips = node_ips.filter_map(|(key, _)| key.address());
        let node_ips: BTreeSet<_> = node_ips.collect();
        self.dirty_frontends.add_node_ips(node_ips.iter().copied());
        self.planned_for = None;
        self.node_dirty = true;
        self.read_back = Some(ReadBack {
            unread,
            former_claims: BTreeMap::new(),
            ranges,
            previous,
            node_ips,
            sides_changed,
            known: KnownKeys::new(),
        });
    }

    /// Ends a read-back early: another one must follow, or a rebuild of the table.
    pub fn cancel_read_back(&mut self) {
        if let Some(read_back) = self.read_back.take() {
            self.dirty.extend(read_back.unread);
        }
    }

    /// Whether a read-back is not complete.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.read_back.is_some()
    }

    /// Returns the number of Services whose elements are not known yet.
    #[must_use]
    pub fn unread_count(&self) -> usize {
        self.read_back
            .as_ref()
            .map_or(0, |read_back| read_back.unread.len())
    }

    /// Whether the elements of a Service are not known yet.
    pub(super) fn is_unread(&self, service: &ServiceName) -> bool {
        let read_back = self.read_back.as_ref();
        read_back.is_some_and(|read_back| read_back.unread.contains(service))
    }

    /// Records a change of a Service: what it had may be in the table, and what it has now may be
    /// there for another Service.
    pub(super) fn note_former_claims(&mut self, name: &ServiceName, before: Option<&Service>) {
        let Some(read_back) = &mut self.read_back else {
            return;
        };
        let is_known =
            self.applied.service_elements(name).is_some() || !self.applied.kept_of(name).is_empty();
        if before.is_none() && !is_known {
            read_back.unread.insert(name.clone());
        }
        if let Some(before) = before
            && read_back.unread.contains(name)
        {
            let former = read_back.former_claims.entry(name.clone()).or_default();
            former.extend(claims(before));
        }
    }

    /// Returns the next Services to read: all that changed, and at most `others` more.
    #[must_use]
    pub fn next_services(&self, others: usize) -> Vec<ServiceName> {
        let Some(read_back) = &self.read_back else {
            return Vec::new();
        };
        let changed: BTreeSet<_> = self.dirty.intersection(&read_back.unread).collect();
        let others = read_back
            .unread
            .iter()
            .filter(|name| !changed.contains(name))
            .take(others);
        changed.iter().copied().chain(others).cloned().collect()
    }

    /// Returns the step that reads the first of these of the [`Self::next_services`], as many as fit:
    /// at least one.
    #[must_use]
    pub fn step(
        &self,
        store: &Store,
        facts: &NodeFacts,
        services: &[ServiceName],
    ) -> Option<ReadBackStep<A>> {
        let read_back = self.read_back.as_ref()?;
        let node = NodeElements::new(facts, store, &self.claims);
        let mut key_count = 0;
        let services = services.iter().map_while(|name| {
            if key_count >= KEYS_PER_STEP {
                return None;
            }
            let service = store.service(name);
            let desired = service.map_or_else(
                || (ServiceElements::default(), Vec::new()),
                |service| service_elements(service, store, &self.claims, &node),
            );
            let service = read_back.to_read(name, desired);
            key_count += service.keys.len();
            Some(service)
        });
        Some(ReadBackStep {
            services: services.collect(),
            found: HashMap::default(),
        })
    }

    /// Makes the elements that the table has for the Services of a step part of the applied state,
    /// so that the next plan corrects them.
    pub fn adopt(&mut self, step: ReadBackStep<A>) {
        let Some(mut read_back) = self.read_back.take() else {
            return;
        };
        // A Service that was read and changed still has its elements until the next commit.
        let changed = self.dirty.difference(&read_back.unread);
        let applied = changed.flat_map(|name| self.applied.elements_of(name));
        let mut taken: BTreeSet<_> = applied.map(|element| (element.set, element.key)).collect();
        let mut read = Vec::new();
        for mut service in step.services {
            if service.differs {
                service.keep_slots(&step.found);
            }
            let elements = if self.is_whole(&service, &taken, &read_back) {
                read_back.know(&service.keys);
                std::mem::take(&mut service.elements)
            } else {
                self.found_of(&service, &step.found, &mut taken, &mut read_back)
            };
            self.applied.adopt(service.name.clone(), elements);
            read_back.former_claims.remove(&service.name);
            let desired = (service.desired, service.unserved);
            self.prepared.insert(service.name.clone(), desired);
            read.push(service.name);
        }
        for name in read {
            read_back.unread.remove(&name);
            self.dirty.insert(name);
        }
        self.read_back = Some(read_back);
    }

    /// Whether the table has exactly the desired elements of a Service, and no other Service had one
    /// of them.
    fn is_whole(
        &self,
        service: &ServiceInStep<A>,
        taken: &BTreeSet<ElementKey<A>>,
        read_back: &ReadBack<A>,
    ) -> bool {
        let has_ranges = |claim: &Claim<A>| read_back.ranges.contains_key(claim);
        !service.differs
            && !self.skipped.contains(&service.name)
            && !service.claims.iter().any(has_ranges)
            && (taken.is_empty() || !service.keys.iter().any(|key| taken.contains(key)))
    }

    /// Returns the elements in the table that are of a Service, in order.
    fn found_of(
        &self,
        service: &ServiceInStep<A>,
        found: &HashMap<ElementKey<A>, Element<A>>,
        taken: &mut BTreeSet<ElementKey<A>>,
        read_back: &mut ReadBack<A>,
    ) -> Vec<Element<A>> {
        let is_skipped = self.skipped.contains(&service.name);
        let applied = AppliedKeys::new(&self.applied);
        let is_of = |claim: Option<&Claim<A>>, element: &Element<A>| {
            self.is_of(&service.name, claim, element, &applied, &read_back.unread)
        };
        let mut elements: Vec<_> = service
            .keys
            .iter()
            .filter_map(|key| found.get(key))
            .filter(|element| {
                let claim = Claim::of_element(element.set, &element.key);
                claim.is_none()
                    || (is_of(claim.as_ref(), element) && taken.insert((element.set, element.key)))
            })
            .cloned()
            .collect();
        for claim in &service.claims {
            let ranges = read_back.ranges.remove(claim).unwrap_or_default();
            let is_own = |range: &Element<A>| {
                is_of(Some(claim), range)
                    && !taken.contains(&(range.set, range.key))
                    && (!is_skipped || self.stays(&service.name, range))
            };
            let (own, others): (Vec<_>, Vec<_>) = ranges.into_iter().partition(is_own);
            elements.extend(own);
            if !others.is_empty() {
                read_back.ranges.insert(*claim, others);
            }
        }
        if is_skipped {
            elements = self.kept_of_skipped(&service.name, elements);
        }
        elements.sort_unstable();
        let is_adopted = |key: &ElementKey<A>| {
            let position = elements.binary_search_by(|one| (one.set, one.key).cmp(key));
            position.is_ok() || !found.contains_key(key)
        };
        read_back.know(service.keys.iter().filter(|key| is_adopted(key)));
        elements
    }

    /// Returns the elements of a skipped Service that stay: those at frontends that it still has, and
    /// the shared elements that these need.
    fn kept_of_skipped(&self, name: &ServiceName, found: Vec<Element<A>>) -> Vec<Element<A>> {
        let (own, others): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|element| self.stays(name, element));
        let needed: BTreeSet<_> = own.iter().flat_map(shared_by).collect();
        let shared = others
            .into_iter()
            .filter(|element| needed.contains(element));
        own.iter().cloned().chain(shared).collect()
    }

    /// Whether an element of a skipped Service stays.
    fn stays(&self, name: &ServiceName, element: &Element<A>) -> bool {
        let claim = Claim::of_element(element.set, &element.key);
        let comment = element.comment.as_deref();
        claim.is_some_and(|claim| self.claims.holder(&claim) == Some(name))
            && comment.is_some_and(|comment| service_and_port(comment).0 == name.as_str())
    }

    /// Whether an element at a frontend is of this Service, and not of one that reads or has read
    /// it itself.
    fn is_of(
        &self,
        name: &ServiceName,
        claim: Option<&Claim<A>>,
        element: &Element<A>,
        applied: &AppliedKeys<'_, A>,
        unread: &BTreeSet<ServiceName>,
    ) -> bool {
        let holder = claim.and_then(|claim| self.claims.holder(claim));
        holder.is_none_or(|holder| {
            let is_read = !unread.contains(holder);
            holder == name || (is_read && !applied.has(Some(holder), element.set, &element.key))
        })
    }

    /// Deletes the ranges first that the table still has at frontends for which a transaction adds
    /// ranges; returns these frontends.
    ///
    /// A Service that was read may get a frontend that it had in the table, or another one had. The
    /// kernel rejects ranges that overlap, and keeps the comment of one that exists.
    pub(super) fn replace_unknown_ranges(
        &self,
        transaction: &mut Transaction<A>,
    ) -> BTreeSet<Claim<A>> {
        let unknown = self
            .read_back
            .as_ref()
            .map(|read_back| &read_back.ranges)
            .filter(|ranges| !ranges.is_empty());
        let Some(unknown) = unknown else {
            return BTreeSet::new();
        };
        let claims = transaction.operations.iter().filter_map(|operation| {
            let Op::Add(element) = &operation.op else {
                return None;
            };
            Claim::of_element(element.set, &element.key)
                .filter(|claim| element.set.has_service_ranges() && unknown.contains_key(claim))
        });
        let claims: BTreeSet<_> = claims.collect();
        let ranges = claims.iter().filter_map(|claim| unknown.get(claim));
        let ranges: Vec<_> = ranges.flatten().cloned().collect();
        transaction.delete_first(&ranges);
        claims
    }

    /// Records that the kernel committed [`Self::replace_unknown_ranges`].
    pub(super) fn forget_ranges(&mut self, replaced: &BTreeSet<Claim<A>>) {
        let Some(read_back) = &mut self.read_back else {
            return;
        };
        let ranges = replaced
            .iter()
            .filter_map(|claim| read_back.ranges.remove(claim));
        let ranges: Vec<_> = ranges.flatten().collect();
        self.mark_dirty_elements(ranges);
    }

    /// Returns the transaction that deletes what no Service needs, if every Service was read.
    #[must_use]
    pub fn plan_end_of_read_back(&self) -> Option<Transaction<A>> {
        let read_back = self
            .read_back
            .as_ref()
            .filter(|read_back| read_back.unread.is_empty())?;
        let mut transaction = self.applied.delete_unneeded();
        let ranges = read_back.ranges.values().flatten();
        let deletes = ranges.map(|element| Operation {
            op: Op::Delete(element.set, element.key),
            service: None,
        });
        transaction.operations.extend(deletes);
        Some(transaction)
    }

    /// Ends a read-back whose last transaction the kernel committed; returns the keys that its
    /// Services should have.
    pub fn end_read_back(&mut self) -> KnownKeys {
        self.applied.all_known();
        let Some(read_back) = self.read_back.take() else {
            return KnownKeys::new();
        };
        self.mark_dirty_elements(read_back.ranges.into_values().flatten());
        read_back.known
    }

    /// Returns those elements of the table that are not applied.
    #[must_use]
    pub fn not_applied(&self, mut elements: Vec<Element<A>>) -> Vec<Element<A>> {
        let applied = AppliedKeys::new(&self.applied);
        elements.retain(|element| {
            let claim = Claim::of_element(element.set, &element.key);
            let holder = claim.and_then(|claim| self.claims.holder(&claim));
            !applied.has(holder, element.set, &element.key)
        });
        elements
    }

    /// Returns the slots of a port that the table was found to have.
    pub(super) fn found_lists(
        &self,
        name: &ServiceName,
        port: &PortElements<A>,
    ) -> Option<PortSlots<A>> {
        let is_found = !self.applied.kept_of(name).is_empty();
        is_found.then(|| lists(port, |set, key| self.applied.kept_value(name, set, key)))
    }
}

/// Returns the elements of a Service that have keys, in the order of sets and keys.
fn keyed_elements<A: Address>(service: &ServiceElements<A>, name: &ServiceName) -> Vec<Element<A>> {
    let mut elements = service.elements(name);
    elements.retain(|element| element.set.has_service_keys());
    elements
}

impl<A: Address> ServiceInStep<A> {
    /// Whether the table has exactly the desired elements at the keys so far.
    fn is_desired(&self, found: &HashMap<ElementKey<A>, Element<A>>) -> bool {
        let is_same =
            |element: &Element<A>| found.get(&(element.set, element.key)) == Some(element);
        // Other keys are of elements that it had before.
        self.elements.len() == self.keys.len() && self.elements.iter().all(is_same)
    }

    /// Adds the keys that follow from what the table has.
    fn add_keys(&mut self, found: &HashMap<ElementKey<A>, Element<A>>) {
        self.new_from = self.keys.len();
        if !self.differs {
            self.differs = !self.is_desired(found);
            if self.differs {
                self.keep_slots(found);
                self.differs = !self.is_desired(found);
            }
        }
        if !self.differs {
            return;
        }
        let mut asked: BTreeSet<_> = self.keys.iter().copied().collect();
        let verdicts = self.claims.iter().flat_map(verdict_keys);
        let found = self.keys.iter().filter_map(|key| found.get(key));
        let mut keys: Vec<_> = verdicts.chain(found.flat_map(keys_behind)).collect();
        keys.retain(|key| asked.insert(*key));
        self.keys.append(&mut keys);
    }

    /// Keeps the slots that the table has.
    fn keep_slots(&mut self, found: &HashMap<ElementKey<A>, Element<A>>) {
        let value = |set, key: &Key<A>| Some(found.get(&(set, *key))?.value);
        self.desired
            .keep_slots_of(|port| Some(Cow::Owned(lists(port, value))));
        self.elements = keyed_elements(&self.desired, &self.name);
    }
}

impl<A: Address> ReadBackStep<A> {
    /// Adds other Services that were read at the same time.
    pub fn append(&mut self, other: Self) {
        self.services.extend(other.services);
        self.found.extend(other.found);
    }

    /// Returns the keys to look up, in the order of sets.
    #[must_use]
    pub fn keys(&self) -> Vec<ElementKey<A>> {
        let new =
            |service: &ServiceInStep<A>| service.keys.get(service.new_from..).map(<[_]>::to_vec);
        let mut keys: Vec<_> = self.services.iter().filter_map(new).flatten().collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Adds the elements that the table has at [`Self::keys`], which are then the keys that follow
    /// from these elements; none at the end.
    pub fn add(&mut self, elements: Vec<Element<A>>) {
        let elements = elements.into_iter();
        self.found
            .extend(elements.map(|element| ((element.set, element.key), element)));
        for service in &mut self.services {
            service.add_keys(&self.found);
        }
    }
}

/// Returns the slots of a port in a table.
fn lists<A: Address>(
    port: &PortElements<A>,
    value: impl Fn(SetName, &Key<A>) -> Option<Value<A>>,
) -> PortSlots<A> {
    let list = |slot: Option<&dyn Fn(u32) -> ElementKey<A>>| {
        let Some(slot) = slot else {
            return Slots::default();
        };
        let endpoint = |number| {
            let (set, key) = slot(number);
            match value(set, &key)? {
                Value::Endpoint(address, port) => Some((address, port)),
                Value::Nothing | Value::Verdict(_) | Value::Address(_) => None,
            }
        };
        Slots::in_order((0..SlotRange::CLUSTER).map_while(endpoint))
    };
    let (cluster, local) = (port.cluster_slot(), port.local_slot());
    PortSlots {
        cluster: list(cluster.as_ref().map(|slot| slot as _)),
        local: list(local.as_ref().map(|slot| slot as _)),
    }
}
