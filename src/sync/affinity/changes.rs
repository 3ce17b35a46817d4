//! What clients remember of one family, and what a change makes of that. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::planner::desired::{
    AffinityMemory, AllowedClients, ClientSides, ClientsToForget, LostEndpoint, NodeElements,
    gone_in_table, gone_key, lost_endpoint,
};
use crate::planner::diff::{
    DesiredChange, ElementTimeout, GoneElements, KeptElements, KernelView, Plan, TimeLeft,
};
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Key, Value, Verdict};
use crate::sync::family::{Effects, FamilyState};

/// Clients that must lose the endpoint they had.
#[derive(Clone, Debug)]
pub struct StaleClients<A: Address> {
    forget: ClientsToForget<A>,
    /// After a start: all that may be remembered. Everything else is stale.
    right: Option<AllowedClients<A>>,
    pub(in crate::sync) sides: ClientSides<A>,
}

impl<A: Address> StaleClients<A> {
    /// The protocols that have any.
    #[must_use]
    pub fn protocols(&self) -> BTreeSet<Protocol> {
        if self.right.is_some() {
            return Protocol::ALL.into();
        }
        self.forget.protocols()
    }

    /// Whether an element of the affinity map of `protocol` is one.
    #[must_use]
    pub fn covers(&self, protocol: Protocol, key: &Key<A>, value: &Value<A>) -> bool {
        let (Key::Client(client, address, port), Value::Endpoint(endpoint, number)) =
            (*key, *value)
        else {
            return false;
        };
        let (asked, endpoint) = ((protocol, address, port), (endpoint, number));
        let side = self.sides.of(client);
        match &self.right {
            Some(right) => right.denies(&asked, &endpoint, side),
            None => self.forget.covers(&asked, &endpoint, side),
        }
    }
}

impl<A: Address> StaleClients<A> {
    /// For how long an element of the affinity map of `protocol` is to be there from now on, if its time-out is
    /// not what it is now, but was for all but `since`.
    #[must_use]
    pub fn time(
        &self,
        protocol: Protocol,
        key: &Key<A>,
        time: ElementTimeout,
        since: Duration,
    ) -> Option<TimeLeft> {
        let Key::Client(_, address, port) = *key else {
            return None;
        };
        let asked = (protocol, address, port);
        let seconds = match &self.right {
            Some(right) => right.seconds(&asked),
            None => self.forget.seconds(&asked),
        };
        let whole = Duration::from_secs(seconds?.into());
        (whole != time.whole).then(|| time.under(whole, since))
    }
}

/// What a plan does about session affinity.
pub(in crate::sync) struct AffinityChanges<A: Address> {
    pub(in crate::sync) stale: StaleClients<A>,
    pub(in crate::sync) gone: GoneElements<A>,
    pub(in crate::sync) leaving: GoneElements<A>,
}

impl<A: Address> FamilyState<A> {
    /// Who is to be forgotten, and what keeps them from endpoints that are gone until they are. In a
    /// table that was found, clients may remember what an earlier process programmed.
    pub(in crate::sync) fn affinity(
        &self,
        change: &DesiredChange<A>,
        kept: &KeptElements<A>,
        node: &NodeElements<A>,
        sides: ClientSides<A>,
        view: &KernelView<A>,
    ) -> AffinityChanges<A> {
        let node_ips: BTreeSet<_> = node.node_ips().collect();
        // Clients may be on the other side of external policy Local now.
        let moved = self.sides.as_ref() != Some(&sides);
        let stale = |forget, right| StaleClients {
            forget,
            right,
            sides,
        };
        match view {
            KernelView::Applied => {
                let (before, now) = self.memories(change, &node_ips, moved);
                let forget = before.lost(&now);
                let mut pairs: BTreeSet<_> = forget.pairs().collect();
                let right = moved.then(|| self.right(&now, &node_ips));
                pairs.extend(right.iter().flat_map(AllowedClients::only_inside));
                let gone = self.gone(&pairs, &before, &now);
                let known = self.applied.gone();
                let leaving = pairs.iter().filter(|(asked, _)| now.contains(asked));
                let leaving = leaving.map(gone_key).filter(|key| !known.contains_key(key));
                AffinityChanges {
                    leaving: leaving.map(|key| (key, Verdict::Unremembered)).collect(),
                    gone,
                    stale: stale(forget, right),
                }
            }
            KernelView::Found(found) => {
                let services = change.services.values().flatten();
                let mut right = AffinityMemory::of(services, &node_ips).allowed();
                for slot in kept.values().flatten() {
                    right.keep_slot(slot, &node_ips);
                }
                let mut gone = gone_in_table(found, node_ips, &right);
                if moved {
                    gone.extend(right.only_inside().map(|lost| (lost, Verdict::GoneOutside)));
                }
                let gone = gone.into_iter();
                AffinityChanges {
                    gone: gone
                        .map(|(lost, verdict)| (gone_key(&lost), verdict))
                        .collect(),
                    leaving: GoneElements::new(),
                    stale: stale(ClientsToForget::default(), Some(right)),
                }
            }
            KernelView::Empty => AffinityChanges {
                gone: GoneElements::new(),
                leaving: GoneElements::new(),
                stale: stale(ClientsToForget::default(), None),
            },
        }
    }

    /// All clients that must not remember what they do, by what was committed last; `None`: nothing was.
    #[must_use]
    pub fn stale(&self) -> Option<StaleClients<A>> {
        let node_ips = self.applied.node().node_ips().collect();
        let memory =
            AffinityMemory::of(self.applied.all_service_elements().into_values(), &node_ips);
        Some(StaleClients {
            forget: ClientsToForget::default(),
            right: Some(self.right(&memory, &node_ips)),
            sides: self.sides.clone()?,
        })
    }

    /// What clients may remember before a change, and after it: of the Services that may differ.
    fn memories<'a>(
        &'a self,
        change: &'a DesiredChange<A>,
        node_ips: &BTreeSet<A>,
        moved: bool,
    ) -> (AffinityMemory<'a, A>, AffinityMemory<'a, A>) {
        let had: BTreeSet<_> = self.applied.node().node_ips().collect();
        let others = if moved || had != *node_ips {
            self.applied.all_service_elements()
        } else {
            BTreeMap::new()
        };
        let others = others.into_iter();
        let others = others.filter(|(name, _)| !change.services.contains_key(*name));
        let others: Vec<_> = others
            .map(|(_, service_elements)| service_elements)
            .collect();
        let changed = change.services.keys();
        let before = changed.filter_map(|name| self.applied.service_elements(name));
        let before = AffinityMemory::of(before.chain(others.iter().copied()), &had);
        let after = change.services.values().flatten();
        let after = AffinityMemory::of(after.chain(others.iter().copied()), node_ips);
        (before, after)
    }

    /// All that may be remembered, given what may be of the Services of the picture.
    fn right(&self, memory: &AffinityMemory<'_, A>, node_ips: &BTreeSet<A>) -> AllowedClients<A> {
        let mut right = memory.allowed();
        for slot in self.applied.kept_elements() {
            right.keep_slot(slot, node_ips);
        }
        right
    }

    /// The endpoints that clients must not keep: those that there were, and these.
    fn gone(
        &self,
        pairs: &BTreeSet<LostEndpoint<A>>,
        before: &AffinityMemory<'_, A>,
        now: &AffinityMemory<'_, A>,
    ) -> GoneElements<A> {
        let new = pairs.iter().map(|lost| (gone_key(lost), now.denial(lost)));
        let known = self.applied.gone().iter();
        let known = known.filter(|(_, verdict)| **verdict != Verdict::Unremembered);
        let known = known.map(|(key, verdict)| {
            let lost = lost_endpoint(key.0, &key.1);
            let changed = lost.filter(|(asked, _)| before.contains(asked) || now.contains(asked));
            (
                *key,
                changed.map_or(Some(*verdict), |lost| now.denial(&lost)),
            )
        });
        let all = known.chain(new);
        all.filter_map(|(key, verdict)| Some((key, verdict?)))
            .collect()
    }

    /// The endpoints that clients must not keep, beside those of the picture: a plan that has
    /// nobody remembered for these any more, before they go. `None` if there is none.
    #[must_use]
    pub fn leaving(&self, effects: &Effects<A>) -> Option<Plan<A>> {
        let leaving = effects.leaving.iter();
        let mut gone = self.applied.gone().clone();
        gone.extend(leaving.map(|(key, verdict)| (*key, *verdict)));
        (!effects.leaving.is_empty()).then(|| self.with_gone(gone))
    }

    /// A plan for when everyone is forgotten who is to be: nobody has an endpoint any more that is gone.
    /// `None` if there is nothing to do.
    #[must_use]
    pub fn forgotten(&self) -> Option<Plan<A>> {
        let any = !self.applied.gone().is_empty();
        any.then(|| self.with_gone(GoneElements::new()))
    }

    fn with_gone(&self, gone: GoneElements<A>) -> Plan<A> {
        let gone = Some(gone);
        Plan::new(
            &self.applied,
            DesiredChange {
                gone,
                ..DesiredChange::default()
            },
        )
    }
}
