//! Forgets the clients of endpoints that are gone: a thread of its own looks for them, the crank
//! deletes them, since only its socket may change our tables.
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

use super::family::Stale;
use crate::model::{Address, Protocol};
use crate::netlink::{Client, Commit, Kernel, Part};

/// How long a sync waits for it: the usual map is small.
const PATIENCE: Duration = Duration::from_millis(20);

/// Clients that are deleted at once: a transaction of them takes some 5 ms.
const CLIENTS: usize = 5_000;

/// How often in a row, before what the kernel tells of it has to be read (`netlink/notices.rs`).
const IN_A_ROW: usize = 4;

/// How often one is looked for: a packet that drew a gone endpoint before the commit may have been
/// remembered after the first look.
const LOOKS: u32 = 2;

struct Job {
    ipv4: Stale<Ipv4Addr>,
    ipv6: Option<Stale<Ipv6Addr>>,
    looks: u32,
}

/// What a look for these found: transactions that delete it.
struct Looked {
    jobs: Vec<Job>,
    deletes: Vec<Commit>,
}

/// The thread, and what it found, as the crank sees them.
pub(super) struct Forgetter {
    jobs: Sender<Job>,
    looked: Receiver<Looked>,
    /// Told after each look.
    told: Arc<Notify>,
    /// Looks that are not over.
    pending: usize,
    deletes: VecDeque<Commit>,
    /// To be looked for again once `deletes` are committed.
    again: Vec<Job>,
}

impl Forgetter {
    /// Starts the thread, which ends with this value, but for a look that it is at.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(mut kernel: Kernel) -> io::Result<Self> {
        let (jobs, received) = channel::<Job>();
        let (finished, looked) = channel();
        let told = Arc::new(Notify::new());
        let teller = Arc::clone(&told);
        let work = move || {
            while let Some(mut jobs) = gather(&received) {
                for job in &mut jobs {
                    job.looks += 1;
                }
                let ipv4: Vec<_> = jobs.iter().map(|job| &job.ipv4).collect();
                let ipv6: Vec<_> = jobs.iter().filter_map(|job| job.ipv6.as_ref()).collect();
                let mut deletes = look(&mut kernel, &ipv4);
                deletes.extend(look(&mut kernel, &ipv6));
                if finished.send(Looked { jobs, deletes }).is_err() {
                    return;
                }
                teller.notify_one();
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
            again: Vec::new(),
        })
    }

    /// Has these clients forgotten. `false` if that is not done yet: [`Self::wait`], then
    /// [`Self::step`].
    pub(super) fn forget(
        &mut self,
        kernel: &mut Kernel,
        ipv4: Stale<Ipv4Addr>,
        ipv6: Option<Stale<Ipv6Addr>>,
    ) -> bool {
        let protocols = ipv6.as_ref().map(Stale::protocols).unwrap_or_default();
        if protocols.is_empty() && ipv4.protocols().is_empty() {
            return self.is_done();
        }
        self.look_for(Job {
            ipv4,
            ipv6,
            looks: 0,
        });
        let until = Instant::now() + PATIENCE;
        let mut deleted = 0;
        loop {
            deleted += usize::from(!self.deletes.is_empty());
            if self.step(kernel) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || deleted == IN_A_ROW {
                return false;
            }
            if self.deletes.is_empty() {
                match self.looked.recv_timeout(left) {
                    Ok(looked) => self.take(looked),
                    Err(RecvTimeoutError::Timeout) => return false,
                    Err(RecvTimeoutError::Disconnected) => self.pending = 0,
                }
            }
        }
    }

    /// Waits until there is something to do; for ever if there is nothing.
    pub(super) async fn wait(&mut self) {
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

    /// Deletes some of what was found. Whether every client is forgotten now that should be.
    pub(super) fn step(&mut self, kernel: &mut Kernel) -> bool {
        if let Some(commit) = self.deletes.pop_front() {
            self.delete(commit, kernel);
        }
        self.look_again();
        self.is_done()
    }

    /// Deletes these, in one transaction. Where that deletes none of them if one has timed out, each half
    /// is tried by itself next, down to the one.
    fn delete(&mut self, mut commit: Commit, kernel: &mut Kernel) {
        match kernel.forget_clients(&commit) {
            Ok(true) => {}
            Ok(false) => {
                if let Some(others) = commit.split() {
                    self.deletes.push_front(others);
                    self.deletes.push_front(commit);
                }
            }
            Err(error) => {
                warn!(%error, "cannot forget the clients of endpoints that are gone");
            }
        }
    }

    fn is_done(&self) -> bool {
        self.pending == 0 && self.deletes.is_empty()
    }

    /// Once everything that was found is deleted, what was to be looked for again.
    fn look_again(&mut self) {
        if self.deletes.is_empty() {
            for job in std::mem::take(&mut self.again) {
                self.look_for(job);
            }
        }
    }

    fn look_for(&mut self, job: Job) {
        if self.jobs.send(job).is_ok() {
            self.pending += 1;
        } else {
            warn!(
                "the thread that looks for clients has ended: they stay with endpoints that are gone"
            );
        }
    }

    fn take(&mut self, looked: Looked) {
        self.pending -= looked.jobs.len();
        self.deletes.extend(looked.deletes);
        let jobs = looked.jobs.into_iter();
        self.again.extend(jobs.filter(|job| job.looks < LOOKS));
        self.look_again();
    }
}

/// All that waits to be looked for; `None`: nobody asks any more.
fn gather<T>(waiting: &Receiver<T>) -> Option<Vec<T>> {
    let first = waiting.recv().ok()?;
    Some([first].into_iter().chain(waiting.try_iter()).collect())
}

fn look<A: Address>(kernel: &mut Kernel, stale: &[&Stale<A>]) -> Vec<Commit>
where
    Part<A>: Into<Commit>,
{
    let look = |protocol| match kernel.clients::<A>(protocol) {
        Ok(clients) => deletes(protocol, clients, stale),
        Err(error) => {
            warn!(%error, "cannot look for the clients of endpoints that are gone");
            Vec::new()
        }
    };
    let protocols: BTreeSet<_> = stale.iter().flat_map(|stale| stale.protocols()).collect();
    protocols.into_iter().flat_map(look).collect()
}

fn deletes<A: Address>(
    protocol: Protocol,
    mut clients: Vec<Client<A>>,
    stale: &[&Stale<A>],
) -> Vec<Commit>
where
    Part<A>: Into<Commit>,
{
    clients.retain(|(key, value)| stale.iter().any(|stale| stale.covers(protocol, key, value)));
    if !clients.is_empty() {
        debug!(%protocol, clients = clients.len(), "forgetting the clients of endpoints that are gone");
    }
    let parts = clients.chunks(CLIENTS);
    let parts = parts.map(|clients| Part::forget(protocol, clients.iter().map(|(key, _)| *key)));
    parts.map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
