//! Forgets the clients of endpoints that are gone: a thread of its own looks for them, the crank
//! deletes them, since only its socket may change our tables.
//!
//! Before an endpoint goes, its clients are remembered no more and forgotten, if that is quick; after it
//! went, `@gone-*` keeps those from it who are not forgotten yet.
//!
//! nf_tables gives out a set in pages and walks it from its beginning for each, so a dump of a map
//! costs the square of the clients in it (`nf_tables_dump_set`): 0.3 s for 100,000, half a minute
//! for a million. Nothing else is to wait for that, and what is to be forgotten meanwhile is looked
//! for together.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{debug, warn};

use super::changes::StaleClients;
use crate::logging::LogEvent;
use crate::netlink::{Commit, FamilyCommit, Kernel, PinnedClient, UnpinOutcome};
use crate::per_family;
use crate::planner::diff::TimeLeft;
use crate::planner::dual::Dual;
use crate::planner::model::{Address, Protocol};

/// How long a sync waits for it afterwards: the usual map is small.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long a sync waits for it before an endpoint goes, unless the last look took longer than
/// [`QUICK`]: on a busy machine it is the thread that is late.
const PATIENCE_BEFORE: Duration = Duration::from_millis(500);
const QUICK: Duration = Duration::from_millis(50);

/// After how long all are looked for again when something failed; doubled each time up to the last.
const AGAIN: Duration = Duration::from_millis(500);
const LAST_AGAIN: Duration = Duration::from_secs(30);

/// Clients that are deleted at once: a transaction of them takes some 5 ms.
const CLIENTS: usize = 5_000;

/// How often in a row, before what the kernel tells of it has to be read (`netlink/notices.rs`).
const IN_A_ROW: usize = 4;

struct ReapJob {
    stale: Dual<StaleClients<Ipv4Addr>, StaleClients<Ipv6Addr>>,
    when: When,
    /// Since when the clients are stale.
    since: Instant,
}

/// Whether every client lost the endpoint that it may not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sync) enum Reaped {
    /// No client is pinned to an endpoint that it may not keep.
    All,
    /// Some clients are still looked for or not deleted yet.
    Pending,
}

/// When clients are to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::sync) enum When {
    /// Before their endpoint goes.
    Before,
    /// After it went.
    After,
}

/// What a look for these found: transactions that delete it.
struct FoundClients {
    jobs: usize,
    deletes: Vec<Commit>,
    took: Duration,
    failed: bool,
}

/// The thread, and what it found, as the crank sees them.
pub(in crate::sync) struct AffinityReaper {
    jobs: Sender<ReapJob>,
    looked: Receiver<FoundClients>,
    /// Told after each look.
    told: Arc<Notify>,
    /// Looks that are not over.
    pending: usize,
    deletes: VecDeque<Commit>,
    /// How long the last look took.
    took: Duration,
    /// Whether anything failed since all were last looked for.
    failed: bool,
    /// How often in a row that was so.
    failures: u32,
}

impl AffinityReaper {
    /// Starts the thread, which ends with this value, but for a look that it is at.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(in crate::sync) fn start(mut kernel: Kernel) -> io::Result<Self> {
        let (jobs, received) = channel::<ReapJob>();
        let (finished, looked) = channel();
        let told = Arc::new(Notify::new());
        let recorder = Arc::clone(&told);
        let work = move || {
            while let Some(jobs) = gather(&received) {
                let started = Instant::now();
                let ipv4: Vec<_> = jobs.iter().map(|job| job.of(&job.stale.ipv4)).collect();
                let ipv6: Vec<_> = jobs
                    .iter()
                    .filter_map(|job| Some(job.of(job.stale.ipv6.as_ref()?)))
                    .collect();
                let mut found = look(&mut kernel, &ipv4);
                found.extend(look(&mut kernel, &ipv6));
                let failed = found.iter().any(Result::is_err);
                let looked = FoundClients {
                    jobs: jobs.len(),
                    deletes: found.into_iter().flatten().flatten().collect(),
                    took: started.elapsed(),
                    failed,
                };
                if finished.send(looked).is_err() {
                    return;
                }
                recorder.notify_one();
            }
        };
        thread::Builder::new()
            .name("forget".to_owned())
            .spawn(work)?;
        Ok(Self {
            jobs,
            looked,
            told,
            pending: 0,
            deletes: VecDeque::new(),
            took: Duration::ZERO,
            failed: false,
            failures: 0,
        })
    }

    /// Unpins these clients. While that is pending, [`Self::wait`] and [`Self::step`] continue.
    pub(in crate::sync) fn reap(
        &mut self,
        kernel: &mut Kernel,
        stale: Dual<StaleClients<Ipv4Addr>, StaleClients<Ipv6Addr>>,
        when: When,
    ) -> Reaped {
        let protocols = per_family!(stale.as_ref(), |stale| stale.protocols());
        if protocols.into_iter().all(|protocols| protocols.is_empty()) {
            return self.reaped();
        }
        self.look_for(ReapJob {
            stale,
            when,
            since: Instant::now(),
        });
        let patience = match when {
            When::Before if self.took > QUICK => return Reaped::Pending,
            When::Before => PATIENCE_BEFORE,
            When::After => PATIENCE,
        };
        let until = Instant::now() + patience;
        let mut deleted = 0;
        loop {
            deleted += usize::from(!self.deletes.is_empty());
            if self.step(kernel) == Reaped::All {
                return Reaped::All;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || deleted == IN_A_ROW {
                return Reaped::Pending;
            }
            if self.deletes.is_empty() {
                match self.looked.recv_timeout(left) {
                    Ok(looked) => self.take(looked),
                    Err(RecvTimeoutError::Timeout) => return Reaped::Pending,
                    Err(RecvTimeoutError::Disconnected) => {
                        self.pending = 0;
                        self.failed = true;
                    }
                }
            }
        }
    }

    /// Waits until there is something to do; for ever if there is nothing.
    pub(in crate::sync) async fn wait(&mut self) {
        while self.deletes.is_empty() {
            self.told.notified().await;
            // Told perhaps of a look that a sync waited for.
            let pending = self.pending > 0;
            while let Ok(looked) = self.looked.try_recv() {
                self.take(looked);
            }
            if pending && self.pending == 0 {
                return;
            }
        }
    }

    /// Deletes some of the clients that were found.
    pub(in crate::sync) fn step(&mut self, kernel: &mut Kernel) -> Reaped {
        if let Some(commit) = self.deletes.pop_front() {
            self.delete(commit, kernel);
        }
        self.reaped()
    }

    /// Deletes these, in one transaction. Where that deletes none of them if one has timed out, each half
    /// is tried by itself next, down to the one.
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

    /// After how long all are to be looked for again, because something failed.
    pub(in crate::sync) fn must_look_again(&self) -> Option<Duration> {
        let must = self.failed && self.is_done();
        must.then(|| (AGAIN * 2u32.saturating_pow(self.failures)).min(LAST_AGAIN))
    }

    /// Looks again for every client that must lose its endpoint, after a failure.
    pub(in crate::sync) fn reap_again(
        &mut self,
        kernel: &mut Kernel,
        stale: Dual<StaleClients<Ipv4Addr>, StaleClients<Ipv6Addr>>,
    ) -> Reaped {
        self.begins_again();
        self.reap(kernel, stale, When::After)
    }

    fn begins_again(&mut self) {
        self.failed = false;
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether every client lost the endpoint that it may not keep.
    fn reaped(&mut self) -> Reaped {
        if self.failed || !self.is_done() {
            return Reaped::Pending;
        }
        self.failures = 0;
        Reaped::All
    }

    fn is_done(&self) -> bool {
        self.pending == 0 && self.deletes.is_empty()
    }

    fn look_for(&mut self, job: ReapJob) {
        if self.jobs.send(job).is_ok() {
            self.pending += 1;
        } else {
            warn!(event = %LogEvent::AffinityCleanupFailed, "the thread that finds pinned clients panicked; they stay pinned");
            self.failed = true;
        }
    }

    fn take(&mut self, looked: FoundClients) {
        self.pending -= looked.jobs;
        self.took = looked.took;
        self.failed |= looked.failed;
        self.deletes.extend(looked.deletes);
    }
}

/// All that waits to be looked for; `None`: nobody asks any more.
fn gather<T>(waiting: &Receiver<T>) -> Option<Vec<T>> {
    let first = waiting.recv().ok()?;
    Some([first].into_iter().chain(waiting.try_iter()).collect())
}

/// Who is to be forgotten, and since when the time-outs are what they are; `None`: they are not yet.
type ReapRequest<'a, A> = (&'a StaleClients<A>, Option<Instant>);

impl ReapJob {
    fn of<'a, A: Address>(&self, stale: &'a StaleClients<A>) -> ReapRequest<'a, A> {
        (stale, (self.when == When::After).then_some(self.since))
    }
}

/// A packet may have been on its way when a time-out changed.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// What deletes the clients of each protocol, or that they could not be looked for.
fn look<A: Address>(
    kernel: &mut Kernel,
    stale: &[ReapRequest<'_, A>],
) -> Vec<Result<Vec<Commit>, ()>>
where
    FamilyCommit<A>: Into<Commit>,
{
    let look = |protocol| match kernel.pinned_clients::<A>(protocol) {
        Ok(clients) => Ok(deletes(protocol, clients, stale)),
        Err(error) => {
            warn!(event = %LogEvent::AffinityCleanupFailed, %error, "cannot find clients of endpoints that are gone; retrying");
            Err(())
        }
    };
    let protocols = stale.iter().flat_map(|(stale, _)| stale.protocols());
    let protocols: BTreeSet<_> = protocols.collect();
    protocols.into_iter().map(look).collect()
}

fn deletes<A: Address>(
    protocol: Protocol,
    clients: Vec<PinnedClient<A>>,
    stale: &[ReapRequest<'_, A>],
) -> Vec<Commit>
where
    FamilyCommit<A>: Into<Commit>,
{
    let wrong = clients.into_iter().filter_map(|client| {
        let left = left(protocol, &client, stale)?;
        Some((client, left))
    });
    let wrong: Vec<_> = wrong.collect();
    if !wrong.is_empty() {
        debug!(event = %LogEvent::AffinityCleanup, %protocol, clients = wrong.len(), "unpinning clients, or changing their timeout");
    }
    let parts = wrong.chunks(CLIENTS);
    let parts = parts.map(|clients| FamilyCommit::forget(protocol, clients));
    parts.map(Into::into).collect()
}

/// For how long a client is to be remembered that must be forgotten, or has another time-out now;
/// `None`: as it is.
fn left<A: Address>(
    protocol: Protocol,
    client: &PinnedClient<A>,
    stale: &[ReapRequest<'_, A>],
) -> Option<TimeLeft> {
    let PinnedClient {
        key,
        endpoint,
        time,
    } = client;
    if stale
        .iter()
        .any(|(stale, _)| stale.covers(protocol, key, endpoint))
    {
        return Some(TimeLeft::Nothing);
    }
    // The last job knows the time-out that is.
    stale.iter().rev().find_map(|(stale, since)| {
        let since = since.as_ref()?.elapsed() + ON_ITS_WAY;
        stale.time(protocol, key, (*time)?, since)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One whose thread does nothing; where its jobs arrive.
    fn idle() -> (AffinityReaper, Receiver<ReapJob>) {
        let (jobs, received) = channel();
        let (_, looked) = channel();
        let forgetter = AffinityReaper {
            jobs,
            looked,
            told: Arc::new(Notify::new()),
            pending: 1,
            deletes: VecDeque::new(),
            took: Duration::ZERO,
            failed: false,
            failures: 0,
        };
        (forgetter, received)
    }

    #[test]
    fn a_look_that_failed_is_made_again_ever_later() {
        let looked = |failed| FoundClients {
            jobs: 1,
            deletes: Vec::new(),
            took: Duration::ZERO,
            failed,
        };
        let (mut forgetter, _jobs) = idle();
        assert_eq!(forgetter.must_look_again(), None);
        for after in [500, 1000, 2000] {
            forgetter.take(looked(true));
            assert_eq!(forgetter.reaped(), Reaped::Pending);
            let after = Duration::from_millis(after);
            assert_eq!(forgetter.must_look_again(), Some(after));
            forgetter.begins_again();
            forgetter.pending = 1;
            assert_eq!(forgetter.must_look_again(), None);
        }
        forgetter.take(looked(false));
        assert_eq!(forgetter.reaped(), Reaped::All);
        assert_eq!(forgetter.must_look_again(), None);
        // The next failure is a first one.
        forgetter.failed = true;
        assert_eq!(forgetter.must_look_again(), Some(AGAIN));
    }

    #[test]
    fn what_waits_is_looked_for_together() {
        let (ask, waiting) = channel();
        for job in 1..=3 {
            ask.send(job).unwrap();
        }
        assert_eq!(gather(&waiting), Some(vec![1, 2, 3]));
        ask.send(4).unwrap();
        drop(ask);
        assert_eq!(gather(&waiting), Some(vec![4]));
        assert_eq!(gather(&waiting), None);
    }
}
