//! The state of one IP family: the dirty state and the applied state. Pure.

mod plan;
pub(super) mod read_back;

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;

use crate::planner::conntrack::{AnsweringFrontends, DirtyFrontends};
use crate::planner::desired::{
    Claim, Claims, ClientSides, HealthCheck, NodeFacts, claims, cluster_ips,
};
use crate::planner::diff::Applied;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol, Service, ServiceName, StoreChange};
use crate::planner::ruleset::{Element, Program};
use plan::PlannedFor;
pub use plan::{Effects, FamilyPlan};
use read_back::ReadBack;
pub use read_back::{KnownKeys, ReadBackStep, SERVICES_PER_STEP, key_hash};

/// Whether a skipped Service was skipped before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// The Service is skipped from now on.
    Newly,
    /// The Service was skipped before.
    Already,
}

/// The state of one IP family.
#[derive(Debug)]
pub struct FamilyState<A: Address> {
    claims: Claims<A>,
    pub(super) applied: Applied<A>,
    /// The sides of external policy Local at the last commit.
    pub(super) sides: Option<ClientSides<A>>,
    /// The Services with a pending change.
    dirty: BTreeSet<ServiceName>,
    /// The `ClusterIPs` that Services got or lost. An endpoint at such an address is not used.
    changed_cluster_ips: BTreeSet<A>,
    /// The ports that Services got or lost. At an address of the node, a frontend and a node port
    /// with the same number are one claim.
    changed_ports: BTreeSet<(Protocol, u16)>,
    /// Whether the node itself has a pending change.
    node_dirty: bool,
    /// The facts that the applied Services were planned for.
    planned_for: Option<PlannedFor<A>>,
    /// The Services that are skipped until the next retry, since the kernel rejected an operation.
    skipped: BTreeSet<ServiceName>,
    /// The frontends that changed since conntrack was last cleaned.
    dirty_frontends: DirtyFrontends<A>,
    /// The read-back of the table, until it is complete.
    pub(super) read_back: Option<ReadBack<A>>,
    /// The desired elements of the Services of the last step of the read-back, until an event.
    prepared: HashMap<ServiceName, read_back::Desired<A>>,
    /// The health checks of the applied Services.
    health: BTreeMap<ServiceName, HealthCheck>,
}

impl<A: Address> Default for FamilyState<A> {
    fn default() -> Self {
        Self {
            claims: Claims::default(),
            applied: Applied::default(),
            sides: None,
            dirty: BTreeSet::new(),
            changed_cluster_ips: BTreeSet::new(),
            changed_ports: BTreeSet::new(),
            node_dirty: true,
            planned_for: None,
            skipped: BTreeSet::new(),
            dirty_frontends: DirtyFrontends::default(),
            read_back: None,
            prepared: HashMap::default(),
            health: BTreeMap::new(),
        }
    }
}

impl<A: Address> FamilyState<A> {
    /// Marks the Services that a change of the store makes dirty.
    pub fn mark_dirty(&mut self, changed: &StoreChange) {
        self.prepared.clear();
        match changed {
            StoreChange::Nothing => {}
            StoreChange::Service { before, after } => {
                self.mark_service_dirty(before.as_deref(), after.as_deref());
            }
            StoreChange::Endpoints(services) => self.dirty.extend(services.iter().cloned()),
            StoreChange::Node => self.node_dirty = true,
        }
    }

    fn mark_service_dirty(&mut self, before: Option<&Service>, after: Option<&Service>) {
        if let Some(service) = before.or(after) {
            self.note_former_claims(&service.name, before);
        }
        let rivals = self.claims.update(before, after);
        let names: BTreeSet<_> = [before, after]
            .into_iter()
            .flatten()
            .map(|service| service.name.clone())
            .collect();
        for name in rivals.into_iter().chain(names) {
            // The change may be of the part that the kernel rejected.
            self.skipped.remove(&name);
            self.dirty.insert(name);
        }
        let changed_ips = &service_ips::<A>(before) ^ &service_ips(after);
        self.changed_cluster_ips.extend(changed_ips);
        let changed_claims = &dated_claims::<A>(before) ^ &dated_claims(after);
        let ports = changed_claims
            .iter()
            .filter_map(|(claim, _)| claim.protocol_and_port());
        self.changed_ports.extend(ports);
    }

    /// Whether anything may differ from the applied state and can be committed now.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.node_dirty || self.dirty.difference(&self.skipped).next().is_some()
    }

    /// Whether the kernel holds everything that is desired.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.node_dirty && self.dirty.is_empty()
    }

    /// Returns the Services with a pending change.
    pub fn pending(&self) -> impl Iterator<Item = &ServiceName> {
        self.dirty.iter()
    }

    /// Returns the Services that are skipped until the next retry, since the kernel rejected an
    /// operation.
    pub fn skipped(&self) -> impl Iterator<Item = &ServiceName> {
        self.skipped.iter()
    }

    /// Skips a Service in the next plans, since the kernel rejected an operation of it.
    pub fn skip(&mut self, service: &ServiceName) -> Skipped {
        self.dirty.insert(service.clone());
        if self.skipped.insert(service.clone()) {
            Skipped::Newly
        } else {
            Skipped::Already
        }
    }

    /// Plans the skipped Services again from the next plan on.
    pub fn retry_skipped(&mut self) {
        self.skipped.clear();
    }

    /// Whether the table must be read back before the next plan.
    ///
    /// The applied state has only the elements of a skipped Service, not its pinned clients.
    #[must_use]
    pub fn needs_read_back(&self) -> bool {
        self.applied
            .kept_services()
            .any(|name| !self.skipped.contains(name))
    }

    /// Returns the family.
    #[must_use]
    pub fn family(&self) -> Family {
        A::FAMILY
    }

    /// Returns the fixed program of this family's table.
    #[must_use]
    pub fn program(&self, facts: &NodeFacts) -> Program {
        facts.program::<A>()
    }

    /// Applies the effects of a plan whose transaction the kernel committed; returns the health
    /// checks that changed.
    pub fn committed(&mut self, effects: Effects<A>) -> Vec<(ServiceName, Option<HealthCheck>)> {
        let Effects {
            unserved: _,
            to_unpin,
            stop_pinning: _,
            names,
            delta,
            base,
            health,
            planned_for,
            dirty_frontends,
            replaced_ranges,
        } = effects;
        self.prepared.clear();
        self.planned_for = Some(planned_for);
        self.sides = Some(to_unpin.sides);
        self.dirty_frontends.extend(dirty_frontends);
        if let Some(base) = base {
            self.applied = base;
        }
        self.applied.committed(delta);
        self.forget_ranges(&replaced_ranges);
        self.node_dirty = false;
        self.changed_cluster_ips.clear();
        self.changed_ports.clear();
        self.dirty.retain(|name| !names.contains(name));
        for (name, check) in &health {
            match check {
                Some(check) => self.health.insert(name.clone(), check.clone()),
                None => self.health.remove(name),
            };
        }
        health
    }

    /// Marks the frontends of elements whose deletion no plan contains as changed.
    pub fn mark_dirty_elements(&mut self, elements: impl IntoIterator<Item = Element<A>>) {
        self.dirty_frontends.add_elements(elements);
    }

    /// Takes the frontends that committed plans changed since the last call.
    pub fn take_dirty_frontends(&mut self) -> DirtyFrontends<A> {
        std::mem::take(&mut self.dirty_frontends)
    }

    /// Returns dirty frontends with the endpoints that serve them now.
    #[must_use]
    pub fn frontends<'a>(&'a self, dirty: &'a DirtyFrontends<A>) -> AnsweringFrontends<'a, A> {
        AnsweringFrontends::new(dirty, &self.applied, &self.claims)
    }

    /// Returns the state that the kernel holds.
    #[must_use]
    pub fn applied(&self) -> &Applied<A> {
        &self.applied
    }

    /// Returns the state that the kernel holds, to record transactions without a plan.
    pub fn applied_mut(&mut self) -> &mut Applied<A> {
        &mut self.applied
    }
}

fn service_ips<A: Address>(service: Option<&Service>) -> BTreeSet<A> {
    service.into_iter().flat_map(cluster_ips).collect()
}

/// Returns the claims of a Service with its creation time, which decides between rivals.
fn dated_claims<A: Address>(service: Option<&Service>) -> BTreeSet<(Claim<A>, Option<i64>)> {
    service
        .into_iter()
        .flat_map(|service| {
            claims(service)
                .into_iter()
                .map(|claim| (claim, service.created))
        })
        .collect()
}
