//! What the crank waits for.

use std::time::Duration;

use tokio::time::Instant;

/// What the crank waits for besides events.
#[derive(Default)]
pub(super) struct Timers {
    pub(super) retry: Timer,
    pub(super) next_turn: Timer,
    pub(super) repair: Timer,
    pub(super) unused_chains: Timer,
    pub(super) late_answers: Timer,
    pub(super) full_maps: Timer,
}

/// A point in time to wait for, or none.
#[derive(Default)]
pub(super) struct Timer {
    at: Option<Instant>,
}

impl Timer {
    /// Starts it, unless it is running. `false` if it was.
    pub(super) fn start(&mut self, after: Duration) -> bool {
        let starts = self.at.is_none();
        self.at.get_or_insert_with(|| Instant::now() + after);
        starts
    }

    /// Waits for it, and stops it. For ever if it is not running.
    pub(super) async fn wait(&mut self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.at = None;
    }
}
