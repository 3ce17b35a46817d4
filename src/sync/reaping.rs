//! The steps of a sync that are about session affinity.

use std::net::{Ipv4Addr, Ipv6Addr};

use tracing::{debug, warn};

use super::affinity::{ReapPhase, Reaped};
use super::mode::SyncMode;
use super::{ClientsToUnpin, SyncPlan, Syncer};
use crate::logging::LogEvent;
use crate::netlink::{Error, FamilyCommit};
use crate::per_family;
use crate::planner::diff::Plan;
use crate::planner::dual::Dual;

/// Plans of each family whose only effect is their delta.
type DeltaPlans = Dual<Option<Plan<Ipv4Addr>>, Option<Plan<Ipv6Addr>>>;

/// Whether a step changed the applied state, so that a plan is outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppliedState {
    /// The applied state changed.
    Changed,
    /// The applied state is the same.
    Unchanged,
}

impl Syncer {
    /// Detaches clients with session affinity from endpoints before a plan deletes these: no client
    /// is pinned to them from now on, and pinned clients are unpinned if that is quick.
    ///
    /// A failure does no harm: the elements that the plan adds keep clients from the endpoints too.
    pub(super) fn detach_clients(&mut self, plan: &SyncPlan) -> AppliedState {
        let families = self.state.families.as_ref().zip(plan.as_ref());
        let plans = per_family!(families, |(family, plan)| family
            .plan_stop_pinning(&plan.effects));
        if plans.ipv4.is_none() && plans.ipv6.as_ref().is_none_or(Option::is_none) {
            return AppliedState::Unchanged;
        }
        if let Err(error) = self.commit_deltas(plans) {
            debug!(event = %LogEvent::AffinityCleanupFailed, %error, "cannot unpin clients before their endpoints go");
            return AppliedState::Unchanged;
        }
        let clients = per_family!(plan.as_ref(), |plan| plan.effects.to_unpin.clone());
        let _reaped = self
            .reaper
            .reap(&mut self.kernel, clients, ReapPhase::BeforeCommit);
        AppliedState::Changed
    }

    /// Unpins some of the clients that must lose their endpoint.
    pub(super) fn reap_some(&mut self) {
        if self.reaper.step(&mut self.kernel) == Reaped::All {
            self.all_reaped();
            self.cleaner.all_reaped(&self.state);
        }
    }

    /// Unpins every client that must lose its endpoint, after a failure.
    pub(super) fn retry_reaping(&mut self) {
        // At the end of a read-back, all clients are checked.
        if self.mode != SyncMode::Incremental {
            return;
        }
        let Some(clients) = self.clients_to_unpin() else {
            return;
        };
        if self.reaper.retry(&mut self.kernel, clients) == Reaped::All {
            self.all_reaped();
        }
    }

    /// Unpins every client that must lose its endpoint, since an earlier process may have pinned it.
    pub(super) fn reap_all(&mut self) -> Reaped {
        match self.clients_to_unpin() {
            Some(clients) => self
                .reaper
                .reap(&mut self.kernel, clients, ReapPhase::AfterCommit),
            None => Reaped::All,
        }
    }

    /// Returns all clients that must lose their endpoint; `None` before the first commit.
    fn clients_to_unpin(&self) -> Option<Dual<ClientsToUnpin<Ipv4Addr>, ClientsToUnpin<Ipv6Addr>>> {
        let clients = per_family!(self.state.families.as_ref(), |family| family
            .clients_to_unpin());
        Some(Dual {
            ipv4: clients.ipv4?,
            ipv6: clients.ipv6.flatten(),
        })
    }

    /// Deletes the elements that keep clients from endpoints that are gone, since no client is
    /// pinned to these any more.
    pub(super) fn all_reaped(&mut self) {
        if self.mode != SyncMode::Incremental {
            return;
        }
        let plans = per_family!(self.state.families.as_ref(), |family| family
            .plan_all_unpinned());
        if let Err(error) = self.commit_deltas(plans) {
            warn!(event = %LogEvent::AffinityCleanupFailed, %error, "cannot commit the end of an affinity cleanup");
            self.mode = SyncMode::ReadBack;
        }
    }

    /// Commits plans that start from the applied state, and applies their deltas.
    fn commit_deltas(&mut self, plans: DeltaPlans) -> Result<(), Error> {
        let (commit, deltas) = per_family!(plans, |plan| match plan {
            Some(Plan { transaction, delta }) => (FamilyCommit::from(transaction), Some(delta)),
            None => (FamilyCommit::default(), None),
        })
        .unzip();
        self.commit(&commit)?;
        let families = self.state.families.as_mut().zip(deltas);
        per_family!(families, |(family, delta)| if let Some(delta) = delta {
            family.applied_mut().committed(delta);
        });
        Ok(())
    }

    /// Whether any Service has session affinity.
    pub(super) fn has_affinity(&self) -> bool {
        per_family!(self.state.families.as_ref(), |family| family
            .applied()
            .has_affinity())
        .any()
    }

    /// Reports affinity maps that are full.
    pub(super) fn check_affinity_maps(&mut self) {
        if self.mode == SyncMode::Incremental {
            self.full_maps.check(&mut self.kernel, &self.state);
        }
    }
}
