//! When to look whether the tables are still ours.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::logging::LogEvent;
use crate::netlink::{Commit, ForeignChange, Kernel, TableMonitor};

/// Commits of more operations than this, and those of a whole program, are not listened to.
const MANY: usize = 1_000;

/// How long the second repair in a row waits; doubled each time up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// After so much time without a foreign change the next is repaired at once again.
const CALM: Duration = Duration::from_secs(10);

/// Foreign changes of our tables, and how we answer them.
pub(super) struct DriftMonitor {
    notices: TableMonitor,
    /// Whether nobody else can change our tables: then there is nothing to hear.
    alone: bool,
    /// The number of the kernel's ruleset before a commit that is not listened to.
    generation: Option<u32>,
    /// Whether others may have changed something while nobody listened.
    suspect: bool,
    last: Option<Instant>,
    pause: Duration,
    /// Who changed something that is not repaired yet.
    by: Option<ForeignChange>,
}

impl DriftMonitor {
    /// For tables that are ours alone, or that others may change.
    pub(super) fn new(notices: TableMonitor, alone: bool) -> Self {
        Self {
            notices,
            alone,
            generation: None,
            suspect: false,
            last: None,
            pause: Duration::ZERO,
            by: None,
        }
    }

    /// Begins to listen, where there may be something to hear.
    pub(super) fn listen(&mut self) {
        if self.alone {
            return;
        }
        if let Err(error) = self.notices.open() {
            warn!(event = %LogEvent::DriftUnobserved, %error, "cannot subscribe to nftables notifications; drift goes unnoticed until a transaction fails");
        }
    }

    /// Waits until others changed our tables; how long to wait until they are repaired. Who fights
    /// back waits longer each time, so that the node is not kept busy with it.
    pub(super) async fn wait(&mut self) -> Duration {
        let foreign = self.notices.foreign_change().await;
        self.answer(foreign)
    }

    fn answer(&mut self, foreign: ForeignChange) -> Duration {
        let now = Instant::now();
        let calm = self
            .last
            .is_none_or(|last| now.duration_since(last) > CALM + self.pause);
        self.pause = if calm {
            Duration::ZERO
        } else {
            (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE)
        };
        self.last = Some(now);
        self.by.get_or_insert(foreign);
        self.pause
    }

    /// Before a commit.
    pub(super) fn pause_notifications(&mut self, kernel: &mut Kernel, commit: &Commit) {
        let much = commit.len() > MANY || commit.rebuilds();
        if much && self.notices.is_open() {
            self.generation = kernel.generation().ok();
            self.notices.close();
        }
    }

    /// After a commit.
    pub(super) fn resume_notifications(&mut self, kernel: &mut Kernel) {
        if self.notices.is_open() {
            return;
        }
        self.listen();
        let expected = self.generation.take().map(|before| before.wrapping_add(1));
        let now = kernel.generation().ok();
        self.suspect |= expected.is_some() && now != expected;
    }

    /// Whether to look because of what may have happened unheard, once.
    pub(super) fn needs_audit(&mut self) -> bool {
        std::mem::take(&mut self.suspect)
    }

    /// Takes in that the tables were read and are as they should be, after so many operations.
    /// Whether there was anything to repair.
    pub(super) fn repaired(&mut self, operations: usize) -> bool {
        let Some(by) = self.by.take() else {
            return false;
        };
        let by = by.process.unwrap_or_else(|| "unknown".to_owned());
        if operations == 0 {
            debug!(
                event = %LogEvent::DriftNotFound,
                by,
                "another process wrote to the tables; no drift"
            );
        } else {
            warn!(
                event = %LogEvent::DriftRepaired,
                by,
                operations,
                "another process changed the tables; repaired"
            );
        }
        operations > 0
    }
}
