//! One sync: plan the dirty state, commit it, and recover from rejections of the kernel.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::affinity::{ReapPhase, Reaped};
use super::drift::Drift;
use super::metrics::SyncExtent;
use super::mode::{SyncMode, view};
use super::{Skipped, SyncEffects, SyncOutcome, SyncPlan, Syncer};
use crate::logging::LogEvent;
use crate::netlink::{Commit, Error, FamilyCommit, Rejection, release_free_memory};
use crate::per_family;
use crate::planner::diff::Plan;
use crate::planner::dual::Dual;
use crate::planner::ruleset::Program;

/// The number of operations of a commit after which memory is returned to the system.
const LARGE_COMMIT: usize = 10_000;

/// The number of transactions that one sync attempts before it waits.
const MAX_ATTEMPTS: usize = 16;

/// Plans of each family whose only effect is their delta.
type DeltaPlans = Dual<Option<Plan<Ipv4Addr>>, Option<Plan<Ipv6Addr>>>;

impl Syncer {
    /// Whether the kernel holds everything that is desired, except skipped Services.
    pub(super) fn is_clean(&self) -> bool {
        !self.state.is_dirty() && self.mode == SyncMode::Incremental
    }

    /// Brings the kernel up to date.
    pub(super) fn sync_once(&mut self) -> SyncOutcome {
        match self.sync_dirty() {
            Ok(outcome) => {
                self.owned_by_other = false;
                outcome
            }
            Err(error) => {
                self.log_failure(&error);
                self.mode = SyncMode::ReadBack;
                SyncOutcome::Pending
            }
        }
    }

    /// Logs a failed sync. That another process owns the tables is an error only the first time.
    fn log_failure(&mut self, error: &Error) {
        let owned = matches!(error, Error::Owned(_));
        let was_owned = std::mem::replace(&mut self.owned_by_other, owned);
        if was_owned && owned {
            debug!(event = %LogEvent::SyncFailed, %error, "sync failed; retrying");
        } else {
            error!(event = %LogEvent::SyncFailed, %error, "sync failed; retrying");
        }
    }

    fn sync_dirty(&mut self) -> Result<SyncOutcome, Error> {
        for _ in 0..MAX_ATTEMPTS {
            if self.is_clean() {
                break;
            }
            let started = Instant::now();
            self.last_sync = Some(started);
            if self.mode == SyncMode::Incremental && self.state.needs_read_back() {
                self.mode = SyncMode::ReadBack;
            }
            let extent = self.extent();
            let (plan, rebuilds) = self
                .plan()
                .inspect_err(|_| self.metrics.sync_failed(extent, started.elapsed()))?;
            if extent == SyncExtent::Partial && self.detach_clients(&plan) == AppliedState::Changed
            {
                // The plan starts from a state that is no longer applied.
                continue;
            }
            let (transactions, effects) = plan.split();
            let commit = per_family!(transactions.zip(rebuilds), |(transaction, rebuild)| {
                FamilyCommit {
                    rebuild,
                    transaction,
                }
            });
            let sent = Instant::now();
            let result = self.commit(&commit);
            let in_kernel = sent.elapsed();
            self.metrics.sent(self.kernel.sent_bytes());
            match result {
                Ok(()) => {
                    self.after_commit(effects, &commit, started.elapsed());
                    self.metrics
                        .committed(&commit, extent, started.elapsed(), in_kernel);
                    let is_large = commit.len() > LARGE_COMMIT || extent == SyncExtent::Full;
                    drop(commit);
                    if is_large {
                        release_free_memory();
                    }
                }
                Err(error) => {
                    self.metrics
                        .commit_failed(&error, extent, started.elapsed());
                    self.recover(error)?;
                }
            }
        }
        Ok(self.state.outcome())
    }

    fn extent(&self) -> SyncExtent {
        match self.mode {
            SyncMode::Incremental => SyncExtent::Partial,
            SyncMode::ReadBack | SyncMode::Rebuild => SyncExtent::Full,
        }
    }

    /// Plans the dirty state, and returns the programs of the tables that are rebuilt.
    fn plan(&mut self) -> Result<(SyncPlan, Dual<Option<Program>>), Error> {
        let (mode, is_first) = (self.mode, !self.committed_once);
        let (views, rebuilds) = per_family!(self.state.programs(), |program| {
            view(&mut self.kernel, mode, program, is_first)?
        })
        .unzip();
        Ok((self.state.plan(views), rebuilds))
    }

    /// Commits a transaction. The notifications of a large one are not received.
    fn commit(&mut self, commit: &Commit) -> Result<(), Error> {
        self.drift.pause_notifications(&mut self.kernel, commit);
        let result = self.kernel.commit(commit);
        self.drift.resume_notifications(&mut self.kernel);
        result
    }

    /// The steps after a commit. Their order matters:
    /// 1. Clients are unpinned from endpoints that they may not keep, while the effects name them.
    /// 2. The effects are applied to the state, on which everything below depends.
    /// 3. Diagnostics and metrics report the new state.
    /// 4. Once no client is pinned to an endpoint that is gone, the elements that keep clients from
    ///    it are deleted.
    /// 5. Conntrack is cleaned after both, or the next packet would recreate a stale entry.
    /// 6. Health checks report endpoints that the kernel already serves.
    fn after_commit(&mut self, effects: SyncEffects, commit: &Commit, elapsed: Duration) {
        if self.mode != SyncMode::Incremental {
            let drift = self.drift.conclude_repair(commit.len());
            if drift == Drift::Repaired {
                self.metrics.repaired();
            }
        }
        let clients = per_family!(effects.as_ref(), |effects| effects.to_unpin.clone());
        let reaped = self
            .reaper
            .reap(&mut self.kernel, clients, ReapPhase::AfterCommit);
        let diagnostics = self.state.committed(effects);
        self.metrics.count_unserved(diagnostics.len());
        self.report_diagnostics(diagnostics);
        per_family!(self.state.families.as_ref(), |family| self
            .metrics
            .set_applied(family));
        if reaped == Reaped::All {
            self.all_reaped();
        }
        self.cleaner.clean(&mut self.state, reaped);
        self.send_health_checks();
        self.log_commit(commit, elapsed);
        self.committed_once = true;
        self.mode = SyncMode::Incremental;
        if self.has_affinity() {
            self.check_affinity_maps();
        }
    }

    fn log_commit(&self, commit: &Commit, elapsed: Duration) {
        let (operations, elapsed_ms) = (commit.len(), milliseconds(elapsed));
        if self.committed_once {
            debug!(event = %LogEvent::SyncCommitted, operations, elapsed_ms, "committed");
        } else {
            let rebuilt = commit.rebuilds();
            info!(
                event = %LogEvent::FirstSyncCommitted,
                operations, elapsed_ms, rebuilt, "first sync committed"
            );
        }
    }

    /// Detaches clients with session affinity from endpoints before a plan deletes these: no client
    /// is pinned to them from now on, and pinned clients are unpinned if that is quick.
    ///
    /// A failure does no harm: the elements that the plan adds keep clients from the endpoints too.
    fn detach_clients(&mut self, plan: &SyncPlan) -> AppliedState {
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
        let clients = per_family!(self.state.families.as_ref(), |family| family
            .clients_to_unpin());
        let Dual {
            ipv4: Some(ipv4),
            ipv6,
        } = clients
        else {
            return;
        };
        let clients = Dual {
            ipv4,
            ipv6: ipv6.flatten(),
        };
        if self.reaper.retry(&mut self.kernel, clients) == Reaped::All {
            self.all_reaped();
        }
    }

    /// Deletes the elements that keep clients from endpoints that are gone, since no client is
    /// pinned to these any more.
    fn all_reaped(&mut self) {
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

    /// Prepares the next attempt after a transaction that was not committed.
    ///
    /// # Errors
    /// The same error, if the sync must wait.
    fn recover(&mut self, error: Error) -> Result<(), Error> {
        match (recovery(&error, self.mode), &error) {
            (SyncRecovery::ReadBack, _) => {
                self.log_first_rejection(&error);
                self.mode = SyncMode::ReadBack;
                return Ok(());
            }
            (SyncRecovery::Skip, Error::Rejected(rejections)) => {
                if self.skip_rejected(rejections) == Skipped::Newly {
                    return Ok(());
                }
            }
            (SyncRecovery::Skip | SyncRecovery::Wait, _) => return Err(error),
        }
        if self.mode == SyncMode::Rebuild {
            return Err(error);
        }
        warn!(event = %LogEvent::TablesRecreated, %error, "cannot repair the tables; recreating them");
        self.mode = SyncMode::Rebuild;
        Ok(())
    }

    /// Skips the Services that the kernel rejects; returns whether there was a new one.
    fn skip_rejected(&mut self, rejections: &[Rejection]) -> Skipped {
        let mut outcome = Skipped::Already;
        for rejection in rejections {
            for service in &rejection.services {
                let (skipped, diagnostics) = self.state.skip(service, rejection);
                self.report_diagnostics(diagnostics);
                if skipped == Skipped::Newly {
                    outcome = skipped;
                }
            }
        }
        outcome
    }

    /// Logs a rejection, at a lower level if all its Services were rejected before.
    fn log_first_rejection(&self, error: &Error) {
        let Error::Rejected(rejections) = error else {
            return;
        };
        let is_repeated = |rejection: &Rejection| {
            let services = &rejection.services;
            !services.is_empty() && services.iter().all(|name| self.state.is_rejected(name))
        };
        if rejections.iter().all(is_repeated) {
            debug!(event = %LogEvent::TransactionRejected, %error, "kernel rejected a transaction again; reading the tables back");
        } else {
            // The outcome is logged separately: a repair, or a skipped Service.
            info!(event = %LogEvent::TransactionRejected, %error, "kernel rejected a transaction; reading the tables back");
        }
    }
}

/// Whether a step changed the applied state, so that a plan is outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppliedState {
    Changed,
    Unchanged,
}

/// The reaction to a transaction that was not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncRecovery {
    /// Read the tables back, since they may not hold the applied state.
    ReadBack,
    /// Skip the Services that the kernel rejects, or recreate the tables if there are none.
    Skip,
    /// Retry later.
    Wait,
}

fn recovery(error: &Error, mode: SyncMode) -> SyncRecovery {
    match (error, mode) {
        // A rebuild of the table would take more memory.
        (Error::Rejected(rejections), _) if rejections.iter().any(Rejection::lacks_memory) => {
            SyncRecovery::Wait
        }
        (Error::Lost, _) | (Error::Rejected(_), SyncMode::Incremental) => SyncRecovery::ReadBack,
        (Error::Rejected(_), SyncMode::ReadBack | SyncMode::Rebuild) => SyncRecovery::Skip,
        _ => SyncRecovery::Wait,
    }
}

/// Returns a duration in milliseconds, rounded to a microsecond.
pub(super) fn milliseconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::netlink::RejectedAt;

    #[test]
    fn without_memory_no_service_is_skipped_and_no_table_recreated() {
        let rejected = |errno| {
            Error::Rejected(vec![Rejection {
                at: RejectedAt::Transaction,
                operation: "the transaction".to_owned(),
                services: Vec::new(),
                errno,
                explanation: None,
            }])
        };
        for mode in [SyncMode::Incremental, SyncMode::ReadBack, SyncMode::Rebuild] {
            assert_eq!(recovery(&rejected(Errno::ENOMEM), mode), SyncRecovery::Wait);
            assert_eq!(
                recovery(&rejected(Errno::ENOBUFS), mode),
                SyncRecovery::Wait
            );
        }
        let invalid = rejected(Errno::EINVAL);
        assert_eq!(
            recovery(&invalid, SyncMode::Incremental),
            SyncRecovery::ReadBack
        );
        assert_eq!(recovery(&invalid, SyncMode::ReadBack), SyncRecovery::Skip);
    }
}
