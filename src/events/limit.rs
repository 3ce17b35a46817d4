//! How much is told. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::NewEvent;
use crate::planner::model::ObjectKey;

/// Of one object, as client-go's spam filter has it (`tools/record/events_cache.go`).
const OF_AN_OBJECT: TokenBucket = TokenBucket {
    burst: 25,
    every: Duration::from_mins(5),
};

/// Of all objects. A written Event takes two requests, one after the other, so that the watches, which
/// share the client's limit of 25 a second, always have their turn.
const OF_ALL: TokenBucket = TokenBucket {
    burst: 25,
    every: Duration::from_millis(100),
};

/// How long the same is not told again.
const SAME: Duration = Duration::from_mins(10);

/// How often what no longer counts is forgotten.
const FORGET: Duration = Duration::from_mins(1);

/// What to do about a remark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitDecision {
    /// Tell it after so long.
    After(Duration),
    /// It was told.
    Repeated,
    /// Too much was told of its object.
    TooMany,
}

/// A bucket of `burst` tokens, with one more each `every` while it is not full.
struct TokenBucket {
    burst: u32,
    every: Duration,
}

impl TokenBucket {
    /// Takes a token out of a bucket that is full at `full`: how long until there is one, and when
    /// the bucket is full then.
    fn take(&self, full: Option<Instant>, now: Instant) -> (Duration, Instant) {
        let full = full.map_or(now, |full| full.max(now));
        let missing = full.duration_since(now);
        let wait = missing.saturating_sub(self.every * (self.burst - 1));
        (wait, full + self.every)
    }
}

/// What was told lately.
#[derive(Debug, Default)]
pub struct EventLimiter {
    /// When the bucket of each object is full.
    objects: BTreeMap<ObjectKey, Instant>,
    /// When the bucket of all is full.
    all: Option<Instant>,
    told: BTreeMap<NewEvent, Instant>,
    forgot: Option<Instant>,
}

impl EventLimiter {
    /// Whether and when to tell `remark`. If it is to be told, it counts as told.
    pub fn admit(&mut self, remark: &NewEvent, now: Instant) -> LimitDecision {
        self.forget(now);
        let told = self.told.get(remark);
        if told.is_some_and(|told| now.saturating_duration_since(*told) < SAME) {
            return LimitDecision::Repeated;
        }
        let full = self.objects.get(&remark.object).copied();
        let (wait, full) = OF_AN_OBJECT.take(full, now);
        if !wait.is_zero() {
            return LimitDecision::TooMany;
        }
        self.objects.insert(remark.object.clone(), full);
        let (wait, full) = OF_ALL.take(self.all, now);
        self.all = Some(full);
        self.told.insert(remark.clone(), now);
        LimitDecision::After(wait)
    }

    /// Forgets what no longer counts: so much is remembered as was told in some minutes.
    fn forget(&mut self, now: Instant) {
        let forgot = *self.forgot.get_or_insert(now);
        if now.saturating_duration_since(forgot) < FORGET {
            return;
        }
        self.forgot = Some(now);
        self.objects.retain(|_, full| *full > now);
        self.told
            .retain(|_, told| now.saturating_duration_since(*told) < SAME);
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventReason;
    use super::*;
    use crate::planner::model::ObjectKind;

    fn remark(service: usize, note: usize) -> NewEvent {
        NewEvent {
            object: ObjectKey {
                kind: ObjectKind::Service,
                name: format!("shop/service-{service}").into(),
            },
            reason: EventReason::InvalidAddress,
            note: format!("note {note}"),
        }
    }

    const NOW: LimitDecision = LimitDecision::After(Duration::ZERO);

    #[test]
    fn an_object_has_25_and_then_one_each_five_minutes() {
        let start = Instant::now();
        let mut limiter = EventLimiter::default();
        for note in 0..25 {
            assert_eq!(limiter.admit(&remark(1, note), start), NOW);
        }
        assert_eq!(limiter.admit(&remark(1, 25), start), LimitDecision::TooMany);
        let almost = start + Duration::from_secs(299);
        assert_eq!(
            limiter.admit(&remark(1, 25), almost),
            LimitDecision::TooMany
        );
        let later = start + Duration::from_mins(5);
        assert_eq!(limiter.admit(&remark(1, 25), later), NOW);
        assert_eq!(limiter.admit(&remark(1, 26), later), LimitDecision::TooMany);
        // Another object is not concerned.
        assert_eq!(limiter.admit(&remark(2, 0), later), NOW);
    }

    #[test]
    fn the_same_is_told_once_in_ten_minutes() {
        let start = Instant::now();
        let mut limiter = EventLimiter::default();
        assert_eq!(limiter.admit(&remark(1, 0), start), NOW);
        for seconds in [0, 1, 599] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(limiter.admit(&remark(1, 0), now), LimitDecision::Repeated);
        }
        let later = start + Duration::from_mins(10);
        assert_eq!(limiter.admit(&remark(1, 0), later), NOW);
        assert_eq!(limiter.admit(&remark(1, 0), later), LimitDecision::Repeated);
    }

    #[test]
    fn all_objects_together_have_ten_a_second() {
        let start = Instant::now();
        let mut limiter = EventLimiter::default();
        let mut waits = Vec::new();
        for service in 0..10_000 {
            match limiter.admit(&remark(service, 0), start) {
                LimitDecision::After(wait) => waits.push(wait),
                LimitDecision::Repeated | LimitDecision::TooMany => panic!("{service} is not told"),
            }
        }
        assert!(waits.is_sorted());
        for seconds in [0, 1, 60, 900] {
            let by = Duration::from_secs(seconds);
            let told = waits.iter().filter(|wait| **wait <= by).count();
            assert_eq!(told as u64, 25 + 10 * seconds);
        }
    }

    #[test]
    fn what_no_longer_counts_is_forgotten() {
        let start = Instant::now();
        let mut limiter = EventLimiter::default();
        for service in 0..1_000 {
            let _ = limiter.admit(&remark(service, 0), start);
        }
        let later = start + Duration::from_mins(11);
        let _ = limiter.admit(&remark(0, 0), later);
        assert_eq!((limiter.objects.len(), limiter.told.len()), (1, 1));
    }
}
