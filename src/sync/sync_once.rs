//! One sync: plan what is dirty, commit it, recover from what the kernel rejects.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::affinity::{Reaped, When};
use super::mode::{SyncMode, view};
use super::{Skipped, SyncEffects, SyncOutcome, SyncPlan, Syncer};
use crate::logging::LogEvent;
use crate::netlink::{Commit, Error, FamilyCommit, Rejection, release_free_memory};
use crate::per_family;
use crate::planner::diff::Plan;
use crate::planner::dual::Dual;
use crate::planner::ruleset::Program;

/// After a commit of more operations than this, memory is returned to the system.
const LARGE: usize = 10_000;

/// How many rejections in a row one sync recovers from before it waits.
const ATTEMPTS: usize = 16;

/// Plans of each family that need no other effect than their delta.
type DeltaPlans = Dual<Option<Plan<Ipv4Addr>>, Option<Plan<Ipv6Addr>>>;

impl Syncer {
    /// Whether the kernel holds what is desired, as far as it does not reject it.
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

    /// Logs a failed sync; that another process owns the tables, once while it lasts.
    fn log_failure(&mut self, error: &Error) {
        let owned = matches!(error, Error::Owned(_));
        let known = std::mem::replace(&mut self.owned_by_other, owned);
        if known && owned {
            debug!(event = %LogEvent::SyncFailed, %error, "sync failed; retrying");
        } else {
            error!(event = %LogEvent::SyncFailed, %error, "sync failed; retrying");
        }
    }

    fn sync_dirty(&mut self) -> Result<SyncOutcome, Error> {
        for _ in 0..ATTEMPTS {
            if self.is_clean() {
                break;
            }
            let started = Instant::now();
            self.last_sync = Some(started);
            if self.mode == SyncMode::Incremental && self.state.needs_read_back() {
                self.mode = SyncMode::ReadBack;
            }
            let is_full = self.mode != SyncMode::Incremental;
            let planned = self.plan();
            if planned.is_err() {
                self.metrics.failed(is_full, started.elapsed());
            }
            let (plan, rebuilds) = planned?;
            if !is_full && self.detach_clients(&plan) {
                // The plan of the clients is applied: what it began from is another now.
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
                        .committed(&commit, is_full, started.elapsed(), in_kernel);
                    let is_large = commit.len() > LARGE || is_full;
                    drop(commit);
                    if is_large {
                        release_free_memory();
                    }
                }
                Err(error) => {
                    self.metrics
                        .rejected_commit(&error, is_full, started.elapsed());
                    self.recover(error)?;
                }
            }
        }
        Ok(self.state.outcome())
    }

    /// Plans what is dirty, and which tables to rebuild with which program.
    fn plan(&mut self) -> Result<(SyncPlan, Dual<Option<Program>>), Error> {
        let (mode, is_first) = (self.mode, !self.committed_once);
        let (views, rebuilds) = per_family!(self.state.programs(), |program| {
            view(&mut self.kernel, mode, program, is_first)?
        })
        .unzip();
        Ok((self.state.plan(views), rebuilds))
    }

    /// Sends a transaction. What the kernel notifies of a large one is not listened to.
    fn commit(&mut self, commit: &Commit) -> Result<(), Error> {
        self.drift.pause_notifications(&mut self.kernel, commit);
        let result = self.kernel.commit(commit);
        self.drift.resume_notifications(&mut self.kernel);
        result
    }

    /// The steps after a commit. Their order matters:
    /// 1. Clients lose the endpoints that they may not keep, while the state still knows which.
    /// 2. The state takes the effects, on which everything below depends.
    /// 3. Diagnostics and metrics report the new state.
    /// 4. Once no client is pinned to an endpoint that is gone, the elements that kept clients from
    ///    it are deleted.
    /// 5. Conntrack is cleaned after both, or the next packet would recreate a stale entry.
    /// 6. Health checks report endpoints that the kernel already serves.
    fn after_commit(&mut self, effects: SyncEffects, commit: &Commit, elapsed: Duration) {
        if self.mode != SyncMode::Incremental {
            let repaired = self.drift.repaired(commit.len());
            self.metrics.metrics.repairs.inc_by(u64::from(repaired));
        }
        let stale = per_family!(effects.as_ref(), |effects| effects.stale.clone());
        let reaped = self.reaper.reap(&mut self.kernel, stale, When::After);
        let diagnostics = self.state.committed(effects);
        self.metrics.count_unserved(diagnostics.len());
        self.report_diagnostics(diagnostics);
        per_family!(self.state.families.as_ref(), |family| self
            .metrics
            .holds(family));
        if reaped == Reaped::All {
            self.all_reaped();
        }
        self.cleaner.clean(&mut self.state, reaped == Reaped::All);
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

    /// Detaches clients with session affinity from endpoints before these are deleted: no client is
    /// pinned to them from now on, and pinned clients are unpinned, as far as that is quick. Whether
    /// that changed the applied state; a failure does no harm, since the elements that the plan adds
    /// keep clients from the endpoints all the same.
    fn detach_clients(&mut self, plan: &SyncPlan) -> bool {
        let families = self.state.families.as_ref().zip(plan.as_ref());
        let leaving = per_family!(families, |(family, plan)| family.leaving(&plan.effects));
        if leaving.ipv4.is_none() && leaving.ipv6.as_ref().is_none_or(Option::is_none) {
            return false;
        }
        if let Err(error) = self.commit_deltas(leaving) {
            debug!(event = %LogEvent::AffinityCleanupFailed, %error, "cannot unpin clients before their endpoints go");
            return false;
        }
        let stale = per_family!(plan.as_ref(), |plan| plan.effects.stale.clone());
        let _reaped = self.reaper.reap(&mut self.kernel, stale, When::Before);
        true
    }

    /// Unpins some of the clients that must lose their endpoint.
    pub(super) fn reap_some(&mut self) {
        if self.reaper.step(&mut self.kernel) == Reaped::All {
            self.all_reaped();
            self.cleaner.all_reaped(&self.state);
        }
    }

    /// Looks again for every client that must lose its endpoint, after a failure.
    pub(super) fn reap_again(&mut self) {
        let stale = per_family!(self.state.families.as_ref(), |family| family.stale());
        let Dual {
            ipv4: Some(ipv4),
            ipv6,
        } = stale
        else {
            return;
        };
        let stale = Dual {
            ipv4,
            ipv6: ipv6.flatten(),
        };
        if self.reaper.reap_again(&mut self.kernel, stale) == Reaped::All {
            self.all_reaped();
        }
    }

    /// Deletes the elements that kept clients from endpoints that are gone: no client is pinned to
    /// them any more.
    fn all_reaped(&mut self) {
        if self.mode != SyncMode::Incremental {
            return;
        }
        let plans = per_family!(self.state.families.as_ref(), |family| family.forgotten());
        if let Err(error) = self.commit_deltas(plans) {
            warn!(event = %LogEvent::AffinityCleanupFailed, %error, "cannot commit the end of an affinity cleanup");
            self.mode = SyncMode::ReadBack;
        }
    }

    /// Commits plans that begin from the applied state, and applies their deltas.
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

    /// Decides what the next attempt does about a transaction that was not committed.
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

    /// Skips the Services that the kernel rejects; whether there was a new one.
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

    /// Logs that the kernel rejected a change of which nobody knows yet why.
    fn log_first_rejection(&self, error: &Error) {
        let Error::Rejected(rejections) = error else {
            return;
        };
        let is_known = |rejection: &Rejection| {
            let mut services = rejection.services.iter();
            !rejection.services.is_empty() && services.all(|name| self.state.is_rejected(name))
        };
        if rejections.iter().all(is_known) {
            debug!(event = %LogEvent::TransactionRejected, %error, "kernel rejected a transaction again; reading the tables back");
        } else {
            // The outcome has its own line: a repair, or a Service that is skipped.
            info!(event = %LogEvent::TransactionRejected, %error, "kernel rejected a transaction; reading the tables back");
        }
    }
}

/// What to do about a transaction that was not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncRecovery {
    /// Read the tables back: perhaps they do not hold what is applied.
    ReadBack,
    /// Skip the Services that the kernel rejects; if it names none, recreate the tables.
    Skip,
    /// Retry later.
    Wait,
}

fn recovery(error: &Error, mode: SyncMode) -> SyncRecovery {
    match (error, mode) {
        // The content is not at fault, and a whole table takes more memory.
        (Error::Rejected(rejections), _) if rejections.iter().any(Rejection::lacks_memory) => {
            SyncRecovery::Wait
        }
        (Error::Lost, _) | (Error::Rejected(_), SyncMode::Incremental) => SyncRecovery::ReadBack,
        (Error::Rejected(_), SyncMode::ReadBack | SyncMode::Rebuild) => SyncRecovery::Skip,
        _ => SyncRecovery::Wait,
    }
}

/// Milliseconds to a microsecond: a small change takes a fraction of a millisecond.
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
