//! When conntrack is looked through. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How much longer than a look the pause is that it owes: the kernel walks its whole hash for a look, and
/// in the long run this share of a CPU is spent on looks at most.
const PAUSE: u32 = 30;

/// The longest pause that a look owes.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How much of a pause may be owed when a look begins for what was touched: a few changes in a row are
/// each looked for at once.
const OWED: Duration = Duration::from_secs(2);

/// How long after a look that deleted entries the next one begins: an answer that was on its way may
/// have made an entry of its own, which would keep its client where it was. Doubled each time.
const LATE_ANSWERS: Duration = Duration::from_millis(50);

/// How often it is looked for late answers at most: some hosts send from such an address unasked.
const REPETITIONS: u32 = 6;

/// When the next look begins, and why.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all pauses are over that past looks owe.
    owes_until: Option<Instant>,
    /// Frontends were touched that no look was for yet.
    has_new: bool,
    /// When to look once more for what was looked for already.
    repeats_at: Option<Instant>,
    /// How often that was done since frontends were touched.
    repetitions: u32,
}

impl Pace {
    /// Frontends were touched: the next look is for them, as soon as the pace allows one.
    pub(super) fn touched(&mut self) {
        self.has_new = true;
    }

    /// What was looked for already may be found again from now on.
    pub(super) fn repeat_now(&mut self, now: Instant) {
        if self.repeats_at.is_some() {
            self.repeats_at = Some(now);
        }
    }

    /// When the next look is to begin; `None`: there is nothing to look for.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let owes_until = self.owes_until.unwrap_or(now);
        if self.has_new {
            let owes = owes_until.saturating_duration_since(now);
            return Some(now + owes.saturating_sub(OWED));
        }
        self.repeats_at.map(|at| at.max(owes_until).max(now))
    }

    /// Takes in a look. Returns whether what it looked for is to be looked for once more: it found
    /// something, or may do so later (`is_early`), or came before a repetition was due.
    pub(super) fn looked(&mut self, look: Look) -> bool {
        let Look {
            began,
            ended,
            found,
            is_early,
        } = look;
        let took = ended.saturating_duration_since(began);
        let owes_until = self.owes_until.map_or(ended, |until| until.max(ended));
        self.owes_until = Some(owes_until + (took * PAUSE).min(LONGEST_PAUSE));
        let was_new = std::mem::take(&mut self.has_new);
        let due_later = self.repeats_at.filter(|at| *at > began);
        if !found && !is_early && due_later.is_some() {
            return true;
        }
        self.repetitions = if was_new { 0 } else { self.repetitions + 1 };
        let repeats = (found || is_early) && self.repetitions < REPETITIONS;
        let after = LATE_ANSWERS * 2u32.saturating_pow(self.repetitions);
        self.repeats_at = repeats.then(|| ended + after);
        repeats
    }
}

/// A look through conntrack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// Whether it deleted entries.
    pub(super) found: bool,
    /// Whether entries may be made that it would have deleted.
    pub(super) is_early: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: Duration = Duration::from_millis(9);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn look(began: Instant, took: Duration, found: bool) -> Look {
        Look {
            began,
            ended: began + took,
            found,
            is_early: false,
        }
    }

    #[test]
    fn the_first_change_after_a_quiet_time_is_looked_for_at_once() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.next(start), None);
        pace.touched();
        assert_eq!(pace.next(start), Some(start));
        assert!(!pace.looked(look(start, D, false)));
        assert_eq!(pace.next(start + D), None);
        let later = start + ms(500);
        pace.touched();
        assert_eq!(pace.next(later), Some(later));
    }

    #[test]
    fn endless_changes_cost_a_thirtieth_of_a_cpu() {
        let start = Instant::now();
        let (mut pace, mut now, mut spent) = (Pace::default(), start, Duration::ZERO);
        let mut longest = Duration::ZERO;
        // One change each millisecond, each of which deletes entries.
        for _ in 0..10_000 {
            pace.touched();
            let waits = pace.next(now).unwrap() - now;
            longest = longest.max(waits);
            if waits.is_zero() {
                pace.looked(look(now, D, true));
                now += D;
                spent += D;
            }
            now += ms(1);
        }
        let elapsed = now.duration_since(start);
        assert!(
            spent * PAUSE <= elapsed + OWED + D * PAUSE,
            "{spent:?} of {elapsed:?}"
        );
        assert!(longest <= D * PAUSE, "{longest:?}");
    }

    #[test]
    fn a_few_changes_in_a_row_are_looked_for_at_once_and_none_waits_for_longer_than_a_second() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        let waits = [(); 5].map(|()| {
            pace.touched();
            let next = pace.next(now).unwrap();
            let waits = next - now;
            pace.looked(look(next, ms(40), false));
            now = next + ms(40);
            waits
        });
        assert_eq!(waits.map(|waits| waits.as_millis()), [0, 0, 0, 920, 960]);
    }

    #[test]
    fn a_repetition_waits_for_the_later_of_its_time_and_the_pause() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        pace.touched();
        let mut waits = Vec::new();
        while let Some(next) = pace.next(now) {
            waits.push(next.duration_since(now).as_millis());
            pace.looked(look(next, D, true));
            now = next + D;
        }
        assert_eq!(waits, [0, 270, 270, 270, 400, 800, 1600]);
    }

    #[test]
    fn what_is_touched_meanwhile_does_not_wait_for_a_repetition() {
        let short = ms(1);
        let mut now = Instant::now();
        let mut pace = Pace::default();
        pace.touched();
        for _ in 0..5 {
            now = pace.next(now).unwrap();
            pace.looked(look(now, short, true));
            now += short;
        }
        let repeats = now + ms(800);
        assert_eq!(pace.next(now), Some(repeats));
        pace.touched();
        now += ms(30);
        assert_eq!(pace.next(now), Some(now));
        // It finds nothing, which says nothing of what is to be looked for later.
        assert!(pace.looked(look(now, short, false)));
        assert_eq!(pace.next(now + short), Some(repeats));
        // It finds something: all is looked for from the beginning.
        pace.touched();
        now += ms(31);
        assert!(pace.looked(look(now, short, true)));
        assert_eq!(pace.next(now + short), Some(now + short + LATE_ANSWERS));
    }

    #[test]
    fn once_all_clients_are_forgotten_only_the_pause_counts() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.repeat_now(start);
        assert_eq!(pace.next(start), None);
        pace.touched();
        let is_early = true;
        let first = Look {
            is_early,
            ..look(start, ms(1), false)
        };
        assert!(pace.looked(first));
        assert_eq!(pace.next(start + ms(1)), Some(start + ms(51)));
        pace.repeat_now(start + ms(1));
        assert_eq!(pace.next(start + ms(1)), Some(start + ms(31)));
    }
}
