//! Unpins the clients of endpoints that are gone. A thread finds them (`search.rs`), and the sync
//! loop deletes them, since only its socket may change our tables.
//!
//! Before an endpoint is deleted, no client is pinned to it any more, and pinned clients are
//! unpinned if that is quick. Afterwards, `@gone-*` keeps those clients from it that are still
//! pinned.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::warn;

use super::changes::ClientsToUnpin;
use super::search::{self, FoundClients, ReapJob, ReapPhase};
use crate::logging::LogEvent;
use crate::netlink::{Commit, Kernel, UnpinOutcome};
use crate::per_family;
use crate::planner::dual::Dual;

/// The longest time that a sync waits for the end of a reaping after its commit: the usual map is
/// small.
const MAX_WAIT_AFTER_COMMIT: Duration = Duration::from_millis(20);

/// The longest time that a sync waits for the end of a reaping before its commit, unless the last
/// search took longer than [`QUICK_SEARCH`]. On a busy machine, the thread is slow to start.
const MAX_WAIT_BEFORE_COMMIT: Duration = Duration::from_millis(500);

/// The longest duration of a search that a sync waits for before its commit.
const QUICK_SEARCH: Duration = Duration::from_millis(50);

/// The delay of the first retry after a failure, which doubles for each further one.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(500);

/// The longest delay of a retry.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(30);

/// The number of transactions that a sync commits before the loop reads the notifications of
/// nf_tables (`netlink/nf_tables/monitor.rs`).
const MAX_COMMITS_IN_A_ROW: usize = 4;

/// Whether every client lost the endpoint that it may not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sync) enum Reaped {
    /// No client is pinned to an endpoint that it may not keep.
    All,
    /// Some clients are not found or not unpinned yet.
    Pending,
}

/// The sync loop's side of the thread that finds clients.
pub(in crate::sync) struct AffinityReaper {
    jobs: Sender<ReapJob>,
    results: Receiver<FoundClients>,
    /// Notified at the end of each search.
    finished: Arc<Notify>,
    /// The number of jobs without a result.
    pending: usize,
    /// The transactions that unpin the clients that were found.
    deletes: VecDeque<Commit>,
    /// The duration of the last search.
    last_search: Duration,
    /// Whether a step failed since the last retry.
    failed: bool,
    /// The number of failures in a row.
    failures: u32,
}

impl AffinityReaper {
    /// Starts the thread, which exits after the current search when the reaper is dropped.
    ///
    /// # Errors
    /// If the thread cannot start.
    pub(in crate::sync) fn start(kernel: Kernel) -> io::Result<Self> {
        let (jobs, received_jobs) = channel();
        let (sent_results, results) = channel();
        let finished = Arc::new(Notify::new());
        let notify = Arc::clone(&finished);
        thread::Builder::new()
            .name("unpin".to_owned())
            .spawn(move || search::run(kernel, &received_jobs, &sent_results, &notify))?;
        Ok(Self::new(jobs, results, finished))
    }

    fn new(jobs: Sender<ReapJob>, results: Receiver<FoundClients>, finished: Arc<Notify>) -> Self {
        Self {
            jobs,
            results,
            finished,
            pending: 0,
            deletes: VecDeque::new(),
            last_search: Duration::ZERO,
            failed: false,
            failures: 0,
        }
    }

    /// Unpins clients. While that is pending, [`Self::wait`] and [`Self::step`] continue.
    pub(in crate::sync) fn reap(
        &mut self,
        kernel: &mut Kernel,
        clients: Dual<ClientsToUnpin<Ipv4Addr>, ClientsToUnpin<Ipv6Addr>>,
        phase: ReapPhase,
    ) -> Reaped {
        let protocols = per_family!(clients.as_ref(), |clients| clients.protocols());
        if protocols.into_iter().all(|protocols| protocols.is_empty()) {
            return self.outcome();
        }
        self.submit(ReapJob {
            clients,
            phase,
            submitted: Instant::now(),
        });
        match phase {
            ReapPhase::BeforeCommit if self.last_search > QUICK_SEARCH => Reaped::Pending,
            ReapPhase::BeforeCommit => self.reap_for(MAX_WAIT_BEFORE_COMMIT, kernel),
            ReapPhase::AfterCommit => self.reap_for(MAX_WAIT_AFTER_COMMIT, kernel),
        }
    }

    fn reap_for(&mut self, max_wait: Duration, kernel: &mut Kernel) -> Reaped {
        let deadline = Instant::now() + max_wait;
        let mut commits = 0;
        loop {
            commits += usize::from(!self.deletes.is_empty());
            if self.step(kernel) == Reaped::All {
                return Reaped::All;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || commits == MAX_COMMITS_IN_A_ROW {
                return Reaped::Pending;
            }
            if self.deletes.is_empty() {
                match self.results.recv_timeout(left) {
                    Ok(found) => self.add(found),
                    Err(RecvTimeoutError::Timeout) => return Reaped::Pending,
                    Err(RecvTimeoutError::Disconnected) => {
                        self.pending = 0;
                        self.failed = true;
                    }
                }
            }
        }
    }

    /// Waits until [`Self::step`] has something to do; forever if nothing is pending.
    pub(in crate::sync) async fn wait(&mut self) {
        while self.deletes.is_empty() {
            self.finished.notified().await;
            // The notification may be of a search that a sync waited for.
            let was_pending = self.pending > 0;
            while let Ok(found) = self.results.try_recv() {
                self.add(found);
            }
            if was_pending && self.pending == 0 {
                return;
            }
        }
    }

    /// Unpins some of the clients that were found.
    pub(in crate::sync) fn step(&mut self, kernel: &mut Kernel) -> Reaped {
        if let Some(commit) = self.deletes.pop_front() {
            self.delete(commit, kernel);
        }
        self.outcome()
    }

    /// Deletes clients in one transaction.
    ///
    /// The kernel rejects all of it if one client has timed out. Then each half is a transaction of
    /// its own, down to one client.
    fn delete(&mut self, mut commit: Commit, kernel: &mut Kernel) {
        match kernel.unpin_clients(&commit) {
            Ok(UnpinOutcome::Committed) => {}
            Ok(UnpinOutcome::TimedOut) => {
                if let Some(others) = commit.split() {
                    self.deletes.push_front(others);
                    self.deletes.push_front(commit);
                }
            }
            Err(error) => {
                warn!(event = %LogEvent::AffinityCleanupFailed, %error, "cannot unpin clients of endpoints that are gone; retrying");
                self.failed = true;
            }
        }
    }

    /// Returns the delay of the retry that a failure requires.
    pub(in crate::sync) fn retry_delay(&self) -> Option<Duration> {
        let needs_retry = self.failed && self.is_idle();
        needs_retry.then(|| {
            let delay = FIRST_RETRY_DELAY * 2u32.saturating_pow(self.failures);
            delay.min(LONGEST_RETRY_DELAY)
        })
    }

    /// Unpins every client that must lose its endpoint, after a failure.
    pub(in crate::sync) fn retry(
        &mut self,
        kernel: &mut Kernel,
        clients: Dual<ClientsToUnpin<Ipv4Addr>, ClientsToUnpin<Ipv6Addr>>,
    ) -> Reaped {
        self.start_retry();
        self.reap(kernel, clients, ReapPhase::AfterCommit)
    }

    fn start_retry(&mut self) {
        self.failed = false;
        self.failures = self.failures.saturating_add(1);
    }

    /// Returns the outcome so far. A complete one ends the back-off.
    fn outcome(&mut self) -> Reaped {
        if self.failed || !self.is_idle() {
            return Reaped::Pending;
        }
        self.failures = 0;
        Reaped::All
    }

    fn is_idle(&self) -> bool {
        self.pending == 0 && self.deletes.is_empty()
    }

    fn submit(&mut self, job: ReapJob) {
        if self.jobs.send(job).is_ok() {
            self.pending += 1;
        } else {
            warn!(event = %LogEvent::AffinityCleanupFailed, "the thread that finds pinned clients panicked; they stay pinned");
            self.failed = true;
        }
    }

    fn add(&mut self, found: FoundClients) {
        self.pending -= found.jobs;
        self.last_search = found.took;
        self.failed |= found.failed;
        self.deletes.extend(found.deletes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a reaper without a thread that has one pending job, and the receiver of its jobs.
    fn idle() -> (AffinityReaper, Receiver<ReapJob>) {
        let (jobs, received) = channel();
        let (_, results) = channel();
        let mut reaper = AffinityReaper::new(jobs, results, Arc::new(Notify::new()));
        reaper.pending = 1;
        (reaper, received)
    }

    #[test]
    fn the_delay_of_retries_doubles_until_a_search_succeeds() {
        let found = |failed| FoundClients {
            jobs: 1,
            deletes: Vec::new(),
            took: Duration::ZERO,
            failed,
        };
        let (mut reaper, _jobs) = idle();
        assert_eq!(reaper.retry_delay(), None);
        for delay in [500, 1000, 2000] {
            reaper.add(found(true));
            assert_eq!(reaper.outcome(), Reaped::Pending);
            let delay = Duration::from_millis(delay);
            assert_eq!(reaper.retry_delay(), Some(delay));
            reaper.start_retry();
            reaper.pending = 1;
            assert_eq!(reaper.retry_delay(), None);
        }
        reaper.add(found(false));
        assert_eq!(reaper.outcome(), Reaped::All);
        assert_eq!(reaper.retry_delay(), None);
        // The next failure is a first one.
        reaper.failed = true;
        assert_eq!(reaper.retry_delay(), Some(FIRST_RETRY_DELAY));
    }
}
