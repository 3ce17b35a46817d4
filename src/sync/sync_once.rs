//! One turn of the crank: plan what is dirty, commit it, work around what is refused.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::affinity::When;
use super::trust::{Trust, basis, part};
use super::{Basis, Plans, SyncOutcome, Syncer};
use crate::logging::LogEvent;
use crate::netlink::{Commit, Error, FamilyCommit, Rejection, give_back_memory};
use crate::planner::diff::Plan;
use crate::planner::ruleset::InconsistentTable;

/// After a commit of more operations than this, memory is given back.
const LARGE: usize = 10_000;

/// How many refusals in a row one turn of the crank works around before it waits.
const ATTEMPTS: usize = 16;

/// What one turn of the crank failed by.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Kernel(#[from] Error),
    #[error("the planner contradicts itself: {0}")]
    Planner(#[from] InconsistentTable),
}

impl Syncer {
    pub(super) fn is_clean(&self) -> bool {
        let dirty = self.state.ipv4.is_dirty() || self.state.ipv6.is_dirty();
        !dirty && self.trust == Trust::Picture
    }

    /// Brings the kernel up to date.
    pub(super) fn sync_once(&mut self) -> SyncOutcome {
        match self.sync_dirty() {
            Ok(progress) => {
                self.owned_by_other = false;
                progress
            }
            Err(failure) => {
                self.failed(&failure);
                self.trust = Trust::Read;
                SyncOutcome::Waiting
            }
        }
    }

    /// Says so. As long as another process owns the tables that is said once.
    fn failed(&mut self, failure: &SyncError) {
        let owned = matches!(failure, SyncError::Kernel(Error::Owned(_)));
        let known = std::mem::replace(&mut self.owned_by_other, owned);
        if known && owned {
            debug!(event = %LogEvent::SyncFailed, error = %failure, "sync failed; retrying");
        } else {
            error!(event = %LogEvent::SyncFailed, error = %failure, "sync failed; retrying");
        }
    }

    /// Commits what is dirty.
    fn sync_dirty(&mut self) -> Result<SyncOutcome, SyncError> {
        for _ in 0..ATTEMPTS {
            if self.is_clean() {
                break;
            }
            let started = Instant::now();
            self.last_sync = Some(started);
            if self.trust == Trust::Picture && self.state.must_read() {
                self.trust = Trust::Read;
            }
            let full = self.trust != Trust::Picture;
            let prepared = self.prepare();
            if prepared.is_err() {
                self.measure.failed(full, started.elapsed());
            }
            let (plans, commit) = prepared?;
            if !full && self.part_clients(&plans) {
                continue;
            }
            self.drift.pause_notifications(&mut self.kernel, &commit);
            let sent = Instant::now();
            let result = self.kernel.commit(&commit);
            let kernel = sent.elapsed();
            self.drift.resume_notifications(&mut self.kernel);
            self.measure.sent(self.kernel.sent_bytes());
            match result {
                Ok(()) => {
                    let large = commit.len() > LARGE || full;
                    self.committed(plans, &commit, started.elapsed());
                    self.measure
                        .committed(&commit, full, started.elapsed(), kernel);
                    drop(commit);
                    if large {
                        give_back_memory();
                    }
                }
                Err(error) => {
                    self.measure.refused(&error, full, started.elapsed());
                    self.work_around(error)?;
                }
            }
        }
        Ok(self.state.progress(self.ipv6))
    }

    fn prepare(&mut self) -> Result<(Plans, Commit), SyncError> {
        let trust = self.trust;
        let first = !self.committed_once;
        let program4 = self.state.program::<Ipv4Addr>();
        let program6 = self.state.program::<Ipv6Addr>();
        let (basis4, new4) = basis(&mut self.kernel, trust, &program4, first)?;
        let (basis6, new6) = if self.ipv6 {
            basis(&mut self.kernel, trust, &program6, first)?
        } else {
            (Basis::Picture, false)
        };
        let mut plans = self.state.prepare(basis4, basis6)?;
        let commit = Commit {
            ipv4: part(&mut plans.ipv4.transaction, new4.then_some(program4)),
            ipv6: if self.ipv6 {
                part(&mut plans.ipv6.transaction, new6.then_some(program6))
            } else {
                FamilyCommit::default()
            },
        };
        Ok((plans, commit))
    }

    fn committed(&mut self, plans: Plans, commit: &Commit, elapsed: Duration) {
        let elapsed_ms = milliseconds(elapsed);
        let operations = commit.len();
        if self.trust != Trust::Picture {
            let repaired = self.drift.repaired(operations);
            self.measure.metrics.repairs.inc_by(u64::from(repaired));
        }
        let ipv6 = self.ipv6.then(|| plans.ipv6.stale.clone());
        let forgotten = self.forgetter.forget(
            &mut self.kernel,
            plans.ipv4.stale.clone(),
            ipv6,
            When::After,
        );
        let diagnostics = self.state.committed(plans);
        let count = u64::try_from(diagnostics.len()).unwrap_or(u64::MAX);
        self.measure.metrics.skipped_service_parts.inc_by(count);
        self.report_diagnostics(diagnostics);
        self.measure.holds(&self.state.ipv4);
        if self.ipv6 {
            self.measure.holds(&self.state.ipv6);
        }
        if forgotten {
            self.all_forgotten();
        }
        self.cleaner.clean(&mut self.state, forgotten);
        self.tell_health();
        if self.committed_once {
            debug!(event = %LogEvent::SyncCommitted, operations, elapsed_ms, "committed");
        } else {
            let rebuilt = commit.rebuilds();
            info!(
                event = %LogEvent::FirstSyncCommitted,
                operations, elapsed_ms, rebuilt, "first sync committed"
            );
        }
        self.committed_once = true;
        self.trust = Trust::Picture;
        if self.has_affinity() {
            self.look_for_full_maps();
        }
    }

    /// Before endpoints go that clients with session affinity have: nobody is remembered for them from
    /// now on, and who was is forgotten, as far as that is quick. `false` if there is none of that, or if
    /// it fails: what comes next keeps clients from them all the same.
    fn part_clients(&mut self, plans: &Plans) -> bool {
        let ipv4 = self.state.ipv4.leaving(&plans.ipv4);
        let ipv6 = self.state.ipv6.leaving(&plans.ipv6).filter(|_| self.ipv6);
        if ipv4.is_none() && ipv6.is_none() {
            return false;
        }
        if let Err(error) = self.commit_plans(ipv4, ipv6) {
            debug!(event = %LogEvent::AffinityCleanupFailed, %error, "cannot unpin clients before their endpoints go");
            return false;
        }
        let ipv6 = self.ipv6.then(|| plans.ipv6.stale.clone());
        let ipv4 = plans.ipv4.stale.clone();
        self.forgetter
            .forget(&mut self.kernel, ipv4, ipv6, When::Before);
        true
    }

    /// Forgets some of those who are to be.
    pub(super) fn forget_some(&mut self) {
        if self.forgetter.step(&mut self.kernel) {
            self.all_forgotten();
            self.cleaner.all_forgotten(&self.state);
        }
    }

    /// Has everyone forgotten again who must be: something failed.
    pub(super) fn forget_again(&mut self) {
        let Some(ipv4) = self.state.ipv4.stale() else {
            return;
        };
        let ipv6 = self.state.ipv6.stale().filter(|_| self.ipv6);
        if self.forgetter.look_again(&mut self.kernel, ipv4, ipv6) {
            self.all_forgotten();
        }
    }

    /// Takes in that everyone is forgotten who is to be: nobody need be kept from an endpoint.
    pub(super) fn all_forgotten(&mut self) {
        if self.trust != Trust::Picture {
            return;
        }
        let ipv4 = self.state.ipv4.forgotten();
        let ipv6 = self.state.ipv6.forgotten().filter(|_| self.ipv6);
        if let Err(error) = self.commit_plans(ipv4, ipv6) {
            warn!(event = %LogEvent::AffinityCleanupFailed, %error, "cannot commit the end of an affinity cleanup");
            self.trust = Trust::Read;
        }
    }

    /// Commits plans that begin from the pictures, and takes them in.
    fn commit_plans(
        &mut self,
        ipv4: Option<Plan<Ipv4Addr>>,
        ipv6: Option<Plan<Ipv6Addr>>,
    ) -> Result<(), Error> {
        let (mut ipv4, mut ipv6) = (ipv4, ipv6);
        let mut commit = Commit::default();
        if let Some(plan) = &mut ipv4 {
            commit.ipv4.transaction = std::mem::take(&mut plan.transaction);
        }
        if let Some(plan) = &mut ipv6 {
            commit.ipv6.transaction = std::mem::take(&mut plan.transaction);
        }
        self.drift.pause_notifications(&mut self.kernel, &commit);
        let result = self.kernel.commit(&commit);
        self.drift.resume_notifications(&mut self.kernel);
        result?;
        if let Some(plan) = ipv4 {
            self.state.ipv4.applied_mut().committed(plan);
        }
        if let Some(plan) = ipv6 {
            self.state.ipv6.applied_mut().committed(plan);
        }
        Ok(())
    }

    /// Decides what to do about a transaction that was not committed, before the next attempt.
    fn work_around(&mut self, error: Error) -> Result<(), SyncError> {
        let refusals = match (remedy(&error, self.trust), &error) {
            (SyncRecovery::Read, error) => {
                if let Error::Refused(refusals) = error {
                    self.tell_first_refusal(refusals, error);
                }
                self.trust = Trust::Read;
                return Ok(());
            }
            (SyncRecovery::LeaveOut, Error::Refused(refusals)) => refusals,
            (SyncRecovery::LeaveOut | SyncRecovery::Wait, _) => return Err(error.into()),
        };
        let mut new = false;
        let mut diagnostics = Vec::new();
        for refusal in refusals {
            for service in &refusal.services {
                let ipv4 = self.state.ipv4.leave_out(service);
                let ipv6 = self.state.ipv6.leave_out(service);
                if ipv4 || ipv6 {
                    diagnostics.extend(self.state.refused(service, refusal));
                    new = true;
                }
            }
        }
        self.report_diagnostics(diagnostics);
        if new {
            return Ok(());
        }
        if self.trust == Trust::Rebuild {
            return Err(error.into());
        }
        warn!(event = %LogEvent::TablesRecreated, %error, "cannot repair the tables; recreating them");
        self.trust = Trust::Rebuild;
        Ok(())
    }

    fn tell_first_refusal(&self, refusals: &[Rejection], error: &Error) {
        if self.are_known(refusals) {
            debug!(event = %LogEvent::TransactionRejected, %error, "kernel rejected a transaction again; reading the tables back");
        } else {
            // The outcome has its own line: a repair, or a Service that is skipped.
            info!(event = %LogEvent::TransactionRejected, %error, "kernel rejected a transaction; reading the tables back");
        }
    }

    /// Whether all that is refused is of Services that are known to be refused.
    fn are_known(&self, refusals: &[Rejection]) -> bool {
        let is_known = |refusal: &Rejection| {
            let mut services = refusal.services.iter();
            !refusal.services.is_empty() && services.all(|name| self.state.is_refused(name))
        };
        refusals.iter().all(is_known)
    }
}

/// What to do about a transaction that was not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncRecovery {
    /// Read the tables back: perhaps they are not what we think.
    Read,
    /// Leave out the Services that the kernel refuses; if it names none, recreate the tables.
    LeaveOut,
    /// Try it again later.
    Wait,
}

fn remedy(error: &Error, trust: Trust) -> SyncRecovery {
    match (error, trust) {
        // It is not for what it asks that it is refused, and a whole table takes more memory.
        (Error::Refused(refusals), _) if refusals.iter().any(Rejection::lacks_memory) => {
            SyncRecovery::Wait
        }
        (Error::Lost, _) | (Error::Refused(_), Trust::Picture) => SyncRecovery::Read,
        (Error::Refused(_), Trust::Read | Trust::Rebuild) => SyncRecovery::LeaveOut,
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

    #[test]
    fn without_memory_no_service_is_left_out_and_no_table_recreated() {
        let refused = |errno| {
            let operation = "the transaction".to_owned();
            Error::Refused(vec![Rejection {
                operation,
                services: Vec::new(),
                errno,
                explanation: None,
            }])
        };
        for trust in [Trust::Picture, Trust::Read, Trust::Rebuild] {
            assert_eq!(remedy(&refused(Errno::ENOMEM), trust), SyncRecovery::Wait);
            assert_eq!(remedy(&refused(Errno::ENOBUFS), trust), SyncRecovery::Wait);
        }
        let invalid = refused(Errno::EINVAL);
        assert_eq!(remedy(&invalid, Trust::Picture), SyncRecovery::Read);
        assert_eq!(remedy(&invalid, Trust::Read), SyncRecovery::LeaveOut);
    }
}
