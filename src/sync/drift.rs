//! Drift: changes of our tables by other processes, and when the sync loop repairs them.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::logging::LogEvent;
use crate::netlink::{Commit, Error, ForeignChange, Kernel, TableMonitor};

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
    /// Whether the tables must be read back again.
    needs_audit: bool,
    /// The delay of the repair of a change that may have happened while the monitor was paused.
    unobserved: Option<Duration>,
    pace: RepairPace,
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

/// The pace of repairs: their delay grows while another process keeps changing the tables, to limit
/// the load. Pure.
#[derive(Debug, Default)]
struct RepairPace {
    last_change: Option<Instant>,
    delay: Duration,
}

impl RepairPace {
    /// Records a foreign change; returns the delay of its repair.
    fn change(&mut self, now: Instant) -> Duration {
        let calm = self
            .last_change
            .is_none_or(|last| now.duration_since(last) > CALM + self.delay);
        self.delay = if calm {
            Duration::ZERO
        } else {
            (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY)
        };
        self.last_change = Some(now);
        self.delay
    }
}

impl DriftMonitor {
    /// Creates a monitor that receives nothing yet.
    pub(super) fn new(monitor: TableMonitor, owns_tables: bool) -> Self {
        Self {
            monitor,
            owns_tables,
            generation: None,
            needs_audit: false,
            unobserved: None,
            pace: RepairPace::default(),
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
    pub(super) async fn wait(&mut self) -> Duration {
        let change = self.monitor.foreign_change().await;
        self.unrepaired.get_or_insert(change);
        self.pace.change(Instant::now())
    }

    /// Pauses the notifications before a large commit.
    pub(super) fn pause_notifications(&mut self, kernel: &mut Kernel, commit: &Commit) {
        let is_large = commit.len() > MAX_NOTIFIED || commit.rebuilds();
        if is_large && self.monitor.is_open() {
            self.generation = kernel.generation().ok();
            self.monitor.close();
        }
    }

    /// Resumes the notifications after a commit with this result.
    pub(super) fn resume_notifications(
        &mut self,
        kernel: &mut Kernel,
        committed: &Result<(), Error>,
    ) {
        if self.monitor.is_open() {
            return;
        }
        self.listen();
        let expected = self.generation.take().map(|before| match committed {
            Ok(()) => before.wrapping_add(1),
            Err(_) => before,
        });
        if expected.is_some() && kernel.generation().ok() != expected {
            self.unobserved = Some(self.pace.change(Instant::now()));
        }
    }

    /// Requests that the tables are read back.
    pub(super) fn request_audit(&mut self) {
        self.needs_audit = true;
    }

    /// Returns the delay after which the tables must be read back, since a notification may be
    /// missed. Returns it once.
    pub(super) fn take_audit(&mut self) -> Option<Duration> {
        let requested = std::mem::take(&mut self.needs_audit);
        let Some(delay) = self.unobserved.take() else {
            return requested.then_some(Duration::ZERO);
        };
        self.unrepaired
            .get_or_insert(ForeignChange { process: None });
        Some(delay)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor() -> DriftMonitor {
        DriftMonitor::new(TableMonitor::new(1), false)
    }

    #[test]
    fn the_delay_of_repairs_grows_until_the_tables_are_calm() {
        let mut pace = RepairPace::default();
        let mut now = Instant::now();
        for seconds in [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            assert_eq!(pace.change(now), Duration::from_secs_f64(seconds));
            now += Duration::from_secs_f64(seconds);
        }
        now += CALM;
        assert_eq!(pace.change(now), LONGEST_DELAY);
        now += CALM + LONGEST_DELAY + Duration::from_millis(1);
        assert_eq!(pace.change(now), Duration::ZERO);
    }

    #[test]
    fn an_audit_for_an_unobserved_change_has_the_delay_of_a_repair() {
        let mut drift = monitor();
        drift.request_audit();
        assert_eq!(drift.take_audit(), Some(Duration::ZERO));
        assert_eq!(drift.take_audit(), None);
        assert_eq!(drift.conclude_repair(1), Drift::NotFound);

        drift.unobserved = Some(FIRST_DELAY);
        drift.request_audit();
        // The commit that paused the notifications is not the repair.
        assert_eq!(drift.conclude_repair(1), Drift::NotFound);
        assert_eq!(drift.take_audit(), Some(FIRST_DELAY));
        assert_eq!(drift.take_audit(), None);
        assert_eq!(drift.conclude_repair(1), Drift::Repaired);
    }
}
