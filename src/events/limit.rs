//! The limits on Events. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::NewEvent;
use crate::planner::model::ObjectKey;

/// The limit for one object, which is client-go's spam filter (`tools/record/events_cache.go`).
const PER_OBJECT: TokenBucket = TokenBucket {
    burst: 25,
    every: Duration::from_mins(5),
};

/// The limit for all objects together.
///
/// A written Event takes two requests, one after the other. The watches share the client's limit of
/// 25 requests a second, and so always get some of it.
const TOTAL: TokenBucket = TokenBucket {
    burst: 25,
    every: Duration::from_millis(100),
};

/// The interval in which an identical Event is not written again.
const REPEAT_INTERVAL: Duration = Duration::from_mins(10);

/// The interval between removals of expired state.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);

/// The decision about a new Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitDecision {
    /// Write the Event after this time.
    WriteAfter(Duration),
    /// Drop the Event: an identical one was written lately.
    Repeated,
    /// Drop the Event: its object has too many.
    TooMany,
}

/// A bucket of `burst` tokens that gains one token each `every` while it is not full.
struct TokenBucket {
    /// The number of tokens in a full bucket.
    burst: u32,
    /// The time in which the bucket gains one token.
    every: Duration,
}

impl TokenBucket {
    /// Takes a token out of a bucket that would be full at `full`.
    ///
    /// Returns the time until a token is available, and the time at which the bucket is full then.
    fn take(&self, full: Option<Instant>, now: Instant) -> (Duration, Instant) {
        let full = full.map_or(now, |full| full.max(now));
        let missing = full.duration_since(now);
        let wait = missing.saturating_sub(self.every * (self.burst - 1));
        (wait, full + self.every)
    }
}

/// Limits Events for each object and in total, and drops identical ones.
#[derive(Debug, Default)]
pub struct EventLimiter {
    /// The time at which the bucket of each object is full.
    objects: BTreeMap<ObjectKey, Instant>,
    /// The time at which the bucket of all objects is full.
    total: Option<Instant>,
    /// The time at which each Event was admitted.
    admitted: BTreeMap<NewEvent, Instant>,
    /// The time of the last removal of expired state.
    pruned: Option<Instant>,
}

impl EventLimiter {
    /// Decides whether and when to write `event`, and counts an admitted Event as written.
    pub fn admit(&mut self, event: &NewEvent, now: Instant) -> LimitDecision {
        self.prune(now);
        let admitted = self.admitted.get(event);
        if admitted.is_some_and(|at| now.saturating_duration_since(*at) < REPEAT_INTERVAL) {
            return LimitDecision::Repeated;
        }
        let full = self.objects.get(&event.object).copied();
        let (wait, full) = PER_OBJECT.take(full, now);
        if !wait.is_zero() {
            return LimitDecision::TooMany;
        }
        self.objects.insert(event.object.clone(), full);
        let (wait, full) = TOTAL.take(self.total, now);
        self.total = Some(full);
        self.admitted.insert(event.clone(), now);
        LimitDecision::WriteAfter(wait)
    }

    /// Removes expired state, so that memory is bounded by the Events of some minutes.
    fn prune(&mut self, now: Instant) {
        let pruned = *self.pruned.get_or_insert(now);
        if now.saturating_duration_since(pruned) < PRUNE_INTERVAL {
            return;
        }
        self.pruned = Some(now);
        self.objects.retain(|_, full| *full > now);
        self.admitted
            .retain(|_, at| now.saturating_duration_since(*at) < REPEAT_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventReason;
    use super::*;
    use crate::planner::model::ObjectKind;

    fn event(service: usize, note: usize) -> NewEvent {
        NewEvent {
            object: ObjectKey {
                kind: ObjectKind::Service,
                name: format!("shop/service-{service}").into(),
            },
            reason: EventReason::InvalidAddress,
            note: format!("note {note}"),
        }
    }

    const NOW: LimitDecision = LimitDecision::WriteAfter(Duration::ZERO);

    #[test]
    fn an_object_gets_25_events_and_then_one_each_five_minutes() {
        let start = Instant::now();
        let mut limiter = EventLimiter::default();
        for note in 0..25 {
            assert_eq!(limiter.admit(&event(1, note), start), NOW);
        }
        assert_eq!(limiter.admit(&event(1, 25), start), LimitDecision::TooMany);
        let almost = start + Duration::from_secs(299);
        assert_eq!(limiter.admit(&event(1, 25), almost), LimitDecision::TooMany);
        let later = start + Duration::from_mins(5);
        assert_eq!(limiter.admit(&event(1, 25), later), NOW);
        assert_eq!(limiter.admit(&event(1, 26), later), LimitDecision::TooMany);
        // Another object has a bucket of its own.
        assert_eq!(limiter.admit(&event(2, 0), later), NOW);
    }

    #[test]
    fn an_identical_event_is_admitted_once_in_ten_minutes() {
        let start = Instant::now();
        let mut limiter = EventLimiter::default();
        assert_eq!(limiter.admit(&event(1, 0), start), NOW);
        for seconds in [0, 1, 599] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(limiter.admit(&event(1, 0), now), LimitDecision::Repeated);
        }
        let later = start + Duration::from_mins(10);
        assert_eq!(limiter.admit(&event(1, 0), later), NOW);
        assert_eq!(limiter.admit(&event(1, 0), later), LimitDecision::Repeated);
    }

    #[test]
    fn all_objects_together_get_ten_events_a_second() {
        let start = Instant::now();
        let mut limiter = EventLimiter::default();
        let mut waits = Vec::new();
        for service in 0..10_000 {
            match limiter.admit(&event(service, 0), start) {
                LimitDecision::WriteAfter(wait) => waits.push(wait),
                LimitDecision::Repeated | LimitDecision::TooMany => {
                    panic!("{service} is not admitted")
                }
            }
        }
        assert!(waits.is_sorted());
        for seconds in [0, 1, 60, 900] {
            let by = Duration::from_secs(seconds);
            let admitted = waits.iter().filter(|wait| **wait <= by).count();
            assert_eq!(admitted as u64, 25 + 10 * seconds);
        }
    }

    #[test]
    fn expired_state_is_pruned() {
        let start = Instant::now();
        let mut limiter = EventLimiter::default();
        for service in 0..1_000 {
            let _ = limiter.admit(&event(service, 0), start);
        }
        let later = start + Duration::from_mins(11);
        let _ = limiter.admit(&event(0, 0), later);
        assert_eq!((limiter.objects.len(), limiter.admitted.len()), (1, 1));
    }
}
