//! One sync: plan the dirty state, commit it, and recover from rejections of the kernel.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info};

use super::affinity::{ReapPhase, Reaped};
use super::metrics::SyncExtent;
use super::mode::SyncMode;
use super::reaping::AppliedState;
use super::{RecentSync, SyncEffects, SyncOutcome, SyncPlan, Syncer};
use crate::logging::LogEvent;
use crate::netlink::{Commit, Error, FamilyCommit, release_free_memory};
use crate::per_family;
use crate::planner::dual::Dual;
use crate::planner::ruleset::Program;

/// The number of operations of a commit after which memory is returned to the system.
const LARGE_COMMIT: usize = 10_000;

/// The number of transactions that one sync attempts before it waits.
const MAX_ATTEMPTS: usize = 16;

/// An attempt to sync.
#[derive(Clone, Copy)]
pub(super) struct SyncAttempt {
    pub(super) extent: SyncExtent,
    pub(super) started: Instant,
    /// The time that the kernel took.
    pub(super) in_kernel: Duration,
}

/// A complete sync, as it is logged.
pub(super) struct CompletedSync {
    /// The number of operations of all its commits.
    pub(super) operations: usize,
    /// Whether a table was rebuilt.
    pub(super) rebuilt: bool,
    /// The time until the last commit.
    pub(super) elapsed: Duration,
}

/// Whether a commit completes a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Further steps of a read-back follow.
    ReadsOn,
    /// Nothing follows.
    Complete,
}

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
                if self.logged_failure.take().is_some() {
                    info!(event = %LogEvent::SyncRecovered, "syncs succeed again");
                }
                outcome
            }
            Err(error) => {
                self.log_failure(&error);
                self.cancel_reading();
                self.mode = SyncMode::ReadBack;
                SyncOutcome::Pending
            }
        }
    }

    /// Logs a failed sync, as an error only if the last failure was another one.
    fn log_failure(&mut self, error: &Error) {
        self.owned_by_other = matches!(error, Error::Owned(_));
        let failure = error.to_string();
        let before = self.logged_failure.replace(failure.clone());
        if before == Some(failure) {
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
            let (plan, rebuilds) = self.plan().inspect_err(|error| {
                self.metrics.sync_failed(extent, started.elapsed());
                self.record_failure(extent, started, error);
            })?;
            if extent == SyncExtent::Partial && self.detach_clients(&plan) == AppliedState::Changed
            {
                // The plan starts from a state that is no longer applied.
                continue;
            }
            let (mut transactions, effects) = plan.split();
            self.replace_unknown(&mut transactions)?;
            let commit = per_family!(transactions.zip(rebuilds), |(transaction, rebuild)| {
                FamilyCommit {
                    rebuild,
                    transaction,
                }
            });
            // Who sees the commit in the kernel must not see an older value.
            self.metrics.cleanup_pending(true);
            let sent = Instant::now();
            let result = self.commit(&commit);
            let in_kernel = sent.elapsed();
            self.metrics.sent(self.kernel.sent_bytes());
            match result {
                Ok(()) => {
                    let attempt = SyncAttempt {
                        extent,
                        started,
                        in_kernel,
                    };
                    if self.conclude_commit(commit, effects, attempt)? == Progress::ReadsOn {
                        return Ok(SyncOutcome::Reading);
                    }
                }
                Err(error) => {
                    self.metrics
                        .commit_failed(&error, extent, started.elapsed());
                    self.record_failure(extent, started, &error);
                    if commit.rebuilds() {
                        // The applied state of a table that is rebuilt is not that of the kernel.
                        self.cancel_reading();
                    }
                    self.recover(error)?;
                }
            }
        }
        Ok(self.state.outcome())
    }

    /// Records a commit, and does what follows it.
    fn conclude_commit(
        &mut self,
        commit: Commit,
        effects: SyncEffects,
        attempt: SyncAttempt,
    ) -> Result<Progress, Error> {
        let progress = self.step_committed(&commit, attempt.in_kernel);
        let SyncAttempt {
            extent,
            started,
            in_kernel,
        } = match &self.reading {
            Some(reading) if progress == Progress::Complete => reading.whole(),
            Some(_) | None => attempt,
        };
        self.after_commit(effects, &commit, started.elapsed(), progress)?;
        if progress == Progress::Complete || !commit.is_empty() {
            let programming = self
                .metrics
                .committed(&commit, extent, started.elapsed(), in_kernel);
            self.sync_health.recent.add(RecentSync {
                operations: commit.len(),
                kernel_ms: Some(milliseconds(in_kernel)),
                programming_ms: programming.map(milliseconds),
                ..RecentSync::new(extent == SyncExtent::Full, started.elapsed())
            });
        }
        let is_large = commit.len() > LARGE_COMMIT || extent == SyncExtent::Full;
        drop(commit);
        if is_large && progress == Progress::Complete {
            release_free_memory();
        }
        Ok(progress)
    }

    /// Records a failed sync among the recent ones.
    fn record_failure(&self, extent: SyncExtent, started: Instant, error: &Error) {
        self.sync_health.recent.add(RecentSync {
            error: Some(error.to_string()),
            ..RecentSync::new(extent == SyncExtent::Full, started.elapsed())
        });
    }

    fn extent(&self) -> SyncExtent {
        match self.mode {
            SyncMode::Incremental => SyncExtent::Partial,
            SyncMode::ReadBack | SyncMode::Rebuild => SyncExtent::Full,
        }
    }

    /// Plans the dirty state, and returns the programs of the tables that are rebuilt.
    fn plan(&mut self) -> Result<(SyncPlan, Dual<Option<Program>>), Error> {
        let programs = self.state.programs();
        Ok(match self.mode {
            SyncMode::Incremental => (
                self.state.plan_changes(),
                per_family!(programs, |_program| None),
            ),
            SyncMode::ReadBack => self.plan_read_back()?,
            SyncMode::Rebuild => (
                self.state.plan_everything(),
                per_family!(programs, |program| Some(program)),
            ),
        })
    }

    /// Commits a transaction. The notifications of a large one are not received.
    pub(super) fn commit(&mut self, commit: &Commit) -> Result<(), Error> {
        self.drift.pause_notifications(&mut self.kernel, commit);
        let result = self.kernel.commit(commit);
        self.drift.resume_notifications(&mut self.kernel, &result);
        result
    }

    /// The steps after a commit. Their order matters:
    /// 1. Clients are unpinned from endpoints that they may not keep, while the effects name them.
    /// 2. The effects are applied to the state, on which everything below depends. The relay gets the
    ///    endpoints of node ports, to which it connects itself.
    /// 3. Diagnostics and metrics report the new state.
    /// 4. Once no client is pinned to an endpoint that is gone, the elements that keep clients from
    ///    it are deleted.
    /// 5. Conntrack is cleaned after both, or the next packet would recreate a stale entry.
    /// 6. Health checks report endpoints that the kernel already serves.
    /// 7. The log reports the sync: all of the above is done then.
    ///
    /// While a read-back goes on, 4 and 5 wait until all Services are known.
    fn after_commit(
        &mut self,
        effects: SyncEffects,
        commit: &Commit,
        elapsed: Duration,
        progress: Progress,
    ) -> Result<(), Error> {
        let clients = per_family!(effects.as_ref(), |effects| effects.to_unpin.clone());
        let mut reaped = self
            .reaper
            .reap(&mut self.kernel, clients, ReapPhase::AfterCommit);
        let names = self.localhost.names(&effects);
        let diagnostics = self.state.committed(effects);
        if let Some(names) = names {
            self.localhost.send(names, &self.state);
        }
        self.metrics.count_unserved(diagnostics.len());
        self.report_diagnostics(diagnostics);
        let is_complete = progress == Progress::Complete;
        let mut completed = None;
        if self.reading.is_some() && is_complete {
            match self.end_reading() {
                Ok(read_back) => completed = read_back,
                Err(error) => self.recover(error)?,
            }
            if self.mode != SyncMode::Incremental {
                return Ok(());
            }
            reaped = self.reap_all();
        } else if is_complete {
            completed = Some(CompletedSync {
                operations: commit.len(),
                rebuilt: commit.rebuilds(),
                elapsed,
            });
            if self.mode == SyncMode::Rebuild {
                self.conclude_repair(commit.len());
            }
            self.mode = SyncMode::Incremental;
        }
        per_family!(self.state.families.as_ref(), |family| self
            .metrics
            .set_applied(family));
        if is_complete {
            if reaped == Reaped::All {
                self.all_reaped();
            }
            self.cleaner.clean(&mut self.state, reaped);
        }
        self.send_health_checks();
        if let Some(sync) = completed {
            self.log_sync(&sync);
            self.committed_once = true;
        }
        if self.has_affinity() {
            self.check_affinity_maps();
        }
        Ok(())
    }

    /// Logs a complete sync.
    fn log_sync(&self, sync: &CompletedSync) {
        let CompletedSync {
            operations,
            rebuilt,
            elapsed,
        } = *sync;
        let elapsed_ms = milliseconds(elapsed);
        if self.committed_once {
            debug!(event = %LogEvent::SyncCommitted, operations, elapsed_ms, "committed");
        } else {
            info!(
                event = %LogEvent::FirstSyncCommitted,
                operations, elapsed_ms, rebuilt, "first sync committed"
            );
        }
    }
}

/// Returns a duration in milliseconds, rounded to a microsecond.
pub(super) fn milliseconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1e6).round() / 1e3
}
