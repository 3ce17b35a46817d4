//! The audit after a read-back: elements that the table has although no Service needs them.
//!
//! Only a dump shows them, and its cost is the square of a set's size. Only sets are dumped that have
//! more elements than were found by their keys; large ones on a thread of their own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::sync::Notify;

use super::family::{FamilyState, KnownKeys, key_hash};
use crate::netlink::{Error, Kernel};
use crate::per_family;
use crate::planner::dual::Dual;
use crate::planner::model::Address;
use crate::planner::ruleset::{Element, SetName};

/// The number of dumps of a set that changes while it is dumped, after which the last one counts.
const ATTEMPTS: usize = 3;

/// The sets to dump.
pub(super) struct AuditJob {
    /// The sets of each family.
    pub(super) sets: Dual<Vec<SetName>>,
    /// The keys that the elements of Services had when they were read.
    pub(super) known: Dual<KnownKeys>,
}

/// The elements that a dump shows besides the known ones.
pub(super) struct Unknown<A: Address> {
    pub(super) elements: Vec<Element<A>>,
    /// Whether there are elements that kube-dnat does not make.
    pub(super) has_others: bool,
}

/// The result of an audit.
pub(super) type Audited = Dual<Unknown<Ipv4Addr>, Unknown<Ipv6Addr>>;

impl AuditJob {
    /// Whether there is nothing to dump.
    pub(super) fn is_empty(&self) -> bool {
        per_family!(self.sets.as_ref(), |sets| sets.is_empty()).all()
    }

    /// Dumps the sets.
    pub(super) fn run(self, kernel: &mut Kernel) -> Result<Audited, Error> {
        let Dual { ipv4, ipv6 } = self.sets.zip(self.known);
        let ipv6 = ipv6.map(|(sets, known)| unknown(kernel, &sets, known));
        Ok(Dual {
            ipv4: unknown(kernel, &ipv4.0, ipv4.1)?,
            ipv6: ipv6.transpose()?,
        })
    }
}

fn unknown<A: Address>(
    kernel: &mut Kernel,
    sets: &[SetName],
    mut known: KnownKeys,
) -> Result<Unknown<A>, Error> {
    let mut all = Unknown {
        elements: Vec::new(),
        has_others: false,
    };
    for set in sets {
        let mut keys = known.remove(set).unwrap_or_default();
        keys.sort_unstable();
        let is_known = |key: &_| keys.binary_search(&key_hash(key)).is_ok();
        let mut found = kernel.unknown_elements(*set, is_known)?;
        for _ in 1..ATTEMPTS {
            if found.is_complete {
                break;
            }
            found = kernel.unknown_elements(*set, is_known)?;
        }
        all.elements.append(&mut found.elements);
        all.has_others |= found.has_others;
    }
    Ok(all)
}

/// Returns the sets of a family that may have more elements than are applied, and the number of all
/// their elements.
pub(super) fn sets_to_audit<A: Address>(
    kernel: &mut Kernel,
    family: &FamilyState<A>,
) -> Result<(Vec<SetName>, usize), Error> {
    let applied = family.applied().element_counts();
    let mut sets = Vec::new();
    let mut elements = 0;
    for (set, reported) in kernel.reported_counts::<A>()? {
        let applied = applied.get(&set).copied().unwrap_or(0);
        if set.has_service_keys() && reported != Some(applied) {
            sets.push(set);
            elements += reported.unwrap_or(applied);
        }
    }
    Ok((sets, elements))
}

/// The sync loop's side of the thread that audits large sets.
pub(super) struct Auditor {
    jobs: Sender<AuditJob>,
    results: Receiver<Result<Audited, Error>>,
    /// Notified at the end of each audit.
    finished: Arc<Notify>,
    /// The number of jobs without a result.
    pending: usize,
    /// The number of these whose results are ignored.
    ignored: usize,
    /// The result of the last job.
    result: Option<Result<Audited, Error>>,
}

impl Auditor {
    /// Starts the thread, which exits after the current audit when the auditor is dropped.
    ///
    /// # Errors
    /// If the thread cannot start.
    pub(super) fn start(mut kernel: Kernel) -> io::Result<Self> {
        let (jobs, received_jobs) = channel::<AuditJob>();
        let (sent_results, results) = channel();
        let finished = Arc::new(Notify::new());
        let notify = Arc::clone(&finished);
        let run = move || {
            for job in received_jobs {
                if sent_results.send(job.run(&mut kernel)).is_err() {
                    return;
                }
                notify.notify_one();
            }
        };
        thread::Builder::new().name("audit".to_owned()).spawn(run)?;
        Ok(Self {
            jobs,
            results,
            finished,
            pending: 0,
            ignored: 0,
            result: None,
        })
    }

    /// Starts an audit, whose result replaces that of earlier ones.
    pub(super) fn submit(&mut self, job: AuditJob) {
        self.result = None;
        // The thread never exits before the auditor.
        self.pending += usize::from(self.jobs.send(job).is_ok());
    }

    /// Whether the result of an audit is not concluded.
    pub(super) fn is_pending(&self) -> bool {
        self.pending > self.ignored || self.result.is_some()
    }

    /// Ignores the results of all audits so far, because the tables are read back again.
    pub(super) fn cancel(&mut self) {
        self.result = None;
        self.ignored = self.pending;
    }

    /// Waits for the end of the last audit; forever if none is running.
    pub(super) async fn wait(&mut self) {
        loop {
            self.finished.notified().await;
            while let Ok(result) = self.results.try_recv() {
                self.pending -= 1;
                if self.ignored > 0 {
                    self.ignored -= 1;
                } else {
                    self.result = Some(result);
                }
            }
            if self.pending == 0 && self.result.is_some() {
                return;
            }
        }
    }

    /// Takes the result of the last audit, once all have ended.
    pub(super) fn take(&mut self) -> Option<Result<Audited, Error>> {
        self.result.take_if(|_| self.pending == 0)
    }
}
