//! The effect of a change on pinned clients of one family. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::planner::desired::{
    AffinityMemory, AllowedClients, ClientSides, ClientsToForget, LostEndpoint, NodeElements,
    gone_in_table, gone_key, lost_endpoint,
};
use crate::planner::diff::{
    DesiredChange, ElementTimeout, GoneElements, KernelView, Plan, TimeLeft,
};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Key, Value, Verdict};
use crate::sync::family::{Effects, FamilyState};

/// The clients of one family that must lose the endpoint that they are pinned to.
#[derive(Clone, Debug)]
pub struct ClientsToUnpin<A: Address> {
    /// The clients that a change affects.
    affected: ClientsToForget<A>,
    /// All pins that are allowed, if any other may be in the kernel: as after a start.
    allowed: Option<AllowedClients<A>>,
    pub(in crate::sync) sides: ClientSides<A>,
}

impl<A: Address> ClientsToUnpin<A> {
    /// Returns the protocols of the clients.
    #[must_use]
    pub fn protocols(&self) -> BTreeSet<Protocol> {
        if self.allowed.is_some() {
            return Protocol::ALL.into();
        }
        self.affected.protocols()
    }

    /// Whether an element of the affinity map of `protocol` pins a client that must be unpinned.
    #[must_use]
    pub fn covers(&self, protocol: Protocol, key: &Key<A>, value: &Value<A>) -> bool {
        let (Key::Client(client, address, port), Value::Endpoint(endpoint, number)) =
            (*key, *value)
        else {
            return false;
        };
        let (target, endpoint) = ((protocol, address, port), (endpoint, number));
        let side = self.sides.of(client);
        match &self.allowed {
            Some(allowed) => allowed.denies(&target, &endpoint, side),
            None => self.affected.covers(&target, &endpoint, side),
        }
    }

    /// Returns the new time left of an element of the affinity map of `protocol`, if its timeout
    /// changed, which happened at most `since` ago.
    #[must_use]
    pub fn new_time_left(
        &self,
        protocol: Protocol,
        key: &Key<A>,
        timeout: ElementTimeout,
        since: Duration,
    ) -> Option<TimeLeft> {
        let Key::Client(_, address, port) = *key else {
            return None;
        };
        let target = (protocol, address, port);
        let seconds = match &self.allowed {
            Some(allowed) => allowed.seconds(&target),
            None => self.affected.seconds(&target),
        };
        let whole = Duration::from_secs(seconds?.into());
        (whole != timeout.whole).then(|| timeout.changed_to(whole, since))
    }
}

/// The part of a plan that is about session affinity.
pub(in crate::sync) struct AffinityChanges<A: Address> {
    /// The clients that must be unpinned.
    pub(in crate::sync) to_unpin: ClientsToUnpin<A>,
    /// The endpoints that clients must not keep, after the commit.
    pub(in crate::sync) gone: GoneElements<A>,
    /// The endpoints that no client may be pinned to any more, already before the commit.
    pub(in crate::sync) stop_pinning: GoneElements<A>,
}

impl<A: Address> FamilyState<A> {
    /// Plans which clients must be unpinned, and the elements that keep them from endpoints that
    /// are gone until then.
    ///
    /// In a table that was read, clients may be pinned by what an earlier process programmed.
    pub(in crate::sync) fn plan_affinity(
        &self,
        change: &DesiredChange<A>,
        node: &NodeElements<A>,
        sides: ClientSides<A>,
        view: KernelView,
    ) -> AffinityChanges<A> {
        let node_ips: BTreeSet<_> = node.node_ips().collect();
        // A client may be on the other side of external policy Local now.
        let sides_changed = self.sides.as_ref() != Some(&sides);
        let to_unpin = |affected, allowed| ClientsToUnpin {
            affected,
            allowed,
            sides,
        };
        match view {
            KernelView::Applied => {
                let (before, after) = self.memories(change, &node_ips, sides_changed);
                let affected = before.lost(&after);
                // While Services are unknown, their clients stay: all are checked at the end.
                let allowed = (sides_changed && self.read_back.is_none())
                    .then(|| self.allowed(&after, &node_ips));
                let lost: BTreeSet<_> = affected
                    .pairs()
                    .chain(allowed.iter().flat_map(AllowedClients::only_inside))
                    .collect();
                let applied = self.applied.gone();
                let stop_pinning = lost
                    .iter()
                    .filter(|(target, _)| after.contains(target))
                    .map(gone_key)
                    .filter(|key| !applied.contains_key(key))
                    .map(|key| (key, Verdict::Unremembered))
                    .collect();
                let mut gone = self.gone(&lost, &before, &after);
                gone.extend(self.gone_of_found(change, &node_ips));
                AffinityChanges {
                    stop_pinning,
                    gone,
                    to_unpin: to_unpin(affected, allowed),
                }
            }
            KernelView::Empty => AffinityChanges {
                gone: GoneElements::new(),
                stop_pinning: GoneElements::new(),
                to_unpin: to_unpin(ClientsToForget::default(), None),
            },
        }
    }

    /// Returns the endpoints that clients may have from the elements that the table was found to
    /// have for the Services of a change, but may not keep.
    fn gone_of_found(&self, change: &DesiredChange<A>, node_ips: &BTreeSet<A>) -> GoneElements<A> {
        let Some(read_back) = &self.read_back else {
            return GoneElements::new();
        };
        let names = change.services.keys();
        let found = names.filter(|name| self.applied.service_elements(name).is_none());
        let found: Vec<_> = found.collect();
        let kept = found.iter().flat_map(|name| self.applied.kept_of(name));
        let table = self.applied.partial_table(kept);
        let services = found.iter().filter_map(|name| change.services.get(*name));
        let allowed = AffinityMemory::of(services.flatten(), node_ips).allowed();
        let all_ips = node_ips.union(&read_back.node_ips).copied().collect();
        let mut gone = gone_in_table(&table, all_ips, &allowed);
        if read_back.sides_changed {
            let only_inside = allowed.only_inside();
            gone.extend(only_inside.map(|lost| (lost, Verdict::GoneOutside)));
        }
        gone.iter()
            .map(|(lost, verdict)| (gone_key(lost), *verdict))
            .collect()
    }

    /// Returns all clients that the applied state does not allow to stay pinned; `None` before the
    /// first commit.
    #[must_use]
    pub fn clients_to_unpin(&self) -> Option<ClientsToUnpin<A>> {
        let node_ips = self.applied.node().node_ips().collect();
        let memory =
            AffinityMemory::of(self.applied.all_service_elements().into_values(), &node_ips);
        Some(ClientsToUnpin {
            affected: ClientsToForget::default(),
            allowed: Some(self.allowed(&memory, &node_ips)),
            sides: self.sides.clone()?,
        })
    }

    /// Returns the endpoints that clients may be pinned to before and after a change, of the
    /// Services that may differ.
    fn memories<'a>(
        &'a self,
        change: &'a DesiredChange<A>,
        node_ips: &BTreeSet<A>,
        sides_changed: bool,
    ) -> (AffinityMemory<'a, A>, AffinityMemory<'a, A>) {
        let applied_ips: BTreeSet<_> = self.applied.node().node_ips().collect();
        let others = if sides_changed || applied_ips != *node_ips {
            self.applied.all_service_elements()
        } else {
            BTreeMap::new()
        };
        let unchanged: Vec<_> = others
            .into_iter()
            .filter(|(name, _)| !change.services.contains_key(*name))
            .map(|(_, service_elements)| service_elements)
            .collect();
        let before = change
            .services
            .keys()
            .filter_map(|name| self.applied.service_elements(name));
        let after = change.services.values().flatten();
        (
            AffinityMemory::of(before.chain(unchanged.iter().copied()), &applied_ips),
            AffinityMemory::of(after.chain(unchanged.iter().copied()), node_ips),
        )
    }

    /// Returns all allowed pins: those of `memory`, and those of skipped Services.
    fn allowed(&self, memory: &AffinityMemory<'_, A>, node_ips: &BTreeSet<A>) -> AllowedClients<A> {
        let mut allowed = memory.allowed();
        for slot in self.applied.kept_elements() {
            allowed.keep_slot(slot, node_ips);
        }
        allowed
    }

    /// Returns the endpoints that clients must not keep: those of the applied state, and `lost`.
    fn gone(
        &self,
        lost: &BTreeSet<LostEndpoint<A>>,
        before: &AffinityMemory<'_, A>,
        after: &AffinityMemory<'_, A>,
    ) -> GoneElements<A> {
        let applied = self
            .applied
            .gone()
            .iter()
            .filter(|(_, verdict)| **verdict != Verdict::Unremembered)
            .map(|(key, verdict)| {
                let changed = lost_endpoint(key.0, &key.1)
                    .filter(|(target, _)| before.contains(target) || after.contains(target));
                let verdict = changed.map_or(Some(*verdict), |lost| after.denial(&lost));
                (*key, verdict)
            });
        let new = lost.iter().map(|lost| (gone_key(lost), after.denial(lost)));
        applied
            .chain(new)
            .filter_map(|(key, verdict)| Some((key, verdict?)))
            .collect()
    }

    /// Plans that no client is pinned any more to the endpoints that a plan removes; `None` if
    /// there are none. It is committed before that plan.
    #[must_use]
    pub fn plan_stop_pinning(&self, effects: &Effects<A>) -> Option<Plan<A>> {
        if effects.stop_pinning.is_empty() {
            return None;
        }
        let mut gone = self.applied.gone().clone();
        gone.extend(&effects.stop_pinning);
        Some(self.plan_gone(gone))
    }

    /// Plans that `gone-*` become empty, once no client is pinned to an endpoint that is gone;
    /// `None` if they are empty.
    #[must_use]
    pub fn plan_all_unpinned(&self) -> Option<Plan<A>> {
        let any = !self.applied.gone().is_empty();
        any.then(|| self.plan_gone(GoneElements::new()))
    }

    fn plan_gone(&self, gone: GoneElements<A>) -> Plan<A> {
        Plan::new(
            &self.applied,
            DesiredChange {
                gone: Some(gone),
                ..DesiredChange::default()
            },
        )
    }
}
