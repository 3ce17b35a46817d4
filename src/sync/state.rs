//! The state of the node: the objects, what is dirty, what is applied. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tracing::info;

use super::diagnostics::{Diagnostic, DiagnosticReasons, DiagnosticSubject, Diagnostics, worded};
use super::family::{Effects, FamilyPlan, FamilyState, Skipped};
use crate::events::EventReason;
use crate::logging::LogEvent;
use crate::per_family;
use crate::planner::conntrack::DirtyFrontends;
use crate::planner::desired::HealthCheckChange;
use crate::planner::desired::{HealthCheck, NodeElements, NodeFacts, UnservedReason};
use crate::planner::diff::{KernelView, Transaction};
use crate::planner::dual::Dual;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Event, ObjectKind, ServiceName, Store, StoreChange};
use crate::planner::ruleset::{Program, Table};

/// A Service, and the reasons why parts of it are not served.
type Unserved = (ServiceName, Vec<UnservedReason>);

/// The plan of a sync: one of each family.
pub type SyncPlan = Dual<FamilyPlan<Ipv4Addr>, FamilyPlan<Ipv6Addr>>;

/// The transactions of a sync.
pub type Transactions = Dual<Transaction<Ipv4Addr>, Transaction<Ipv6Addr>>;

impl SyncPlan {
    /// Splits the plan into what is sent and what follows once the kernel committed it.
    #[must_use]
    pub fn split(self) -> (Transactions, SyncEffects) {
        per_family!(self, |plan| (plan.transaction, plan.effects)).unzip()
    }
}

/// What a committed [`SyncPlan`] changes in the state.
pub type SyncEffects = Dual<Effects<Ipv4Addr>, Effects<Ipv6Addr>>;

/// What a [`SyncPlan`] begins from.
pub type KernelViews = Dual<KernelView<Ipv4Addr>, KernelView<Ipv6Addr>>;

/// The outcome of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// The kernel holds everything that is desired.
    Complete,
    /// The kernel holds everything but the Services that it rejects. Health checks report the others.
    SomeSkipped,
    /// A change is pending.
    Pending,
}

/// The state of the node: the objects, what is dirty, what is applied.
#[derive(Debug)]
pub struct State {
    store: Store,
    facts: NodeFacts,
    listed: BTreeSet<ObjectKind>,
    diagnostics: Diagnostics,
    /// The reasons why parts of Services are not served, by family.
    unserved: Dual<BTreeMap<ServiceName, DiagnosticReasons>>,
    /// The name of this node, if it is known.
    name: Option<NodeName>,
    /// The state of each family that the node has.
    pub families: Dual<FamilyState<Ipv4Addr>, FamilyState<Ipv6Addr>>,
    health: HealthChanges,
}

/// The name of this node.
#[derive(Debug)]
struct NodeName {
    name: Arc<str>,
    /// Whether a source that shows no Node of this name is a fault.
    needs_object: bool,
}

/// The changes of health checks that are not reported yet.
#[derive(Debug, Default)]
struct HealthChanges {
    /// The addresses that were reported last, by family.
    addresses: BTreeMap<Family, Vec<IpAddr>>,
    changes: Vec<HealthCheckChange>,
}

impl HealthChanges {
    fn add<A: Address>(
        &mut self,
        checks: Vec<(ServiceName, Option<HealthCheck>)>,
        node: &NodeElements<A>,
        facts: &NodeFacts,
    ) {
        let addresses = node.health_check_ips(facts);
        if self.addresses.get(&A::FAMILY) != Some(&addresses) {
            self.addresses.insert(A::FAMILY, addresses.clone());
            self.changes
                .push(HealthCheckChange::Addresses(A::FAMILY, addresses));
        }
        for (name, check) in checks {
            self.changes
                .push(HealthCheckChange::Service(A::FAMILY, name, check));
        }
    }
}

impl State {
    /// The state of a node with both families, of which no object is known yet.
    #[must_use]
    pub fn new(facts: NodeFacts) -> Self {
        Self {
            store: Store::default(),
            facts,
            listed: BTreeSet::new(),
            diagnostics: Diagnostics::default(),
            unserved: Dual::both(BTreeMap::new(), BTreeMap::new()),
            name: None,
            families: Dual::both(FamilyState::default(), FamilyState::default()),
            health: HealthChanges::default(),
        }
    }

    /// The same of a node whose kernel has no IPv6.
    #[must_use]
    pub fn ipv4_only(self) -> Self {
        Self {
            unserved: Dual {
                ipv6: None,
                ..self.unserved
            },
            families: Dual {
                ipv6: None,
                ..self.families
            },
            ..self
        }
    }

    /// The same of a node with this name. `needs_object`: the source of objects has a Node object
    /// of every node.
    #[must_use]
    pub fn named(self, name: Arc<str>, needs_object: bool) -> Self {
        Self {
            name: Some(NodeName { name, needs_object }),
            ..self
        }
    }

    /// Checks whether the objects know a node of our name, once all are listed; returns new diagnostics.
    pub fn check_node_name(&mut self) -> Vec<Diagnostic> {
        let Some(NodeName { name, needs_object }) = &self.name else {
            return Vec::new();
        };
        let why = if self.store.node().is_some() {
            None
        } else if *needs_object {
            Some("the API server shows no Node of this name, so load balancers are turned away")
        } else if self.store.is_everything_elsewhere() {
            Some("there is no Node of this name, and no endpoint is on one")
        } else {
            None
        };
        let reasons = why.map(|why| {
            let reason = format!("{why}: is --hostname-override right?");
            (reason, EventReason::UnknownNode)
        });
        let subject = DiagnosticSubject::Node(Arc::clone(name));
        self.diagnostics.now(subject, reasons.into_iter().collect())
    }

    /// The fixed program of each family.
    #[must_use]
    pub fn programs(&self) -> Dual<Program> {
        per_family!(self.families.as_ref(), |family| family.program(&self.facts))
    }

    /// Applies an event of a source of objects; returns new diagnostics.
    pub fn apply(&mut self, event: Event) -> Vec<Diagnostic> {
        let update = match event {
            Event::Update(update) => update,
            Event::Listed(kind) => {
                self.listed.insert(kind);
                return Vec::new();
            }
            Event::Interrupted(_) => return Vec::new(),
            Event::OwnAddresses(addresses) => {
                if self.facts.own_addresses.as_ref() != Some(&addresses) {
                    self.facts.own_addresses = Some(addresses);
                    self.note(&StoreChange::Node);
                }
                return Vec::new();
            }
        };
        let subject = DiagnosticSubject::Text(update.key.clone());
        let diagnostics = self.diagnostics.now(subject, worded(&update.rejected));
        let changed = self.store.apply(update);
        if let StoreChange::Service {
            before: Some(service),
            after: None,
        } = &changed
        {
            let subject = DiagnosticSubject::Served(service.name.clone());
            self.diagnostics.forget(&subject);
            for known in self.unserved.as_mut() {
                known.remove(&service.name);
            }
        }
        self.note(&changed);
        diagnostics
    }

    fn note(&mut self, changed: &StoreChange) {
        per_family!(self.families.as_mut(), |family| family.note(changed));
    }

    /// Whether every kind of object is listed. Nothing is programmed before, since that would cut off
    /// what is not listed yet. Endpoints come only from manifests, which are read at once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let mut kinds = ObjectKind::ALL
            .iter()
            .filter(|kind| **kind != ObjectKind::Endpoints);
        kinds.all(|kind| self.listed.contains(kind))
    }

    /// The diagnostics of every object.
    pub(super) fn diagnostics(
        &self,
    ) -> impl Iterator<Item = (&DiagnosticSubject, &DiagnosticReasons)> {
        self.diagnostics.all()
    }

    /// The number of objects that are not or only partly programmed, by reason.
    #[must_use]
    pub fn objects_not_served(&self) -> &BTreeMap<EventReason, usize> {
        self.diagnostics.objects()
    }

    /// Whether our Node is about to be deleted; `None`: there is none.
    #[must_use]
    pub fn node_is_leaving(&self) -> Option<bool> {
        self.store.node().map(|node| node.is_leaving)
    }

    /// Plans what is dirty in each family.
    #[must_use]
    pub fn plan(&self, views: KernelViews) -> SyncPlan {
        let families = self.families.as_ref().zip(views);
        per_family!(families, |(family, view)| family.plan(
            &self.store,
            &self.facts,
            view
        ))
    }

    /// Plans what is dirty, from the state that was applied last.
    #[must_use]
    pub fn plan_changes(&self) -> SyncPlan {
        self.plan(Dual::both(KernelView::Applied, KernelView::Applied))
    }

    /// Plans everything, from empty tables.
    #[must_use]
    pub fn plan_everything(&self) -> SyncPlan {
        self.plan(Dual::both(KernelView::Empty, KernelView::Empty))
    }

    /// Applies the effects of a plan that the kernel committed; returns new diagnostics.
    pub fn committed(&mut self, effects: SyncEffects) -> Vec<Diagnostic> {
        let planned = effects.as_ref();
        let unserved = per_family!(planned, |effects| effects.unserved.as_slice());
        let diagnostics = self.unserved_now(unserved);
        for names in per_family!(effects.as_ref(), |effects| &effects.names) {
            self.programmed(names);
        }
        let families = self.families.as_mut().zip(effects);
        per_family!(families, |(family, effects)| {
            let checks = family.committed(effects);
            self.health
                .add(checks, family.applied().node(), &self.facts);
        });
        diagnostics
    }

    /// Skips a Service in every family, since the kernel rejected an operation of it; returns
    /// whether it was skipped before, and a new diagnostic unless an earlier retry returned it.
    pub fn skip(
        &mut self,
        service: &ServiceName,
        why: impl fmt::Display,
    ) -> (Skipped, Vec<Diagnostic>) {
        let skipped = per_family!(self.families.as_mut(), |family| family.skip(service));
        if skipped.into_iter().all(|family| family == Skipped::Already) {
            return (Skipped::Already, Vec::new());
        }
        (Skipped::Newly, self.rejected(service, why))
    }

    /// Plans the skipped Services again from now on.
    pub fn retry_skipped(&mut self) {
        per_family!(self.families.as_mut(), |family| family.retry_skipped());
    }

    fn rejected(&mut self, service: &ServiceName, why: impl fmt::Display) -> Vec<Diagnostic> {
        let subject = DiagnosticSubject::Programmed(service.clone());
        if self.diagnostics.has(&subject) {
            return Vec::new();
        }
        let reason = format!("rejected by the kernel: {why}");
        let reasons = [(reason, EventReason::RejectedByKernel)].into();
        self.diagnostics.now(subject, reasons)
    }

    /// Whether the kernel rejected the Service in the last attempt.
    #[must_use]
    pub fn is_rejected(&self, service: &ServiceName) -> bool {
        self.diagnostics
            .has(&DiagnosticSubject::Programmed(service.clone()))
    }

    /// Whether the tables must be read back before the next plan.
    #[must_use]
    pub fn needs_read_back(&self) -> bool {
        per_family!(self.families.as_ref(), |family| family.needs_read_back())
            .into_iter()
            .any(|needs| needs)
    }

    /// Drops the diagnostics of Services that the kernel rejected before, and has committed now.
    fn programmed(&mut self, names: &BTreeSet<ServiceName>) {
        for name in names {
            if self
                .diagnostics
                .forget(&DiagnosticSubject::Programmed(name.clone()))
            {
                info!(event = %LogEvent::ServiceProgrammed, service = %name, "Service programmed: no longer rejected by the kernel");
            }
        }
    }

    /// Whether a change of any family can be committed now.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        per_family!(self.families.as_ref(), |family| family.is_dirty())
            .into_iter()
            .any(|is_dirty| is_dirty)
    }

    /// The outcome of the syncs so far.
    #[must_use]
    pub fn outcome(&self) -> SyncOutcome {
        let clean = per_family!(self.families.as_ref(), |family| family.is_clean());
        if self.is_dirty() {
            SyncOutcome::Pending
        } else if clean.into_iter().all(|is_clean| is_clean) {
            SyncOutcome::Complete
        } else {
            SyncOutcome::SomeSkipped
        }
    }

    /// Takes the health checks that changed by what was committed since the last call.
    pub fn take_health_changes(&mut self) -> Vec<HealthCheckChange> {
        std::mem::take(&mut self.health.changes)
    }

    /// Takes the frontends that changed by what was committed since the last call.
    pub fn take_dirty_frontends(
        &mut self,
    ) -> Dual<DirtyFrontends<Ipv4Addr>, DirtyFrontends<Ipv6Addr>> {
        per_family!(self.families.as_mut(), |family| family
            .take_dirty_frontends())
    }

    fn unserved_now(&mut self, planned: Dual<&[Unserved]>) -> Vec<Diagnostic> {
        let mut names = BTreeSet::new();
        for (known, now) in self.unserved.as_mut().zip(planned) {
            for (name, reasons) in now {
                names.insert(name);
                if reasons.is_empty() {
                    known.remove(name);
                } else {
                    known.insert(name.clone(), worded(reasons));
                }
            }
        }
        let mut diagnostics = Vec::new();
        for name in names {
            let families = self.unserved.as_ref().into_iter();
            let reasons = families
                .filter_map(|known| known.get(name))
                .flatten()
                .map(|(reason, sort)| (reason.clone(), *sort));
            let subject = DiagnosticSubject::Served(name.clone());
            diagnostics.extend(self.diagnostics.now(subject, reasons.collect()));
        }
        diagnostics
    }

    /// New diagnostics of what a fresh start does not serve.
    pub fn unserved(&mut self) -> Vec<Diagnostic> {
        let plan = self.plan_everything();
        let unserved = per_family!(plan.as_ref(), |plan| plan.effects.unserved.as_slice());
        self.unserved_now(unserved)
    }

    /// The tables that a fresh start programs.
    #[must_use]
    pub fn fresh(&self) -> Dual<Table<Ipv4Addr>, Table<Ipv6Addr>> {
        per_family!(self.plan_everything(), |plan| {
            let mut table = Table::default();
            plan.transaction.apply_planned(&mut table);
            table
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::model::parse;

    #[test]
    fn a_node_that_the_api_server_does_not_show_is_told_of_until_it_does() {
        let mut state = State::new(NodeFacts::default()).named("n1".into(), true);
        let said = state.check_node_name();
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].sort, EventReason::UnknownNode);
        assert_eq!(said[0].subject.to_string(), "Node n1");
        assert_eq!(state.check_node_name(), []);
        let node = yaml_serde::from_str("metadata: {name: n1}").unwrap();
        let _ = state.apply(Event::Update(parse::node(&node, "n1")));
        assert_eq!(state.check_node_name(), []);
        assert_eq!(state.objects_not_served()[&EventReason::UnknownNode], 0);
        // A directory of manifests needs no Node.
        let mut state = State::new(NodeFacts::default()).named("n1".into(), false);
        assert_eq!(state.check_node_name(), []);
    }

    #[test]
    fn nothing_is_programmed_before_everything_was_seen() {
        let mut state = State::new(NodeFacts::default());
        // Without the Node its node ports, without the ServiceCIDRs their addresses would go.
        for kind in [
            ObjectKind::Service,
            ObjectKind::EndpointSlice,
            ObjectKind::Node,
        ] {
            let _ = state.apply(Event::Listed(kind));
            assert!(!state.is_complete(), "{kind}");
        }
        let _ = state.apply(Event::Listed(ObjectKind::ServiceCidr));
        assert!(state.is_complete());
    }
}
