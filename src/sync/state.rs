//! Everything that is known, of both families. Pure: the crank turns it, `render` prints it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tracing::info;

use super::diagnostics::{Diagnostic, DiagnosticReasons, DiagnosticSubject, Diagnostics, worded};
use super::family::{Basis, FamilyState, Prepared};
use crate::events::EventReason;
use crate::logging::LogEvent;
use crate::planner::conntrack::DirtyFrontends;
use crate::planner::desired::HealthCheckChange;
use crate::planner::desired::{HealthCheck, NodeElements, NodeFacts};
use crate::planner::model::{Address, Event, ObjectKind, ServiceName, Store, StoreChange};
use crate::planner::ruleset::{InconsistentTable, Program, Table};

/// Plans for both families.
#[derive(Debug)]
pub struct Plans {
    /// IPv4.
    pub ipv4: Prepared<Ipv4Addr>,
    /// IPv6.
    pub ipv6: Prepared<Ipv6Addr>,
}

/// How far the kernel holds what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// It holds everything.
    Complete,
    /// It holds everything but what it refuses of some Services. Health speaks of the others.
    LeftOut,
    /// Something waits to be committed.
    Waiting,
}

/// Everything that is known.
#[derive(Debug)]
pub struct State {
    store: Store,
    facts: NodeFacts,
    listed: BTreeSet<ObjectKind>,
    diagnostics: Diagnostics,
    /// What of Services is not served in IPv4, and in IPv6: a commit may be of one family.
    not_served: [BTreeMap<ServiceName, DiagnosticReasons>; 2],
    /// What this node is called, if that is known, and whether there must be an object of it.
    name: Option<(Arc<str>, bool)>,
    /// IPv4.
    pub ipv4: FamilyState<Ipv4Addr>,
    /// IPv6.
    pub ipv6: FamilyState<Ipv6Addr>,
    ipv4_health: HealthChanges<Ipv4Addr>,
    ipv6_health: HealthChanges<Ipv6Addr>,
}

/// What is to be told of the health checks of a family.
#[derive(Debug)]
struct HealthChanges<A> {
    /// What was told last of where they are answered.
    addresses: Option<Vec<IpAddr>>,
    changes: Vec<HealthCheckChange>,
    family: PhantomData<A>,
}

impl<A> Default for HealthChanges<A> {
    fn default() -> Self {
        Self {
            addresses: None,
            changes: Vec::new(),
            family: PhantomData,
        }
    }
}

impl<A: Address> HealthChanges<A> {
    fn handle_events(
        &mut self,
        checks: Vec<(ServiceName, Option<HealthCheck>)>,
        node: &NodeElements<A>,
        facts: &NodeFacts,
    ) {
        let addresses = node.health_check_ips(facts);
        if self.addresses.as_ref() != Some(&addresses) {
            self.addresses = Some(addresses.clone());
            self.changes
                .push(HealthCheckChange::Addresses(A::FAMILY, addresses));
        }
        let checks = checks.into_iter();
        let checks = checks.map(|(name, check)| HealthCheckChange::Service(A::FAMILY, name, check));
        self.changes.extend(checks);
    }
}

impl State {
    /// A node about which `facts` are known, and no object yet.
    #[must_use]
    pub fn new(facts: NodeFacts) -> Self {
        Self {
            store: Store::default(),
            facts,
            listed: BTreeSet::new(),
            diagnostics: Diagnostics::default(),
            not_served: <[_; 2]>::default(),
            name: None,
            ipv4: FamilyState::default(),
            ipv6: FamilyState::default(),
            ipv4_health: HealthChanges::default(),
            ipv6_health: HealthChanges::default(),
        }
    }

    /// This node is called so; `needs_object` tells whether there must be a Node object of it.
    #[must_use]
    pub fn called(self, name: Arc<str>, needs_object: bool) -> Self {
        Self {
            name: Some((name, needs_object)),
            ..self
        }
    }

    /// Looks whether the objects know a node of our name, once all were seen; returns what is newly wrong.
    pub fn look_for_node(&mut self) -> Vec<Diagnostic> {
        let Some((name, needs_object)) = &self.name else {
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

    /// The fixed program for what is known of the node.
    #[must_use]
    pub fn program<A: Address>(&self) -> Program {
        self.facts.program::<A>()
    }

    /// Takes in what a source of objects reports; returns what is newly wrong.
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
                    self.ipv4.note(&StoreChange::Node);
                    self.ipv6.note(&StoreChange::Node);
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
            for known in &mut self.not_served {
                known.remove(&service.name);
            }
        }
        self.ipv4.note(&changed);
        self.ipv6.note(&changed);
        diagnostics
    }

    /// Whether every object that counts has been seen: before that nothing is programmed, or what is
    /// not seen yet would be cut off. Endpoints are only in manifests, which are read at once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let mut kinds = ObjectKind::ALL
            .iter()
            .filter(|kind| **kind != ObjectKind::Endpoints);
        kinds.all(|kind| self.listed.contains(kind))
    }

    /// What is wrong with which object.
    pub(super) fn diagnostics(
        &self,
    ) -> impl Iterator<Item = (&DiagnosticSubject, &DiagnosticReasons)> {
        self.diagnostics.all()
    }

    /// How many objects are not served, or not as asked, for each reason that there is or was.
    #[must_use]
    pub fn objects_not_served(&self) -> &BTreeMap<EventReason, usize> {
        self.diagnostics.objects()
    }

    /// Whether our Node is about to be deleted; `None`: there is none.
    #[must_use]
    pub fn node_is_leaving(&self) -> Option<bool> {
        self.store.node().map(|node| node.is_leaving)
    }

    /// Plans both families.
    ///
    /// # Errors
    /// Never, unless the planner is wrong.
    pub fn prepare(
        &self,
        ipv4: Basis<Ipv4Addr>,
        ipv6: Basis<Ipv6Addr>,
    ) -> Result<Plans, InconsistentTable> {
        Ok(Plans {
            ipv4: self.ipv4.prepare(&self.store, &self.facts, ipv4)?,
            ipv6: self.ipv6.prepare(&self.store, &self.facts, ipv6)?,
        })
    }

    /// Takes in that the kernel committed both plans; returns what is newly wrong.
    pub fn committed(&mut self, plans: Plans) -> Vec<Diagnostic> {
        let diagnostics = self.served(&plans);
        self.programmed(plans.ipv4.names());
        self.programmed(plans.ipv6.names());
        let (ipv4, ipv6) = (
            self.ipv4.committed(plans.ipv4),
            self.ipv6.committed(plans.ipv6),
        );
        self.ipv4_health
            .handle_events(ipv4, self.ipv4.applied().node(), &self.facts);
        self.ipv6_health
            .handle_events(ipv6, self.ipv6.applied().node(), &self.facts);
        diagnostics
    }

    /// Takes in that the kernel refuses a Service, which is left out; returns that once, however often it is
    /// tried again.
    pub fn refused(&mut self, service: &ServiceName, why: impl fmt::Display) -> Vec<Diagnostic> {
        let subject = DiagnosticSubject::Programmed(service.clone());
        if self.diagnostics.has(&subject) {
            return Vec::new();
        }
        let reason = format!("rejected by the kernel: {why}");
        let reasons = [(reason, EventReason::RejectedByKernel)].into();
        self.diagnostics.now(subject, reasons)
    }

    /// Whether the kernel refused the Service when it was last tried.
    #[must_use]
    pub fn is_refused(&self, service: &ServiceName) -> bool {
        self.diagnostics
            .has(&DiagnosticSubject::Programmed(service.clone()))
    }

    /// Whether the tables must be read back before the next plan.
    #[must_use]
    pub fn must_read(&self) -> bool {
        self.ipv4.must_read() || self.ipv6.must_read()
    }

    /// Takes in that those of these Services that the kernel refused before are programmed.
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

    /// How far the kernel holds what it should, on a node with IPv6 or without.
    #[must_use]
    pub fn progress(&self, ipv6: bool) -> SyncOutcome {
        if self.ipv4.is_dirty() || (ipv6 && self.ipv6.is_dirty()) {
            SyncOutcome::Waiting
        } else if self.ipv4.is_clean() && (!ipv6 || self.ipv6.is_clean()) {
            SyncOutcome::Complete
        } else {
            SyncOutcome::LeftOut
        }
    }

    /// The health checks that changed by what was committed since this was last asked.
    pub fn take_health_changes(&mut self) -> [Vec<HealthCheckChange>; 2] {
        [&mut self.ipv4_health.changes, &mut self.ipv6_health.changes].map(std::mem::take)
    }

    /// The frontends that were touched by what was committed since this was last asked.
    pub fn take_dirty_frontends(&mut self) -> (DirtyFrontends<Ipv4Addr>, DirtyFrontends<Ipv6Addr>) {
        (
            self.ipv4.take_dirty_frontends(),
            self.ipv6.take_dirty_frontends(),
        )
    }

    fn served(&mut self, plans: &Plans) -> Vec<Diagnostic> {
        let of_families = [&plans.ipv4.not_served, &plans.ipv6.not_served];
        let mut names = BTreeSet::new();
        for (known, now) in self.not_served.iter_mut().zip(of_families) {
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
            let of_families = self.not_served.iter().filter_map(|known| known.get(name));
            let reasons = of_families.flatten();
            let reasons = reasons.map(|(reason, sort)| (reason.clone(), *sort));
            let subject = DiagnosticSubject::Served(name.clone());
            diagnostics.extend(self.diagnostics.now(subject, reasons.collect()));
        }
        diagnostics
    }

    /// What of the Services is not served, all of it that was not said before.
    ///
    /// # Errors
    /// Never, unless the planner is wrong.
    pub fn not_served(&mut self) -> Result<Vec<Diagnostic>, InconsistentTable> {
        let plans = self.prepare(Basis::Empty, Basis::Empty)?;
        Ok(self.served(&plans))
    }

    /// The tables as they should be, from nothing: what a fresh start would program.
    ///
    /// # Errors
    /// Never, unless the planner is wrong.
    pub fn fresh(&self) -> Result<(Table<Ipv4Addr>, Table<Ipv6Addr>), InconsistentTable> {
        let plans = self.prepare(Basis::Empty, Basis::Empty)?;
        let (mut ipv4, mut ipv6) = (Table::default(), Table::default());
        plans.ipv4.transaction.apply(&mut ipv4)?;
        plans.ipv6.transaction.apply(&mut ipv6)?;
        Ok((ipv4, ipv6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::model::parse;

    #[test]
    fn a_node_that_the_api_server_does_not_show_is_told_of_until_it_does() {
        let mut state = State::new(NodeFacts::default()).called("n1".into(), true);
        let said = state.look_for_node();
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].sort, EventReason::UnknownNode);
        assert_eq!(said[0].subject.to_string(), "Node n1");
        assert_eq!(state.look_for_node(), []);
        let node = yaml_serde::from_str("metadata: {name: n1}").unwrap();
        let _ = state.apply(Event::Update(parse::node(&node, "n1")));
        assert_eq!(state.look_for_node(), []);
        assert_eq!(state.objects_not_served()[&EventReason::UnknownNode], 0);
        // A directory of manifests needs no Node.
        let mut state = State::new(NodeFacts::default()).called("n1".into(), false);
        assert_eq!(state.look_for_node(), []);
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
