//! Forgets the clients of endpoints that are gone, on a thread of its own.
//!
//! nf_tables gives out a set in pages and walks it from its beginning for each, so a dump of a map
//! costs the square of the clients in it (`nf_tables_dump_set`): 0.3 s for 100,000, half a minute
//! for a million. Nothing else is to wait for that.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{debug, warn};

use super::family::Stale;
use crate::model::Address;
use crate::netlink::{Commit, Kernel, Part};

/// How long a sync waits for it: the usual map is small.
const PATIENCE: Duration = Duration::from_millis(20);

struct Job {
    ipv4: Stale<Ipv4Addr>,
    ipv6: Option<Stale<Ipv6Addr>>,
}

/// The thread, as the crank sees it.
pub(super) struct Forgetter {
    jobs: Sender<Job>,
    done: Receiver<()>,
    /// Told after each job that is done.
    told: Arc<Notify>,
    pending: usize,
}

impl Forgetter {
    /// Starts the thread, which ends with this value, but for a job that it is at.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(mut kernel: Kernel) -> io::Result<Self> {
        let (jobs, received) = channel::<Job>();
        let (finished, done) = channel();
        let told = Arc::new(Notify::new());
        let teller = Arc::clone(&told);
        let work = move || {
            for job in received {
                forget(&mut kernel, &job.ipv4);
                if let Some(ipv6) = &job.ipv6 {
                    forget(&mut kernel, ipv6);
                }
                if finished.send(()).is_err() {
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
            done,
            told,
            pending: 0,
        })
    }

    /// Has these clients forgotten. `false` if that is not done yet: wait for [`Self::is_done`].
    pub(super) fn forget(&mut self, ipv4: Stale<Ipv4Addr>, ipv6: Option<Stale<Ipv6Addr>>) -> bool {
        let none = ipv6
            .as_ref()
            .is_none_or(|stale| stale.protocols().is_empty());
        if none && ipv4.protocols().is_empty() {
            return self.pending == 0;
        }
        if self.jobs.send(Job { ipv4, ipv6 }).is_err() {
            warn!(
                "the thread that forgets clients has ended: they stay with endpoints that are gone"
            );
            return true;
        }
        self.pending += 1;
        self.take_done(PATIENCE)
    }

    /// Waits until every client is forgotten that should be; for ever if there is none.
    pub(super) async fn is_done(&mut self) {
        loop {
            self.told.notified().await;
            if self.pending > 0 && self.take_done(Duration::ZERO) {
                return;
            }
        }
    }

    fn take_done(&mut self, patience: Duration) -> bool {
        while self.pending > 0 {
            match self.done.recv_timeout(patience) {
                Ok(()) => self.pending -= 1,
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => self.pending = 0,
            }
        }
        true
    }
}

/// Twice: a packet that drew a gone endpoint before the commit may have been remembered after the
/// first look.
fn forget<A: Address>(kernel: &mut Kernel, stale: &Stale<A>)
where
    Part<A>: Into<Commit>,
{
    for protocol in stale.protocols() {
        for _ in 0..2 {
            let covers = |key: &_, value: &_| stale.covers(protocol, key, value);
            match kernel.forget_clients::<A>(protocol, covers) {
                Ok(clients) => {
                    debug!(%protocol, clients, "forgot the clients of endpoints that are gone");
                }
                Err(error) => warn!(%error, "cannot forget the clients of endpoints that are gone"),
            }
        }
    }
}
