//! The plan of one IP family. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::FamilyState;
use crate::planner::conntrack::DirtyFrontends;
use crate::planner::desired::{
    Claim, EndpointLists, HealthCheck, NodeElements, NodeFacts, PortElements, ServiceElements,
    Slots, UnservedReason, health_check, service_elements,
};
use crate::planner::diff::{
    Applied, Delta, DesiredChange, GoneElements, KeptElements, KernelView, Plan, Transaction,
    between, kept,
};
use crate::planner::model::{Address, ServiceName, Store};
use crate::planner::ruleset::{
    DynamicChain, EndpointList, Key, SetName, Table, Value, service_and_port,
};
use crate::sync::affinity::{AffinityChanges, StaleClients};

/// The plan of one family: a transaction, and what follows once the kernel committed it.
#[derive(Debug)]
pub struct FamilyPlan<A: Address> {
    /// The operations, moved to the kernel.
    pub transaction: Transaction<A>,
    /// What follows, moved to [`FamilyState::committed`].
    pub effects: Effects<A>,
}

/// What a committed plan of one family changes in its state.
#[derive(Debug)]
pub struct Effects<A: Address> {
    /// The reasons why parts of each planned Service are not served.
    pub unserved: Vec<(ServiceName, Vec<UnservedReason>)>,
    /// The clients that lose the endpoint they are pinned to.
    pub stale: StaleClients<A>,
    /// The endpoints that clients are no longer pinned to before the transaction is committed.
    pub(in crate::sync) leaving: GoneElements<A>,
    /// The Services that are planned.
    pub(in crate::sync) names: BTreeSet<ServiceName>,
    pub(super) delta: Delta<A>,
    /// The applied state that `delta` begins from, where it is not the one of the last commit.
    pub(super) base: Option<Applied<A>>,
    /// The dynamic chains of the table that was read.
    pub(super) found_chains: BTreeSet<DynamicChain>,
    /// The health checks that change.
    pub(super) health: Vec<(ServiceName, Option<HealthCheck>)>,
    pub(super) planned_for: PlannedFor<A>,
    /// The frontends that change.
    pub(super) dirty_frontends: DirtyFrontends<A>,
}

/// The facts of the node that the elements of every Service depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedFor<A: Address> {
    zone: Option<Arc<str>>,
    primary_ip: Option<A>,
    service_cidrs: Vec<A::Net>,
    pod_cidrs: Vec<A::Net>,
}

impl<A: Address> PlannedFor<A> {
    fn new(store: &Store, node: &NodeElements<A>) -> Self {
        Self {
            zone: store.node().and_then(|node| node.zone.clone()),
            primary_ip: node.primary_ip(),
            service_cidrs: node.service_cidrs().to_vec(),
            pod_cidrs: node.pod_cidrs().to_vec(),
        }
    }
}

impl<A: Address> FamilyState<A> {
    /// Plans what is dirty, or everything where the view is another than [`KernelView::Applied`].
    ///
    /// # Panics
    /// Never: the planner's operations fit the table that they are planned for.
    #[must_use]
    pub fn plan(&self, store: &Store, facts: &NodeFacts, view: KernelView<A>) -> FamilyPlan<A> {
        let everything = !matches!(view, KernelView::Applied);
        let node = NodeElements::new(facts, store, &self.claims);
        let planned_for = PlannedFor::new(store, &node);
        let mut names = self.dirty.clone();
        if everything || self.planned_for.as_ref() != Some(&planned_for) {
            names.extend(store.service_names());
        } else {
            names.extend(self.with_cluster_ips_as_endpoints(store, &node));
            names.extend(self.rivals(&node));
        }
        let names: BTreeSet<_> = names.difference(&self.skipped).cloned().collect();
        let mut unserved = Vec::new();
        let mut change = DesiredChange::default();
        if everything || node != *self.applied.node() {
            change.node = Some(node.clone());
        }
        for name in &names {
            let (wanted, reasons) = self.wanted(store, &node, name, &view);
            unserved.push((name.clone(), reasons));
            change.services.insert(name.clone(), wanted);
        }
        let dirty_frontends = self.changed_frontends(&change, &node, &view);
        let kept = self.kept(&view);
        let AffinityChanges {
            stale,
            gone,
            leaving,
        } = self.affinity(&change, &kept, &node, facts.sides(&node), &view);
        change.gone = Some(gone);
        let health = self.health(store, &node, &names);
        let base = everything.then(|| Applied::holding(kept));
        let applied = base.as_ref().unwrap_or(&self.applied);
        let Plan { transaction, delta } = Plan::new(applied, change);
        let (transaction, found_chains) = match view {
            KernelView::Applied | KernelView::Empty => (transaction, BTreeSet::new()),
            KernelView::Found(found) => {
                let mut wanted = applied.table();
                transaction.apply_planned(&mut wanted);
                let difference = between(&found, &wanted, &transaction);
                (difference, found.dynamic_chains().clone())
            }
        };
        FamilyPlan {
            transaction,
            effects: Effects {
                unserved,
                stale,
                leaving,
                names,
                delta,
                base,
                found_chains,
                health,
                planned_for,
                dirty_frontends,
            },
        }
    }

    /// The Services with an endpoint at a `ClusterIP` that came or went. What is in a ServiceCIDR is never
    /// used, whether it is a `ClusterIP` or not: nothing changes with those.
    fn with_cluster_ips_as_endpoints(
        &self,
        store: &Store,
        node: &NodeElements<A>,
    ) -> BTreeSet<ServiceName> {
        let ips = self.cluster_ips.iter().copied();
        let outside: BTreeSet<_> = ips.filter(|ip| !node.is_in_service_cidrs(*ip)).collect();
        if outside.is_empty() {
            return BTreeSet::new();
        }
        store.services_with_endpoints(&outside)
    }

    /// The Services of which one may have, at an address of the node, what another claims, or no longer: what
    /// they claim changed, or the addresses that serve node ports.
    fn rivals(&self, node: &NodeElements<A>) -> BTreeSet<ServiceName> {
        let before: BTreeSet<_> = self.applied.node().node_ips().collect();
        let now: BTreeSet<_> = node.node_ips().collect();
        let mut rivals = self.claims.holders_of_ports(&self.numbers, &now);
        let changed = &before ^ &now;
        let numbers = self.claims.ports_at(&changed);
        rivals.extend(self.claims.holders_of_ports(&numbers, &changed));
        rivals
    }

    /// The frontends that a plan changes: of what is applied before it and after it.
    fn changed_frontends(
        &self,
        change: &DesiredChange<A>,
        node: &NodeElements<A>,
        view: &KernelView<A>,
    ) -> DirtyFrontends<A> {
        let mut touched = DirtyFrontends::default();
        let before = self.applied.node();
        touched.add_node_ips(before.node_ips().chain(node.node_ips()));
        for (name, after) in &change.services {
            let before = self.applied.service_elements(name);
            match view {
                KernelView::Applied => touched.add_change(before, after.as_ref()),
                KernelView::Found(_) | KernelView::Empty => {
                    before
                        .into_iter()
                        .chain(after)
                        .for_each(|whole| touched.add_service(whole));
                }
            }
        }
        if change.node.is_some() && !before.node_ips().eq(node.node_ips()) {
            let before = self.applied.all_service_elements();
            let after = change.services.values().flatten();
            let all = before.into_values().chain(after);
            all.for_each(|service| touched.add_node_ports(service));
        }
        match view {
            KernelView::Found(table) => touched.add_table(table),
            KernelView::Empty if self.planned_for.is_none() => touched.forget_previous_endpoints(),
            KernelView::Applied | KernelView::Empty => {}
        }
        touched
    }

    fn health(
        &self,
        store: &Store,
        node: &NodeElements<A>,
        names: &BTreeSet<ServiceName>,
    ) -> Vec<(ServiceName, Option<HealthCheck>)> {
        // A load-balancer IP may have come to this machine, or gone.
        let moved = node.own() != self.applied.node().own();
        let all = self
            .health
            .keys()
            .filter(|name| moved && !names.contains(*name));
        let health = names.iter().chain(all).filter_map(|name| {
            let service = store.service(name);
            let check = |service| health_check(service, store, &self.claims, node);
            let now = service.and_then(|service| check(service));
            let differs = now.as_ref() != self.health.get(name);
            differs.then(|| (name.clone(), now))
        });
        health.collect()
    }

    /// The elements that stay of skipped Services, also those of an earlier process: as long as the
    /// Services have the frontend.
    fn kept(&self, view: &KernelView<A>) -> KeptElements<A> {
        let KernelView::Found(found) = view else {
            return KeptElements::new();
        };
        let by_name = self.skipped.iter().map(|name| (name.as_str(), name));
        let skipped: BTreeMap<_, _> = by_name.collect();
        kept(found, |element| {
            let comment = element.comment.as_deref()?;
            let name = *skipped.get(service_and_port(comment).0)?;
            let claim = Claim::of_element(element.set, &element.key)?;
            (self.claims.holder(&claim) == Some(name)).then(|| name.clone())
        })
    }

    fn wanted(
        &self,
        store: &Store,
        node: &NodeElements<A>,
        name: &ServiceName,
        view: &KernelView<A>,
    ) -> (Option<ServiceElements<A>>, Vec<UnservedReason>) {
        let Some(service) = store.service(name) else {
            return (None, Vec::new());
        };
        let (mut wanted, reasons) = service_elements(service, store, &self.claims, node);
        wanted.assign_stable(|port| match view {
            KernelView::Applied => self.applied.lists_of(name, port).map(Cow::Borrowed),
            KernelView::Found(found) => Some(Cow::Owned(lists_in(found, port))),
            KernelView::Empty => None,
        });
        (
            Some(wanted).filter(|wanted| !wanted.ports.is_empty()),
            reasons,
        )
    }
}

/// The slots of a port in a table that was read from the kernel.
fn lists_in<A: Address>(found: &Table<A>, port: &PortElements<A>) -> EndpointLists<A> {
    fn list<A: Address>(
        found: &Table<A>,
        slot: Option<impl Fn(u32) -> (SetName, Key<A>)>,
    ) -> Slots<A> {
        let Some(slot) = slot else {
            return Slots::default();
        };
        let endpoint = |number| {
            let (set, key) = slot(number);
            match found.get(set, &key)?.value {
                Value::Endpoint(address, port) => Some((address, port)),
                Value::Nothing | Value::Verdict(_) => None,
            }
        };
        Slots::in_order((0..EndpointList::CLUSTER).map_while(endpoint))
    }
    EndpointLists {
        cluster: list(found, port.cluster_slot()),
        local: list(found, port.local_slot()),
    }
}
