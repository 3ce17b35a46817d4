//! One family's side of the crank: what is dirty, what it should be, what the kernel holds. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::affinity::{AffinityChanges, StaleClients};
use crate::planner::conntrack::{AnsweringFrontends, DirtyFrontends};
use crate::planner::desired::{
    Claim, Claims, ClientSides, EndpointLists, HealthCheck, NodeElements, NodeFacts, PortElements,
    ServiceElements, Slots, UnservedReason, claims, cluster_ips, health_check, service_elements,
};
use crate::planner::diff::{
    Applied, DesiredChange, GoneElements, KeptElements, Plan, Transaction, between, kept,
};
use crate::planner::model::{Address, Protocol, Service, ServiceName, Store, StoreChange};
use crate::planner::ruleset::{
    EndpointList, InconsistentTable, Key, SetName, Table, Value, service_and_port,
};

/// What is known of the kernel's table before a plan is made.
#[derive(Debug)]
pub enum Basis<A: Address> {
    /// The picture is right.
    Picture,
    /// The table holds nothing of ours, or will be made anew.
    Empty,
    /// The table holds this, and the picture does not count.
    Found(Box<Table<A>>),
}

/// A plan for one family that can be sent and then taken in.
#[derive(Debug)]
pub struct Prepared<A: Address> {
    /// What to send.
    pub transaction: Transaction<A>,
    /// What of each planned Service is not served.
    pub not_served: Vec<(ServiceName, Vec<UnservedReason>)>,
    /// The health checks of the planned Services, of those that have or had one.
    health: Vec<(ServiceName, Option<HealthCheck>)>,
    /// Which clients are to be forgotten once it is committed.
    pub stale: StaleClients<A>,
    /// What clients are no longer to be remembered for before it is committed.
    pub(super) leaving: GoneElements<A>,
    plan: Plan<A>,
    /// The picture that the plan begins from, unless it is ours.
    from: Option<Applied<A>>,
    basis: Basis<A>,
    names: BTreeSet<ServiceName>,
    seen: PlannedFor<A>,
    /// The frontends that it touches.
    touched: DirtyFrontends<A>,
}

impl<A: Address> Prepared<A> {
    /// The Services that are planned.
    pub(super) fn names(&self) -> &BTreeSet<ServiceName> {
        &self.names
    }
}

/// What of the node counts for every Service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlannedFor<A: Address> {
    zone: Option<Arc<str>>,
    primary_ip: Option<A>,
    service_cidrs: Vec<A::Net>,
    pod_cidrs: Vec<A::Net>,
}

/// The state of one family.
#[derive(Debug)]
pub struct FamilyState<A: Address> {
    claims: Claims<A>,
    pub(super) applied: Applied<A>,
    /// Where clients were, as of the last commit.
    pub(super) sides: Option<ClientSides<A>>,
    dirty: BTreeSet<ServiceName>,
    /// `ClusterIPs` that Services got or lost: an endpoint at one of them may be used no more, or again.
    cluster_ips: BTreeSet<A>,
    /// Numbers of what Services began or ceased to claim: at an address of the node, a frontend and a node
    /// port of one number are one claim.
    numbers: BTreeSet<(Protocol, u16)>,
    node_dirty: bool,
    /// What the picture's Services were planned for.
    seen: Option<PlannedFor<A>>,
    /// Services whose operations the kernel refused: left out until the next retry.
    refused: BTreeSet<ServiceName>,
    touched: DirtyFrontends<A>,
    health: BTreeMap<ServiceName, HealthCheck>,
}

impl<A: Address> Default for FamilyState<A> {
    fn default() -> Self {
        Self {
            claims: Claims::default(),
            applied: Applied::default(),
            sides: None,
            dirty: BTreeSet::new(),
            cluster_ips: BTreeSet::new(),
            numbers: BTreeSet::new(),
            node_dirty: true,
            seen: None,
            refused: BTreeSet::new(),
            touched: DirtyFrontends::default(),
            health: BTreeMap::new(),
        }
    }
}

impl<A: Address> FamilyState<A> {
    /// Marks what a change of the store makes dirty.
    pub fn note(&mut self, changed: &StoreChange) {
        match changed {
            StoreChange::Nothing => {}
            StoreChange::Service { before, after } => {
                let (before, after) = (before.as_deref(), after.as_deref());
                let others = self.claims.update(before, after);
                let own = [before, after].into_iter().flatten();
                let own: BTreeSet<_> = own.map(|service| service.name.clone()).collect();
                for name in others.into_iter().chain(own) {
                    // What the kernel refused of it may be what changes.
                    self.refused.remove(&name);
                    self.dirty.insert(name);
                }
                let ips = |service: Option<&Service>| -> BTreeSet<A> {
                    service.into_iter().flat_map(cluster_ips).collect()
                };
                let changed = &ips(before) ^ &ips(after);
                self.cluster_ips.extend(changed);
                let claims = |service: Option<&Service>| -> BTreeSet<(Claim<A>, Option<i64>)> {
                    let dated = |service: &Service| {
                        let created = service.created;
                        let claims = claims(service).into_iter();
                        claims.map(move |claim| (claim, created))
                    };
                    service.into_iter().flat_map(dated).collect()
                };
                let changed = &claims(before) ^ &claims(after);
                let numbers = changed.iter().map(|(claim, _)| claim.protocol_and_port());
                self.numbers.extend(numbers);
            }
            StoreChange::Endpoints(services) => self.dirty.extend(services.iter().cloned()),
            StoreChange::Node => self.node_dirty = true,
        }
    }

    /// Whether anything may differ from the picture and can be tried now.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.node_dirty || self.dirty.difference(&self.refused).next().is_some()
    }

    /// Whether the kernel holds everything that it should.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.node_dirty && self.dirty.is_empty()
    }

    /// The Services that wait to be planned and committed.
    pub fn waiting(&self) -> impl Iterator<Item = &ServiceName> {
        self.dirty.iter()
    }

    /// The Services that the kernel refuses, until the next retry.
    pub fn left_out(&self) -> impl Iterator<Item = &ServiceName> {
        self.refused.iter()
    }

    /// Leaves the Service out of the next plans: the kernel refused an operation of it. `false` if
    /// it is left out already.
    pub fn leave_out(&mut self, service: &ServiceName) -> bool {
        self.dirty.insert(service.clone());
        self.refused.insert(service.clone())
    }

    /// Takes the Services that were left out in again. `false` if there are none.
    pub fn retry_skipped(&mut self) -> bool {
        !std::mem::take(&mut self.refused).is_empty()
    }

    /// Whether the table must be read back before the next plan: of a Service that was left out only
    /// elements are known, not which clients remember what.
    #[must_use]
    pub fn must_read(&self) -> bool {
        let mut kept = self.applied.kept();
        kept.any(|name| !self.refused.contains(name))
    }

    /// Plans what is dirty; on another basis than the picture, everything.
    ///
    /// # Errors
    /// Never, unless the planner is wrong.
    pub fn prepare(
        &self,
        store: &Store,
        facts: &NodeFacts,
        basis: Basis<A>,
    ) -> Result<Prepared<A>, InconsistentTable> {
        let everything = !matches!(basis, Basis::Picture);
        let node = NodeElements::new(facts, store, &self.claims);
        let seen = PlannedFor {
            zone: store.node().and_then(|node| node.zone.clone()),
            primary_ip: node.primary_ip(),
            service_cidrs: node.service_cidrs().to_vec(),
            pod_cidrs: node.pod_cidrs().to_vec(),
        };
        let mut names = self.dirty.clone();
        if everything || self.seen.as_ref() != Some(&seen) {
            names.extend(store.service_names());
        } else {
            names.extend(self.with_cluster_ips_as_endpoints(store, &node));
            names.extend(self.rivals(&node));
        }
        let names: BTreeSet<_> = names.difference(&self.refused).cloned().collect();
        let mut not_served = Vec::new();
        let mut change = DesiredChange::default();
        if everything || node != *self.applied.node() {
            change.node = Some(node.clone());
        }
        for name in &names {
            let (wanted, reasons) = self.wanted(store, &node, name, &basis);
            not_served.push((name.clone(), reasons));
            change.services.insert(name.clone(), wanted);
        }
        let touched = self.touched(&change, &node, &basis);
        let kept = self.kept(&basis);
        let AffinityChanges {
            stale,
            gone,
            leaving,
        } = self.affinity(&change, &kept, &node, facts.sides(&node), &basis);
        change.gone = Some(gone);
        let health = self.health(store, &node, &names);
        let from = everything.then(|| Applied::holding(kept));
        let applied = from.as_ref().unwrap_or(&self.applied);
        let mut plan = Plan::new(applied, change);
        let transaction = match &basis {
            Basis::Found(found) => {
                let mut wanted = applied.table()?;
                plan.transaction.apply(&mut wanted)?;
                between(found, &wanted, &plan.transaction)
            }
            Basis::Picture | Basis::Empty => std::mem::take(&mut plan.transaction),
        };
        Ok(Prepared {
            transaction,
            not_served,
            health,
            stale,
            leaving,
            plan,
            from,
            basis,
            names,
            seen,
            touched,
        })
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

    /// The frontends that a plan touches: from what is applied before it and after it.
    fn touched(
        &self,
        change: &DesiredChange<A>,
        node: &NodeElements<A>,
        basis: &Basis<A>,
    ) -> DirtyFrontends<A> {
        let mut touched = DirtyFrontends::default();
        let before = self.applied.node();
        touched.node_ports_at(before.node_ips().chain(node.node_ips()));
        for (name, after) in &change.services {
            let before = self.applied.service_elements(name);
            match basis {
                Basis::Picture => touched.service(before, after.as_ref()),
                Basis::Found(_) | Basis::Empty => {
                    before
                        .into_iter()
                        .chain(after)
                        .for_each(|whole| touched.whole(whole));
                }
            }
        }
        if change.node.is_some() && !before.node_ips().eq(node.node_ips()) {
            let before = self.applied.all_service_elements();
            let after = change.services.values().flatten();
            let all = before.into_values().chain(after);
            all.for_each(|service| touched.node_ports(service));
        }
        match basis {
            Basis::Found(table) => touched.table(table),
            Basis::Empty if self.seen.is_none() => touched.forget_history(),
            Basis::Picture | Basis::Empty => {}
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

    /// What stays of Services that are left out, also what an earlier process programmed: as long as
    /// they have the frontend.
    fn kept(&self, basis: &Basis<A>) -> KeptElements<A> {
        let Basis::Found(found) = basis else {
            return KeptElements::new();
        };
        let refused = self.refused.iter().map(|name| (name.as_str(), name));
        let refused: BTreeMap<_, _> = refused.collect();
        kept(found, |element| {
            let comment = element.comment.as_deref()?;
            let name = *refused.get(service_and_port(comment).0)?;
            let claim = Claim::of_element(element.set, &element.key)?;
            (self.claims.holder(&claim) == Some(name)).then(|| name.clone())
        })
    }

    fn wanted(
        &self,
        store: &Store,
        node: &NodeElements<A>,
        name: &ServiceName,
        basis: &Basis<A>,
    ) -> (Option<ServiceElements<A>>, Vec<UnservedReason>) {
        let Some(service) = store.service(name) else {
            return (None, Vec::new());
        };
        let (mut wanted, reasons) = service_elements(service, store, &self.claims, node);
        wanted.assign_stable(|port| match basis {
            Basis::Picture => self.applied.lists_of(name, port).map(Cow::Borrowed),
            Basis::Found(found) => Some(Cow::Owned(lists_in(found, port))),
            Basis::Empty => None,
        });
        (
            Some(wanted).filter(|wanted| !wanted.ports.is_empty()),
            reasons,
        )
    }

    /// Takes in that the kernel committed what was prepared; returns which health checks changed.
    pub fn committed(&mut self, prepared: Prepared<A>) -> Vec<(ServiceName, Option<HealthCheck>)> {
        let Prepared {
            health,
            plan,
            from,
            basis,
            names,
            seen,
            touched,
            stale,
            ..
        } = prepared;
        self.seen = Some(seen);
        self.sides = Some(stale.sides);
        self.touched.extend(touched);
        if let Some(from) = from {
            self.applied = from;
        }
        self.applied.committed(plan);
        if let Basis::Found(found) = basis {
            self.applied.adopt_unused(found.balance().iter().copied());
        }
        self.node_dirty = false;
        self.cluster_ips.clear();
        self.numbers.clear();
        self.dirty.retain(|name| !names.contains(name));
        for (name, check) in &health {
            match check {
                Some(check) => self.health.insert(name.clone(), check.clone()),
                None => self.health.remove(name),
            };
        }
        health
    }

    /// The frontends that were touched by what was committed since this was last asked.
    pub fn take_dirty_frontends(&mut self) -> DirtyFrontends<A> {
        std::mem::take(&mut self.touched)
    }

    /// These frontends with the endpoints that answer them now.
    #[must_use]
    pub fn frontends<'a>(&'a self, touched: &'a DirtyFrontends<A>) -> AnsweringFrontends<'a, A> {
        AnsweringFrontends::new(touched, &self.applied, &self.claims)
    }

    /// The picture of the kernel.
    #[must_use]
    pub fn applied(&self) -> &Applied<A> {
        &self.applied
    }

    /// The picture of the kernel, to take in what was done to balance chains.
    pub fn applied_mut(&mut self) -> &mut Applied<A> {
        &mut self.applied
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
