//! The pauses of a reader, with jitter, since every node sees an API server fail at the same time.

use std::time::Duration;

use backon::ExponentialBuilder;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::ExponentialBackoff;

use super::WatchTimeouts;

/// The longest pause after a failure, without jitter.
const LONGEST: Duration = Duration::from_secs(30);

/// The first pause while a kind is unavailable; each later one is twice as long, up to
/// [`WatchTimeouts::unavailable`].
const FIRST_UNAVAILABLE: Duration = Duration::from_secs(2);

/// The pauses of one reader.
pub(super) struct Pauses {
    /// The pauses after failures; they start over after two minutes without one.
    failures: ResetTimerBackoff<ExponentialBackoff>,
    /// The pauses while the kind is unavailable.
    unavailable: ExponentialBackoff,
    /// The longest pause while the kind is unavailable.
    longest_unavailable: Duration,
}

impl Pauses {
    /// Creates the pauses.
    pub(super) fn new(timeouts: &WatchTimeouts) -> Self {
        let failures = exponential(timeouts.first_pause, LONGEST);
        Self {
            failures: ResetTimerBackoff::new(failures, Duration::from_mins(2)),
            unavailable: unavailable(timeouts.unavailable),
            longest_unavailable: timeouts.unavailable,
        }
    }

    /// Returns the next pause after a failure, in addition to `Retry-After`, which gives every node
    /// the same pause.
    pub(super) fn failure(&mut self) -> Duration {
        self.failures.next().unwrap_or(LONGEST)
    }

    /// Starts the pauses after failures over.
    pub(super) fn succeeded(&mut self) {
        self.failures.reset();
    }

    /// Returns the next pause while the kind is unavailable.
    pub(super) fn unavailable(&mut self) -> Duration {
        self.unavailable.next().unwrap_or(self.longest_unavailable)
    }

    /// Starts the pauses while the kind is unavailable over.
    pub(super) fn available(&mut self) {
        self.unavailable = unavailable(self.longest_unavailable);
    }
}

/// Builds pauses that double from `first` to `longest`, each prolonged by up to as much again.
fn exponential(first: Duration, longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .into()
}

/// Builds the pauses while a kind is unavailable.
fn unavailable(longest: Duration) -> ExponentialBackoff {
    exponential(FIRST_UNAVAILABLE.min(longest), longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_rejected_at_one_time_retry_at_different_times() {
        let longest = Duration::from_mins(5);
        let pauses: Vec<Vec<_>> = (0..3)
            .map(|_| unavailable(longest).take(12).collect())
            .collect();
        assert_ne!(pauses[0], pauses[1]);
        assert_ne!(pauses[1], pauses[2]);
        for pauses in pauses {
            assert!((FIRST_UNAVAILABLE..FIRST_UNAVAILABLE * 2).contains(&pauses[0]));
            assert!((longest..longest * 2).contains(&pauses[11]));
        }
    }
}
