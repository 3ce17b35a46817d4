//! The search for clients that must be unpinned, on a thread of its own.
//!
//! nf_tables returns a set in pages, and walks the set from its beginning for each page. A dump of
//! an affinity map therefore takes quadratic time (`nf_tables_dump_set`): 0.3 s for 100,000
//! clients, half a minute for a million. The sync loop does not wait for that, and the thread
//! searches for all pending jobs together.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{debug, warn};

use super::changes::ClientsToUnpin;
use crate::logging::LogEvent;
use crate::netlink::{Commit, FamilyCommit, Kernel, PinnedClient};
use crate::planner::diff::TimeLeft;
use crate::planner::dual::Dual;
use crate::planner::model::{Address, Protocol};

/// The number of clients that one transaction deletes, which takes some 5 ms.
const CLIENTS_PER_COMMIT: usize = 5_000;

/// The longest time that a packet may need from the lookup of a timeout to the renewal of its
/// element.
const PACKET_DELAY: Duration = Duration::from_millis(200);

/// When clients are unpinned, relative to the commit that removes their endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::sync) enum ReapPhase {
    /// Before the commit.
    BeforeCommit,
    /// After the commit.
    AfterCommit,
}

/// The clients that one search looks for.
pub(super) struct ReapJob {
    pub(super) clients: Dual<ClientsToUnpin<Ipv4Addr>, ClientsToUnpin<Ipv6Addr>>,
    pub(super) phase: ReapPhase,
    /// When the job was submitted.
    pub(super) submitted: Instant,
}

/// The result of a search.
pub(super) struct FoundClients {
    /// The number of jobs that the search was for.
    pub(super) jobs: usize,
    /// The transactions that unpin the clients.
    pub(super) deletes: Vec<Commit>,
    pub(super) took: Duration,
    /// Whether a map could not be read.
    pub(super) failed: bool,
}

/// Searches for the clients of each job, until the sender of jobs is gone.
pub(super) fn run(
    mut kernel: Kernel,
    jobs: &Receiver<ReapJob>,
    results: &Sender<FoundClients>,
    finished: &Notify,
) {
    while let Some(jobs) = next_jobs(jobs) {
        if results.send(search(&mut kernel, &jobs)).is_err() {
            return;
        }
        finished.notify_one();
    }
}

/// Waits for a job, and returns it with all others that are pending; `None` if the sender is gone.
fn next_jobs<T>(jobs: &Receiver<T>) -> Option<Vec<T>> {
    let first = jobs.recv().ok()?;
    Some([first].into_iter().chain(jobs.try_iter()).collect())
}

/// The clients of one family to search for, and when their timeouts changed; `None` if these do not
/// change before the commit.
type ReapRequest<'a, A> = (&'a ClientsToUnpin<A>, Option<Instant>);

impl ReapJob {
    fn request<'a, A: Address>(&self, clients: &'a ClientsToUnpin<A>) -> ReapRequest<'a, A> {
        let changed = (self.phase == ReapPhase::AfterCommit).then_some(self.submitted);
        (clients, changed)
    }
}

fn search(kernel: &mut Kernel, jobs: &[ReapJob]) -> FoundClients {
    let started = Instant::now();
    let ipv4: Vec<_> = jobs
        .iter()
        .map(|job| job.request(&job.clients.ipv4))
        .collect();
    let ipv6: Vec<_> = jobs
        .iter()
        .filter_map(|job| Some(job.request(job.clients.ipv6.as_ref()?)))
        .collect();
    let mut results = search_family(kernel, &ipv4);
    results.extend(search_family(kernel, &ipv6));
    FoundClients {
        jobs: jobs.len(),
        failed: results.iter().any(Result::is_err),
        deletes: results.into_iter().flatten().flatten().collect(),
        took: started.elapsed(),
    }
}

/// Returns the transactions that unpin the clients of each protocol, or that its map is unreadable.
fn search_family<A: Address>(
    kernel: &mut Kernel,
    requests: &[ReapRequest<'_, A>],
) -> Vec<Result<Vec<Commit>, ()>>
where
    FamilyCommit<A>: Into<Commit>,
{
    let protocols: BTreeSet<_> = requests
        .iter()
        .flat_map(|(clients, _)| clients.protocols())
        .collect();
    protocols
        .into_iter()
        .map(|protocol| match kernel.pinned_clients::<A>(protocol) {
            Ok(pinned) => Ok(deletes(protocol, pinned, requests)),
            Err(error) => {
                warn!(event = %LogEvent::AffinityCleanupFailed, %error, "cannot find clients of endpoints that are gone; retrying");
                Err(())
            }
        })
        .collect()
}

fn deletes<A: Address>(
    protocol: Protocol,
    pinned: Vec<PinnedClient<A>>,
    requests: &[ReapRequest<'_, A>],
) -> Vec<Commit>
where
    FamilyCommit<A>: Into<Commit>,
{
    let changed: Vec<_> = pinned
        .into_iter()
        .filter_map(|client| {
            let left = new_time_left(protocol, &client, requests)?;
            Some((client, left))
        })
        .collect();
    if !changed.is_empty() {
        debug!(event = %LogEvent::AffinityCleanup, %protocol, clients = changed.len(), "unpinning clients, or changing their timeout");
    }
    changed
        .chunks(CLIENTS_PER_COMMIT)
        .map(|clients| FamilyCommit::forget(protocol, clients).into())
        .collect()
}

/// Returns the new time left of a client that must be unpinned or has another timeout now; `None`
/// if it does not change.
fn new_time_left<A: Address>(
    protocol: Protocol,
    client: &PinnedClient<A>,
    requests: &[ReapRequest<'_, A>],
) -> Option<TimeLeft> {
    let PinnedClient {
        key,
        endpoint,
        time,
    } = client;
    if requests
        .iter()
        .any(|(clients, _)| clients.covers(protocol, key, endpoint))
    {
        return Some(TimeLeft::Nothing);
    }
    // The last job has the current timeout.
    requests.iter().rev().find_map(|(clients, changed)| {
        let since = changed.as_ref()?.elapsed() + PACKET_DELAY;
        clients.new_time_left(protocol, key, (*time)?, since)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn pending_jobs_are_searched_for_together() {
        let (sender, jobs) = channel();
        for job in 1..=3 {
            sender.send(job).unwrap();
        }
        assert_eq!(next_jobs(&jobs), Some(vec![1, 2, 3]));
        sender.send(4).unwrap();
        drop(sender);
        assert_eq!(next_jobs(&jobs), Some(vec![4]));
        assert_eq!(next_jobs(&jobs), None);
    }
}
