//! The pace of conntrack cleanups. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The pause that a cleanup requires, as a multiple of its duration.
///
/// The kernel walks its whole hash table for a cleanup. In the long run, cleanups use at most this
/// share of a CPU.
const PAUSE: u32 = 30;

/// The longest pause that a cleanup requires.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pauses that may still be due when a cleanup of dirty frontends starts, so that each of a few
/// changes in a row is cleaned at once.
const MAX_DEBT: Duration = Duration::from_secs(2);

/// The delay of the first repetition after a cleanup that deleted entries, which doubles each time.
///
/// A reply on its way may have created an entry, which would keep its client at the old endpoint.
const LATE_REPLIES: Duration = Duration::from_millis(50);

/// The largest number of repetitions, since some hosts send such packets unasked.
const MAX_REPETITIONS: u32 = 6;

/// The state from which the time of the next cleanup follows.
#[derive(Debug, Default)]
pub(super) struct CleanupPace {
    /// When the pauses of all past cleanups are over.
    paused_until: Option<Instant>,
    /// Whether there are dirty frontends without a cleanup.
    has_new: bool,
    /// When the last cleanup is repeated.
    repeats_at: Option<Instant>,
    /// The number of repetitions since frontends were added.
    repetitions: u32,
}

/// Whether a cleanup must be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repetition {
    /// The same entries may exist later.
    Needed,
    /// The targets of the cleanup are done.
    NotNeeded,
}

impl CleanupPace {
    /// Records that there are new dirty frontends, which the next cleanup is for.
    pub(super) fn add_frontends(&mut self) {
        self.has_new = true;
    }

    /// Makes a pending repetition due now.
    pub(super) fn repeat_now(&mut self, now: Instant) {
        if self.repeats_at.is_some() {
            self.repeats_at = Some(now);
        }
    }

    /// Returns when the next cleanup is due; `None` if there is nothing to clean.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let paused_until = self.paused_until.unwrap_or(now);
        if self.has_new {
            let debt = paused_until.saturating_duration_since(now);
            return Some(now + debt.saturating_sub(MAX_DEBT));
        }
        self.repeats_at.map(|at| at.max(paused_until).max(now))
    }

    /// Records a cleanup; returns whether it must be repeated.
    ///
    /// It must if it deleted entries, if it was early, or if an earlier repetition is not due yet.
    pub(super) fn record(&mut self, cleanup: CleanupRun) -> Repetition {
        let CleanupRun {
            started,
            ended,
            has_deleted,
            is_early,
        } = cleanup;
        let took = ended.saturating_duration_since(started);
        let paused_until = self.paused_until.map_or(ended, |until| until.max(ended));
        self.paused_until = Some(paused_until + (took * PAUSE).min(LONGEST_PAUSE));
        let was_new = std::mem::take(&mut self.has_new);
        let due_later = self.repeats_at.filter(|at| *at > started);
        if !has_deleted && !is_early && due_later.is_some() {
            return Repetition::Needed;
        }
        self.repetitions = if was_new { 0 } else { self.repetitions + 1 };
        if (has_deleted || is_early) && self.repetitions < MAX_REPETITIONS {
            let delay = LATE_REPLIES * 2u32.saturating_pow(self.repetitions);
            self.repeats_at = Some(ended + delay);
            Repetition::Needed
        } else {
            self.repeats_at = None;
            Repetition::NotNeeded
        }
    }
}

/// A cleanup of conntrack.
#[derive(Clone, Copy, Debug)]
pub(super) struct CleanupRun {
    pub(super) started: Instant,
    pub(super) ended: Instant,
    /// Whether it deleted entries.
    pub(super) has_deleted: bool,
    /// Whether pinned clients may recreate entries after it.
    pub(super) is_early: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: Duration = Duration::from_millis(9);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn cleanup(started: Instant, took: Duration, has_deleted: bool) -> CleanupRun {
        CleanupRun {
            started,
            ended: started + took,
            has_deleted,
            is_early: false,
        }
    }

    #[test]
    fn the_first_change_after_a_quiet_time_is_cleaned_at_once() {
        let start = Instant::now();
        let mut pace = CleanupPace::default();
        assert_eq!(pace.next(start), None);
        pace.add_frontends();
        assert_eq!(pace.next(start), Some(start));
        assert_eq!(pace.record(cleanup(start, D, false)), Repetition::NotNeeded);
        assert_eq!(pace.next(start + D), None);
        let later = start + ms(500);
        pace.add_frontends();
        assert_eq!(pace.next(later), Some(later));
    }

    #[test]
    fn endless_changes_cost_a_thirtieth_of_a_cpu() {
        let start = Instant::now();
        let (mut pace, mut now, mut spent) = (CleanupPace::default(), start, Duration::ZERO);
        let mut longest = Duration::ZERO;
        // One change each millisecond, and each cleanup deletes entries.
        for _ in 0..10_000 {
            pace.add_frontends();
            let waits = pace.next(now).unwrap() - now;
            longest = longest.max(waits);
            if waits.is_zero() {
                pace.record(cleanup(now, D, true));
                now += D;
                spent += D;
            }
            now += ms(1);
        }
        let elapsed = now.duration_since(start);
        assert!(
            spent * PAUSE <= elapsed + MAX_DEBT + D * PAUSE,
            "{spent:?} of {elapsed:?}"
        );
        assert!(longest <= D * PAUSE, "{longest:?}");
    }

    #[test]
    fn a_few_changes_in_a_row_are_cleaned_at_once_and_none_waits_longer_than_a_second() {
        let mut now = Instant::now();
        let mut pace = CleanupPace::default();
        let waits = [(); 5].map(|()| {
            pace.add_frontends();
            let next = pace.next(now).unwrap();
            let waits = next - now;
            pace.record(cleanup(next, ms(40), false));
            now = next + ms(40);
            waits
        });
        assert_eq!(waits.map(|waits| waits.as_millis()), [0, 0, 0, 920, 960]);
    }

    #[test]
    fn a_repetition_waits_for_the_later_of_its_time_and_the_pause() {
        let mut now = Instant::now();
        let mut pace = CleanupPace::default();
        pace.add_frontends();
        let mut waits = Vec::new();
        while let Some(next) = pace.next(now) {
            waits.push(next.duration_since(now).as_millis());
            pace.record(cleanup(next, D, true));
            now = next + D;
        }
        assert_eq!(waits, [0, 270, 270, 270, 400, 800, 1600]);
    }

    #[test]
    fn new_frontends_do_not_wait_for_a_repetition() {
        let short = ms(1);
        let mut now = Instant::now();
        let mut pace = CleanupPace::default();
        pace.add_frontends();
        for _ in 0..5 {
            now = pace.next(now).unwrap();
            pace.record(cleanup(now, short, true));
            now += short;
        }
        let repeats = now + ms(800);
        assert_eq!(pace.next(now), Some(repeats));
        pace.add_frontends();
        now += ms(30);
        assert_eq!(pace.next(now), Some(now));
        // It deletes nothing, and the repetition is still due.
        assert_eq!(pace.record(cleanup(now, short, false)), Repetition::Needed);
        assert_eq!(pace.next(now + short), Some(repeats));
        // It deletes entries, and the repetitions start over.
        pace.add_frontends();
        now += ms(31);
        assert_eq!(pace.record(cleanup(now, short, true)), Repetition::Needed);
        assert_eq!(pace.next(now + short), Some(now + short + LATE_REPLIES));
    }

    #[test]
    fn once_all_clients_are_unpinned_only_the_pause_delays_a_repetition() {
        let start = Instant::now();
        let mut pace = CleanupPace::default();
        pace.repeat_now(start);
        assert_eq!(pace.next(start), None);
        pace.add_frontends();
        let is_early = true;
        let first = CleanupRun {
            is_early,
            ..cleanup(start, ms(1), false)
        };
        assert_eq!(pace.record(first), Repetition::Needed);
        assert_eq!(pace.next(start + ms(1)), Some(start + ms(51)));
        pace.repeat_now(start + ms(1));
        assert_eq!(pace.next(start + ms(1)), Some(start + ms(31)));
    }
}
