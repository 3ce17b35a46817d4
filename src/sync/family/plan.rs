//! The plan of one IP family. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::FamilyState;
use crate::planner::conntrack::DirtyFrontends;
use crate::planner::desired::{
    Claim, HealthCheck, NodeElements, NodeFacts, ServiceElements, UnservedReason, health_check,
    service_elements,
};
use crate::planner::diff::{
    Applied, Delta, DesiredChange, GoneElements, KernelView, Plan, Transaction,
};
use crate::planner::model::{Address, ServiceName, Store};
use crate::sync::affinity::{AffinityChanges, ClientsToUnpin};

/// The plan of one family: a transaction, and the effects of its commit.
#[derive(Debug)]
pub struct FamilyPlan<A: Address> {
    /// The operations, moved to the kernel.
    pub transaction: Transaction<A>,
    /// The effects of the commit, moved to [`FamilyState::committed`].
    pub effects: Effects<A>,
}

/// The changes that a committed plan of one family causes in its state.
#[derive(Debug)]
pub struct Effects<A: Address> {
    /// The reasons why parts of each planned Service are not served.
    pub unserved: Vec<(ServiceName, Vec<UnservedReason>)>,
    /// The clients that must lose the endpoint that they are pinned to.
    pub to_unpin: ClientsToUnpin<A>,
    /// The endpoints that no client may be pinned to any more, already before the commit.
    pub(in crate::sync) stop_pinning: GoneElements<A>,
    /// The planned Services.
    pub(in crate::sync) names: BTreeSet<ServiceName>,
    /// The change of the applied state.
    pub(super) delta: Delta<A>,
    /// The applied state that `delta` starts from, if it is not the one of the last commit.
    pub(super) base: Option<Applied<A>>,
    /// The health checks that change.
    pub(super) health: Vec<(ServiceName, Option<HealthCheck>)>,
    /// The facts that the Services are planned for.
    pub(super) planned_for: PlannedFor<A>,
    /// The frontends that change.
    pub(super) dirty_frontends: DirtyFrontends<A>,
    /// The frontends whose unknown source ranges the transaction deletes.
    pub(super) replaced_ranges: BTreeSet<Claim<A>>,
}

/// The facts of the node that the elements of every Service depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedFor<A: Address> {
    zone: Option<Arc<str>>,
    primary_ip: Option<A>,
    service_cidrs: Vec<A::Net>,
    pod_cidrs: Vec<A::Net>,
    addresses: Option<BTreeSet<A>>,
}

impl<A: Address> PlannedFor<A> {
    fn new(store: &Store, node: &NodeElements<A>) -> Self {
        Self {
            zone: store.node().and_then(|node| node.zone.clone()),
            primary_ip: node.primary_ip(),
            service_cidrs: node.service_cidrs().to_vec(),
            pod_cidrs: node.pod_cidrs().to_vec(),
            addresses: node.addresses_of_node().cloned(),
        }
    }
}

impl<A: Address> FamilyState<A> {
    /// Plans the dirty Services, or all Services for an empty table.
    ///
    /// # Panics
    /// Never: planned operations fit the table that they are planned for.
    #[must_use]
    pub fn plan(&self, store: &Store, facts: &NodeFacts, view: KernelView) -> FamilyPlan<A> {
        let everything = view == KernelView::Empty;
        let node = NodeElements::new(facts, store, &self.claims);
        let planned_for = PlannedFor::new(store, &node);
        let mut names = self.dirty.clone();
        if everything || self.planned_for.as_ref() != Some(&planned_for) {
            names.extend(store.service_names());
        } else {
            names.extend(self.services_with_changed_cluster_ips(store, &node));
            names.extend(self.rivals(&node));
        }
        let names = names.difference(&self.skipped);
        let names: BTreeSet<_> = names
            .filter(|name| !self.is_unread(name))
            .cloned()
            .collect();
        let mut unserved = Vec::new();
        let mut change = DesiredChange::default();
        if everything || node != *self.applied.node() {
            change.node = Some(node.clone());
        }
        for name in &names {
            let (desired, reasons) = self.desired(store, &node, name, view);
            unserved.push((name.clone(), reasons));
            change.services.insert(name.clone(), desired);
        }
        let dirty_frontends = self.changed_frontends(&change, &node, view);
        let AffinityChanges {
            to_unpin,
            gone,
            stop_pinning,
        } = self.plan_affinity(&change, &node, facts.sides(&node), view);
        change.gone = Some(gone);
        let health = self.changed_health_checks(store, &node, &names);
        let base = everything.then(Applied::default);
        let applied = base.as_ref().unwrap_or(&self.applied);
        let Plan {
            mut transaction,
            delta,
        } = Plan::new(applied, change);
        let replaced_ranges = match view {
            KernelView::Applied => self.replace_unknown_ranges(&mut transaction),
            KernelView::Empty => BTreeSet::new(),
        };
        FamilyPlan {
            transaction,
            effects: Effects {
                unserved,
                to_unpin,
                stop_pinning,
                names,
                delta,
                base,
                health,
                planned_for,
                dirty_frontends,
                replaced_ranges,
            },
        }
    }

    /// Returns the Services with an endpoint at a `ClusterIP` that was added or removed.
    ///
    /// An endpoint in a ServiceCIDR is never used, so that its Service does not change.
    fn services_with_changed_cluster_ips(
        &self,
        store: &Store,
        node: &NodeElements<A>,
    ) -> BTreeSet<ServiceName> {
        let outside: BTreeSet<_> = self
            .changed_cluster_ips
            .iter()
            .copied()
            .filter(|ip| !node.is_in_service_cidrs(*ip))
            .collect();
        if outside.is_empty() {
            return BTreeSet::new();
        }
        store.services_with_endpoints(&outside)
    }

    /// Returns the Services that may gain or lose a claim at an address of the node, since the
    /// claims of a Service or the addresses that serve node ports changed.
    fn rivals(&self, node: &NodeElements<A>) -> BTreeSet<ServiceName> {
        let before: BTreeSet<_> = self.applied.node().node_ips().collect();
        let now: BTreeSet<_> = node.node_ips().collect();
        let mut rivals = self.claims.holders_of_ports(&self.changed_ports, &now);
        let changed = &before ^ &now;
        let ports = self.claims.ports_at(&changed);
        rivals.extend(self.claims.holders_of_ports(&ports, &changed));
        let all_changed = &self.applied.node().all_addresses() ^ &node.all_addresses();
        rivals.extend(self.claims.holders_of_ranges_at(&all_changed));
        rivals
    }

    /// Returns the frontends that differ between the applied state and a plan.
    fn changed_frontends(
        &self,
        change: &DesiredChange<A>,
        node: &NodeElements<A>,
        view: KernelView,
    ) -> DirtyFrontends<A> {
        let mut dirty = DirtyFrontends::default();
        let before = self.applied.node();
        dirty.add_node_ips(before.node_ips().chain(node.node_ips()));
        for (name, after) in &change.services {
            let before = self.applied.service_elements(name);
            match view {
                KernelView::Applied if before.is_none() && self.read_back.is_some() => {
                    // An earlier process may have programmed it, and may have been wrong.
                    let previous = self.read_back.as_ref().map(|read_back| &read_back.previous);
                    let before = previous.and_then(|previous| previous.service_elements(name));
                    before
                        .into_iter()
                        .chain(after)
                        .for_each(|whole| dirty.add_service(whole));
                    dirty.add_elements(self.applied.kept_of(name).iter().cloned());
                }
                KernelView::Applied => dirty.add_change(before, after.as_ref()),
                KernelView::Empty => {
                    before
                        .into_iter()
                        .chain(after)
                        .for_each(|whole| dirty.add_service(whole));
                }
            }
        }
        if change.node.is_some() && !before.node_ips().eq(node.node_ips()) {
            let before = self.applied.all_service_elements();
            let after = change.services.values().flatten();
            let all = before.into_values().chain(after);
            all.for_each(|service| dirty.add_node_ports(service));
        }
        if view == KernelView::Empty && self.planned_for.is_none() {
            dirty.forget_previous_endpoints();
        }
        dirty
    }

    /// Returns the health checks that a plan changes.
    fn changed_health_checks(
        &self,
        store: &Store,
        node: &NodeElements<A>,
        names: &BTreeSet<ServiceName>,
    ) -> Vec<(ServiceName, Option<HealthCheck>)> {
        // A load-balancer IP may have been added to this machine, or removed.
        let addresses_changed = node.own() != self.applied.node().own();
        let others = self
            .health
            .keys()
            .filter(|name| addresses_changed && !names.contains(*name));
        names
            .iter()
            .chain(others)
            .filter_map(|name| {
                let check = store
                    .service(name)
                    .and_then(|service| health_check(service, store, &self.claims, node));
                let differs = check.as_ref() != self.health.get(name);
                differs.then(|| (name.clone(), check))
            })
            .collect()
    }

    /// Returns the desired elements of a Service, and the reasons why parts of it are not served.
    fn desired(
        &self,
        store: &Store,
        node: &NodeElements<A>,
        name: &ServiceName,
        view: KernelView,
    ) -> (Option<ServiceElements<A>>, Vec<UnservedReason>) {
        if let Some((desired, reasons)) = self.prepared.get(name) {
            let desired = Some(desired.clone()).filter(|desired| !desired.ports.is_empty());
            return (desired, reasons.clone());
        }
        let Some(service) = store.service(name) else {
            return (None, Vec::new());
        };
        let (mut desired, reasons) = service_elements(service, store, &self.claims, node);
        desired.keep_slots_of(|port| match view {
            KernelView::Applied => {
                let applied = self.applied.lists_of(name, port).map(Cow::Borrowed);
                applied.or_else(|| self.found_lists(name, port).map(Cow::Owned))
            }
            KernelView::Empty => None,
        });
        (
            Some(desired).filter(|desired| !desired.ports.is_empty()),
            reasons,
        )
    }
}
