//! The state of one IP family: what is dirty, what is applied. Pure.

mod plan;

use std::collections::{BTreeMap, BTreeSet};

use crate::planner::conntrack::{AnsweringFrontends, DirtyFrontends};
use crate::planner::desired::{
    Claim, Claims, ClientSides, HealthCheck, NodeFacts, claims, cluster_ips,
};
use crate::planner::diff::Applied;
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol, Service, ServiceName, StoreChange};
use crate::planner::ruleset::Program;
use plan::PlannedFor;
pub use plan::{Effects, FamilyPlan};

/// Whether a Service was skipped before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It is skipped from now on.
    Newly,
    /// It was skipped already.
    Already,
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
    /// What the applied Services were planned for.
    planned_for: Option<PlannedFor<A>>,
    /// The Services that are skipped until the next retry, since the kernel rejected an operation.
    skipped: BTreeSet<ServiceName>,
    /// The frontends that changed since conntrack was last cleaned.
    dirty_frontends: DirtyFrontends<A>,
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
            planned_for: None,
            skipped: BTreeSet::new(),
            dirty_frontends: DirtyFrontends::default(),
            health: BTreeMap::new(),
        }
    }
}

impl<A: Address> FamilyState<A> {
    /// Marks what a change of the store makes dirty.
    pub fn mark_dirty(&mut self, changed: &StoreChange) {
        match changed {
            StoreChange::Nothing => {}
            StoreChange::Service { before, after } => {
                let (before, after) = (before.as_deref(), after.as_deref());
                let others = self.claims.update(before, after);
                let own = [before, after].into_iter().flatten();
                let own: BTreeSet<_> = own.map(|service| service.name.clone()).collect();
                for name in others.into_iter().chain(own) {
                    // What the kernel rejected of it may be what changes.
                    self.skipped.remove(&name);
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

    /// The Services with a pending change.
    pub fn pending(&self) -> impl Iterator<Item = &ServiceName> {
        self.dirty.iter()
    }

    /// The Services that are skipped until the next retry, since the kernel rejected an operation.
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

    /// Plans the skipped Services again from now on.
    pub fn retry_skipped(&mut self) {
        self.skipped.clear();
    }

    /// Whether the table must be read back before the next plan: of a Service that was skipped only
    /// the elements are known, not which clients are pinned.
    #[must_use]
    pub fn needs_read_back(&self) -> bool {
        let mut kept = self.applied.kept();
        kept.any(|name| !self.skipped.contains(name))
    }

    /// This family.
    #[must_use]
    pub fn family(&self) -> Family {
        A::FAMILY
    }

    /// The fixed program of this family's table.
    #[must_use]
    pub fn program(&self, facts: &NodeFacts) -> Program {
        facts.program::<A>()
    }

    /// Applies the effects of a plan whose transaction the kernel committed; returns the health
    /// checks that changed.
    pub fn committed(&mut self, effects: Effects<A>) -> Vec<(ServiceName, Option<HealthCheck>)> {
        let Effects {
            unserved: _,
            stale,
            leaving: _,
            names,
            delta,
            base,
            found_chains,
            health,
            planned_for,
            dirty_frontends,
        } = effects;
        self.planned_for = Some(planned_for);
        self.sides = Some(stale.sides);
        self.dirty_frontends.extend(dirty_frontends);
        if let Some(base) = base {
            self.applied = base;
        }
        self.applied.committed(delta);
        self.applied.adopt_unused(found_chains);
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

    /// Takes the frontends that changed by what was committed since the last call.
    pub fn take_dirty_frontends(&mut self) -> DirtyFrontends<A> {
        std::mem::take(&mut self.dirty_frontends)
    }

    /// These frontends with the endpoints that answer them now.
    #[must_use]
    pub fn frontends<'a>(&'a self, touched: &'a DirtyFrontends<A>) -> AnsweringFrontends<'a, A> {
        AnsweringFrontends::new(touched, &self.applied, &self.claims)
    }

    /// The state that the kernel holds.
    #[must_use]
    pub fn applied(&self) -> &Applied<A> {
        &self.applied
    }

    /// The state that the kernel holds, to record what was done to dynamic chains.
    pub fn applied_mut(&mut self) -> &mut Applied<A> {
        &mut self.applied
    }
}
