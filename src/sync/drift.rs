//! Drift: changes of our tables by other processes, and when the sync loop repairs them.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::logging::LogEvent;
use crate::netlink::{Commit, ForeignChange, Kernel, TableMonitor};

/// The largest number of operations of a commit whose notifications are received. Those of a
/// rebuild are not received either.
const MAX_NOTIFIED: usize = 1_000;

/// The delay of the second repair in a row, which doubles for each further one.
const FIRST_DELAY: Duration = Duration::from_millis(500);

/// The longest delay of a repair.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The time without a foreign change after which the next repair has no delay again.
const CALM: Duration = Duration::from_secs(10);

/// The monitor of foreign changes of our tables.
pub(super) struct DriftMonitor {
    monitor: TableMonitor,
    /// Whether only this process can change our tables, so that there is nothing to monitor.
    owns_tables: bool,
    /// The generation of the ruleset before a commit whose notifications are not received.
    generation: Option<u32>,
    /// Whether a foreign change may have happened while the monitor was paused.
    needs_audit: bool,
    last_change: Option<Instant>,
    delay: Duration,
    /// The first foreign change that is not repaired yet.
    unrepaired: Option<ForeignChange>,
}

/// Whether tables that were read back differed from the applied state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    /// A foreign change was repaired.
    Repaired,
    /// No foreign change was found.
    NotFound,
}

impl DriftMonitor {
    /// Creates a monitor that receives nothing yet.
    pub(super) fn new(monitor: TableMonitor, owns_tables: bool) -> Self {
        Self {
            monitor,
            owns_tables,
            generation: None,
            needs_audit: false,
            last_change: None,
            delay: Duration::ZERO,
            unrepaired: None,
        }
    }

    /// Subscribes to the notifications of nf_tables, unless only this process can change our
    /// tables.
    pub(super) fn listen(&mut self) {
        if self.owns_tables {
            return;
        }
        if let Err(error) = self.monitor.open() {
            warn!(event = %LogEvent::DriftUnobserved, %error, "cannot subscribe to nftables notifications; drift goes unnoticed until a transaction fails");
        }
    }

    /// Waits for a foreign change of our tables; returns the delay of its repair.
    ///
    /// The delay grows while another process keeps changing the tables, to limit the load.
    pub(super) async fn wait(&mut self) -> Duration {
        let change = self.monitor.foreign_change().await;
        self.repair_delay(change)
    }

    fn repair_delay(&mut self, change: ForeignChange) -> Duration {
        let now = Instant::now();
        let calm = self
            .last_change
            .is_none_or(|last| now.duration_since(last) > CALM + self.delay);
        self.delay = if calm {
            Duration::ZERO
        } else {
            (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY)
        };
        self.last_change = Some(now);
        self.unrepaired.get_or_insert(change);
        self.delay
    }

    /// Pauses the notifications before a large commit.
    pub(super) fn pause_notifications(&mut self, kernel: &mut Kernel, commit: &Commit) {
        let is_large = commit.len() > MAX_NOTIFIED || commit.rebuilds();
        if is_large && self.monitor.is_open() {
            self.generation = kernel.generation().ok();
            self.monitor.close();
        }
    }

    /// Resumes the notifications after a commit.
    pub(super) fn resume_notifications(&mut self, kernel: &mut Kernel) {
        if self.monitor.is_open() {
            return;
        }
        self.listen();
        let expected = self.generation.take().map(|before| before.wrapping_add(1));
        let generation = kernel.generation().ok();
        self.needs_audit |= expected.is_some() && generation != expected;
    }

    /// Requests that the tables are read back.
    pub(super) fn request_audit(&mut self) {
        self.needs_audit = true;
    }

    /// Whether the tables must be read back, since a notification may be missed. Returns it once.
    pub(super) fn needs_audit(&mut self) -> bool {
        std::mem::take(&mut self.needs_audit)
    }

    /// Logs the end of a repair, which took a number of operations.
    pub(super) fn conclude_repair(&mut self, operations: usize) -> Drift {
        let Some(change) = self.unrepaired.take() else {
            return Drift::NotFound;
        };
        let by = change.process.unwrap_or_else(|| "unknown".to_owned());
        if operations == 0 {
            debug!(
                event = %LogEvent::DriftNotFound,
                by,
                "another process wrote to the tables; no drift"
            );
            return Drift::NotFound;
        }
        warn!(
            event = %LogEvent::DriftRepaired,
            by,
            operations,
            "another process changed the tables; repaired"
        );
        Drift::Repaired
    }
}
