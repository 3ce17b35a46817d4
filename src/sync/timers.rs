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
    pub(super) conntrack: Timer,
    pub(super) full_maps: Timer,
    pub(super) forget: Timer,
}

/// How long after a failure the next attempt is made at first.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// When to try again what failed.
pub(super) struct Retry {
    /// How long the next pause is.
    pub(super) pause: Duration,
    /// Whether nothing could be committed: then nothing else is tried meanwhile.
    pub(super) failing: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            pause: FIRST_RETRY,
            failing: false,
        }
    }
}

impl Retry {
    /// After a first failure.
    pub(super) fn failing() -> Self {
        Self {
            failing: true,
            ..Self::default()
        }
    }

    /// Doubles the pause, up to the last.
    pub(super) fn longer(&mut self, last: Duration) {
        self.pause = (self.pause * 2).min(last);
    }
}

/// A point in time to wait for, or none.
#[derive(Default)]
pub(super) struct Timer {
    at: Option<Instant>,
}

impl Timer {
    /// One that ends then.
    pub(super) fn at(at: Option<Instant>) -> Self {
        Self { at }
    }

    /// Starts it, unless it is running. `false` if it was.
    pub(super) fn start(&mut self, after: Duration) -> bool {
        let starts = self.at.is_none();
        self.at.get_or_insert_with(|| Instant::now() + after);
        starts
    }

    /// Whether it is to be waited for.
    pub(super) fn is_running(&self) -> bool {
        self.at.is_some()
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
