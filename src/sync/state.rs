//! The state of the node: the objects, the dirty state and the applied state. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::diagnostics::{
    Diagnostic, DiagnosticSubject, Diagnostics, ObjectProblems, Resolved, worded,
};
use super::family::{FamilyState, Skipped};
use super::health::NodeObject;
use super::health_changes::HealthChanges;
use super::node_name::NodeName;
use super::plan::{KernelViews, SyncEffects, SyncOutcome, SyncPlan};
use super::unserved::{PlannedService, UnservedParts};
use crate::events::EventReason;
use crate::logging::LogEvent;
use crate::per_family;
use crate::planner::conntrack::DirtyFrontends;
use crate::planner::desired::{HealthCheckChange, NodeFacts};
use crate::planner::diff::KernelView;
use crate::planner::dual::Dual;
use crate::planner::model::{Event, ObjectKind, ServiceName, Store, StoreChange};
use crate::planner::ruleset::{Program, Table};

/// The state of the node: the objects, the dirty state and the applied state.
#[derive(Debug)]
pub struct State {
    pub(super) store: Store,
    pub(super) facts: NodeFacts,
    /// The kinds of objects that are completely listed.
    listed: BTreeSet<ObjectKind>,
    diagnostics: Diagnostics,
    unserved: UnservedParts,
    /// The name of this node, if it is configured.
    name: Option<NodeName>,
    /// The state of each family that the node has.
    pub families: Dual<FamilyState<Ipv4Addr>, FamilyState<Ipv6Addr>>,
    health: HealthChanges,
    /// The number of changes so far.
    revision: u64,
}

impl State {
    /// Creates the state of a node with both families and without objects.
    #[must_use]
    pub fn new(facts: NodeFacts) -> Self {
        Self {
            store: Store::default(),
            facts,
            listed: BTreeSet::new(),
            diagnostics: Diagnostics::default(),
            unserved: UnservedParts::new(),
            name: None,
            families: Dual::both(FamilyState::default(), FamilyState::default()),
            health: HealthChanges::default(),
            revision: 0,
        }
    }

    /// Removes the IPv6 half, for a node whose kernel has no IPv6.
    #[must_use]
    pub fn ipv4_only(self) -> Self {
        Self {
            unserved: self.unserved.ipv4_only(),
            families: Dual {
                ipv6: None,
                ..self.families
            },
            ..self
        }
    }

    /// Sets the name of this node, and whether the source of objects has a Node object of it.
    #[must_use]
    pub fn named(self, name: Arc<str>, object: NodeObject) -> Self {
        Self {
            name: Some(NodeName {
                name,
                object,
                similar: None,
            }),
            ..self
        }
    }

    /// Checks whether the objects know a node of our name, once all are listed; returns new
    /// diagnostics.
    pub fn check_node_name(&mut self) -> Vec<Diagnostic> {
        let Some(name) = &self.name else {
            return Vec::new();
        };
        let diagnostics = self
            .diagnostics
            .replace(name.subject(), name.problems(&self.store));
        self.revision += u64::from(!diagnostics.is_empty());
        diagnostics
    }

    /// Returns the number of changes so far: the state is the same as long as it is.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the fixed program of each family.
    #[must_use]
    pub fn programs(&self) -> Dual<Program> {
        per_family!(self.families.as_ref(), |family| family.program(&self.facts))
    }

    /// Applies an event of a source of objects; returns new diagnostics.
    pub fn apply(&mut self, event: Event) -> Vec<Diagnostic> {
        self.revision += 1;
        let update = match event {
            Event::Update(update) => update,
            Event::Listed(kind) => {
                self.listed.insert(kind);
                return Vec::new();
            }
            Event::Interrupted(..) => return Vec::new(),
            Event::NodeMissing(similar) => {
                self.set_similar_nodes(Some(similar));
                return Vec::new();
            }
            Event::OwnAddresses(addresses) => {
                if self.facts.own_addresses.as_ref() != Some(&addresses) {
                    self.facts.own_addresses = Some(addresses);
                    self.mark_dirty(&StoreChange::Node);
                }
                return Vec::new();
            }
        };
        if update.key.kind == ObjectKind::Node && update.object.is_some() {
            self.set_similar_nodes(None);
        }
        let subject = DiagnosticSubject::Object(update.key.clone());
        let diagnostics = self.diagnostics.replace(subject, worded(&update.rejected));
        let changed = self.store.apply(update);
        if let StoreChange::Service {
            before: Some(service),
            after: None,
        } = &changed
        {
            let subject = DiagnosticSubject::Service(service.name.clone());
            self.diagnostics.resolve(&subject);
            self.unserved.remove(&service.name);
        }
        self.mark_dirty(&changed);
        diagnostics
    }

    /// Records the Nodes with similar names if there is none with ours, or that there is one.
    fn set_similar_nodes(&mut self, similar: Option<Vec<String>>) {
        if let Some(name) = &mut self.name {
            name.similar = similar;
        }
    }

    fn mark_dirty(&mut self, changed: &StoreChange) {
        per_family!(self.families.as_mut(), |family| family.mark_dirty(changed));
    }

    /// Advances the shares of new endpoints to this time, which is the time since any moment that
    /// stays the same.
    ///
    /// From the first call on, an endpoint that becomes ready is new.
    pub fn advance_slow_starts(&mut self, now: Duration) {
        let changed = self.store.advance_slow_starts(now);
        if !changed.is_empty() {
            self.revision += 1;
            self.mark_dirty(&StoreChange::Endpoints(changed));
        }
    }

    /// Whether every kind of object is listed.
    ///
    /// Nothing is programmed before, since that would delete what is not listed yet. Endpoints come
    /// only from manifests, which are read at once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let mut kinds = ObjectKind::ALL
            .iter()
            .filter(|kind| **kind != ObjectKind::Endpoints);
        kinds.all(|kind| self.listed.contains(kind))
    }

    /// Returns the problems of every object.
    pub(super) fn diagnostics(
        &self,
    ) -> impl Iterator<Item = (&DiagnosticSubject, &ObjectProblems)> {
        self.diagnostics.all()
    }

    /// Returns the number of objects that are not or only partly programmed, by reason.
    #[must_use]
    pub fn objects_not_served(&self) -> &BTreeMap<EventReason, usize> {
        self.diagnostics.objects()
    }

    /// Returns whether our Node is about to be deleted; `None` if there is no Node object.
    #[must_use]
    pub fn node_is_leaving(&self) -> Option<bool> {
        self.store.node().map(|node| node.is_leaving)
    }

    /// Plans the dirty state of each family.
    #[must_use]
    pub fn plan(&self, views: KernelViews) -> SyncPlan {
        let families = self.families.as_ref().zip(views);
        per_family!(families, |(family, view)| family.plan(
            &self.store,
            &self.facts,
            view
        ))
    }

    /// Plans the dirty state, from the applied state.
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
        self.revision += 1;
        let planned = per_family!(effects.as_ref(), |effects| effects.unserved.as_slice());
        let diagnostics = self.replace_unserved(planned);
        for names in per_family!(effects.as_ref(), |effects| &effects.names) {
            self.resolve_skipped(names);
        }
        let families = self.families.as_mut().zip(effects);
        per_family!(families, |(family, effects)| {
            let checks = family.committed(effects);
            self.health
                .add(checks, family.applied().node(), &self.facts);
        });
        diagnostics
    }

    /// Skips a Service in every family, since the kernel rejected an operation of it.
    ///
    /// Returns whether it was skipped before, and a new diagnostic unless an earlier retry returned
    /// it.
    pub fn skip(
        &mut self,
        service: &ServiceName,
        rejection: impl fmt::Display,
    ) -> (Skipped, Vec<Diagnostic>) {
        self.revision += 1;
        let skipped = per_family!(self.families.as_mut(), |family| family.skip(service));
        if skipped.into_iter().all(|family| family == Skipped::Already) {
            return (Skipped::Already, Vec::new());
        }
        (Skipped::Newly, self.add_rejection(service, rejection))
    }

    /// Plans the skipped Services again from the next sync on.
    pub fn retry_skipped(&mut self) {
        per_family!(self.families.as_mut(), |family| family.retry_skipped());
    }

    fn add_rejection(
        &mut self,
        service: &ServiceName,
        rejection: impl fmt::Display,
    ) -> Vec<Diagnostic> {
        let subject = DiagnosticSubject::Skipped(service.clone());
        if self.diagnostics.has(&subject) {
            return Vec::new();
        }
        let problem = format!("rejected by the kernel: {rejection}");
        let problems = [(problem, EventReason::RejectedByKernel)].into();
        self.diagnostics.replace(subject, problems)
    }

    /// Whether the kernel rejected the Service in the last attempt.
    #[must_use]
    pub fn is_rejected(&self, service: &ServiceName) -> bool {
        self.diagnostics
            .has(&DiagnosticSubject::Skipped(service.clone()))
    }

    /// Whether the tables must be read back before the next plan.
    #[must_use]
    pub fn needs_read_back(&self) -> bool {
        per_family!(self.families.as_ref(), |family| family.needs_read_back()).any()
    }

    /// Resolves the diagnostics of committed Services that were skipped before.
    fn resolve_skipped(&mut self, committed: &BTreeSet<ServiceName>) {
        for name in committed {
            let subject = DiagnosticSubject::Skipped(name.clone());
            if self.diagnostics.resolve(&subject) == Resolved::HadProblems {
                info!(event = %LogEvent::ServiceProgrammed, service = %name, "Service programmed: no longer rejected by the kernel");
            }
        }
    }

    /// Whether a change of any family can be committed now.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        per_family!(self.families.as_ref(), |family| family.is_dirty()).any()
    }

    /// Returns the outcome of the syncs so far.
    #[must_use]
    pub fn outcome(&self) -> SyncOutcome {
        let clean = per_family!(self.families.as_ref(), |family| family.is_clean());
        if self.is_dirty() {
            SyncOutcome::Pending
        } else if clean.all() {
            SyncOutcome::Complete
        } else {
            SyncOutcome::SomeSkipped
        }
    }

    /// Takes the health checks that committed plans changed since the last call.
    pub fn take_health_changes(&mut self) -> Vec<HealthCheckChange> {
        self.health.take()
    }

    /// Takes the frontends that committed plans changed since the last call.
    pub fn take_dirty_frontends(
        &mut self,
    ) -> Dual<DirtyFrontends<Ipv4Addr>, DirtyFrontends<Ipv6Addr>> {
        per_family!(self.families.as_mut(), |family| family
            .take_dirty_frontends())
    }

    fn replace_unserved(&mut self, planned: Dual<&[PlannedService]>) -> Vec<Diagnostic> {
        self.unserved
            .replace(planned)
            .into_iter()
            .flat_map(|(name, problems)| {
                let subject = DiagnosticSubject::Service(name);
                self.diagnostics.replace(subject, problems)
            })
            .collect()
    }

    /// Returns new diagnostics of the parts of Services that a sync from empty tables does not
    /// program.
    pub fn check_unserved(&mut self) -> Vec<Diagnostic> {
        let plan = self.plan_everything();
        let planned = per_family!(plan.as_ref(), |plan| plan.effects.unserved.as_slice());
        self.replace_unserved(planned)
    }

    /// Returns the tables that a sync from empty tables programs.
    #[must_use]
    pub fn desired_tables(&self) -> Dual<Table<Ipv4Addr>, Table<Ipv6Addr>> {
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
    fn a_node_without_an_object_has_a_diagnostic_until_it_has_one() {
        let mut state = State::new(NodeFacts::default()).named("n1".into(), NodeObject::Required);
        assert_eq!(state.check_node_name(), []);
        let similar = vec!["n-1".to_owned()];
        let _ = state.apply(Event::NodeMissing(similar.clone()));
        let diagnostics = state.check_node_name();
        assert_eq!(diagnostics.len(), 1);
        let problem = &diagnostics[0].problem;
        assert!(problem.contains("similar Node is n-1"), "{problem}");
        assert_eq!(diagnostics[0].reason, EventReason::UnknownNode);
        assert_eq!(diagnostics[0].subject.to_string(), "Node n1");
        assert_eq!(state.check_node_name(), []);
        let node = yaml_serde::from_str("metadata: {name: n1}").unwrap();
        let _ = state.apply(Event::Update(parse::node(&node, "n1")));
        assert_eq!(state.check_node_name(), []);
        assert_eq!(state.objects_not_served()[&EventReason::UnknownNode], 0);
        // A Node that is deleted is missing, too.
        let _ = state.apply(Event::NodeMissing(similar));
        assert_eq!(state.check_node_name().len(), 1);
        // A directory of manifests needs no Node.
        let mut state = State::new(NodeFacts::default()).named("n1".into(), NodeObject::Optional);
        assert_eq!(state.check_node_name(), []);
    }

    #[test]
    fn nothing_is_programmed_before_every_kind_is_listed() {
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
