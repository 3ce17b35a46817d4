//! What each frontend should have reached at any time, and the judgement of what happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::services::{Pods, Reached, Shop, Target};
use crate::lab::{Family, Protocol};

/// The time for which a removed endpoint may still be reached after the kernel has the new state.
const GRACE: Duration = Duration::from_secs(1);

/// The time after which the reset of a connection is no effect of an interruption: a connection that
/// stays open is used every second.
const RECENT: Duration = Duration::from_secs(5);

/// A desired state of a frontend.
#[derive(Clone, Copy, Debug)]
struct Desired {
    reached: Reached,
    from: Instant,
    /// The time at which the kernel had it.
    settled: Option<Instant>,
}

/// What answered a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    By(Pods),
    /// Somebody else.
    Other,
    Nobody(&'static str),
}

/// A connection, or a datagram with its retries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) target: Target,
    pub(super) family: Family,
    pub(super) protocol: Protocol,
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) answered: Answered,
}

/// The desired states of all frontends; shared with the clients.
#[derive(Clone)]
pub(super) struct History {
    started: Instant,
    states: Arc<Mutex<BTreeMap<Target, Vec<Desired>>>>,
    events: Arc<Mutex<Vec<String>>>,
}

/// The attempts that should have ended otherwise.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) attempts: usize,
    /// Attempts without an answer that had an endpoint all the time.
    pub(super) failed: Vec<String>,
    /// Attempts that an endpoint answered that was gone.
    pub(super) stale: Vec<String>,
    /// Attempts without an answer at a time at which the frontend may have had no endpoint.
    pub(super) excused: usize,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            states: Arc::default(),
            events: Arc::default(),
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Returns the time of an attempt since the start, its outcome, and what was expected.
    fn describe(&self, attempt: &Attempt, in_force: &[Desired]) -> String {
        let since = |time: Instant| time.saturating_duration_since(self.started);
        let expected = in_force.iter().map(|state| {
            let names = state.reached.new.names().join(", ");
            let settled = state.settled.map(since);
            format!(
                "[{names}] from {:.3?}, in the kernel {settled:.3?}",
                since(state.from)
            )
        });
        let expected: Vec<_> = expected.collect();
        let begin = since(attempt.begin);
        format!("{begin:.3?}: {attempt}; expected: {}", expected.join("; "))
    }

    /// Records what happens, to be printed if a connection fails.
    pub(super) fn note(&self, event: impl fmt::Display) {
        let since = self.started.elapsed();
        let mut events = self.events.lock().expect("the history");
        events.push(format!("{since:.3?}: {event}"));
    }

    /// Returns what happened.
    pub(super) fn events(&self) -> String {
        self.events.lock().expect("the history").join("\n")
    }

    /// Records a change that is about to be made.
    pub(super) fn change(&self, shops: &[Shop]) {
        let now = Instant::now();
        let mut states = self.states.lock().expect("the history");
        for target in Target::all() {
            let shop = &shops[usize::from(target.service) - 1];
            let reached = shop.reached(target);
            let of_target = states.entry(target).or_default();
            if of_target.last().is_none_or(|last| last.reached != reached) {
                of_target.push(Desired {
                    reached,
                    from: now,
                    settled: None,
                });
            }
        }
    }

    /// Records that these targets may reach no endpoint from now until the next [`Self::settled`].
    pub(super) fn interrupt(&self, shops: &[Shop], affects: impl Fn(Target) -> bool) {
        let mut states = self.states.lock().expect("the history");
        for (_, of_target) in states.iter_mut().filter(|(target, _)| affects(**target)) {
            of_target.push(Desired {
                reached: Reached::default(),
                from: Instant::now(),
                settled: None,
            });
        }
        drop(states);
        self.change(shops);
    }

    /// Whether a target may have reached no endpoint at some time of the last seconds.
    pub(super) fn was_interrupted(&self, target: Target) -> bool {
        let states = self.states.lock().expect("the history");
        let recent = |state: &&Desired| {
            state
                .settled
                .is_none_or(|settled| settled.elapsed() < RECENT)
        };
        let of_target = states.get(&target).into_iter().flatten();
        of_target
            .filter(recent)
            .any(|state| state.reached == Reached::default())
    }

    /// Records that the kernel has the desired state.
    pub(super) fn settled(&self) {
        let now = Instant::now();
        let mut states = self.states.lock().expect("the history");
        for state in states.values_mut().flatten() {
            state.settled.get_or_insert(now);
        }
    }

    /// Returns the targets that reach an endpoint now.
    pub(super) fn reachable(&self) -> Vec<Target> {
        let states = self.states.lock().expect("the history");
        let reaches = |states: &Vec<Desired>| {
            states
                .last()
                .is_some_and(|last| !last.reached.new.is_empty())
        };
        let reachable = states.iter().filter(|(_, states)| reaches(states));
        reachable.map(|(target, _)| *target).collect()
    }

    /// Compares attempts with the states that were possibly in force.
    pub(super) fn judge(&self, attempts: &[Attempt]) -> Judgement {
        let states = self.states.lock().expect("the history");
        let mut judgement = Judgement {
            attempts: attempts.len(),
            ..Judgement::default()
        };
        for attempt in attempts {
            let all = states.get(&attempt.target).map_or(&[][..], Vec::as_slice);
            let in_force = in_force(all, attempt);
            let allowed = in_force.iter().fold(Pods::default(), |pods, state| {
                pods.union(match attempt.protocol {
                    Protocol::Tcp => state.reached.new,
                    Protocol::Udp => state.reached.old,
                })
            });
            let always = in_force.iter().all(|state| !state.reached.new.is_empty());
            match attempt.answered {
                Answered::By(pod) if allowed.contains(pod) => {}
                Answered::By(_) => judgement.stale.push(self.describe(attempt, in_force)),
                Answered::Other | Answered::Nobody(_) if always => {
                    judgement.failed.push(self.describe(attempt, in_force));
                }
                Answered::Other | Answered::Nobody(_) => judgement.excused += 1,
            }
        }
        judgement
    }
}

/// Returns the states that may have been in force during an attempt.
fn in_force<'a>(states: &'a [Desired], attempt: &Attempt) -> &'a [Desired] {
    let is_before = |state: &Desired| {
        state
            .settled
            .is_some_and(|settled| settled + GRACE <= attempt.begin)
    };
    let first = states.iter().rposition(is_before).unwrap_or(0);
    let end = states.partition_point(|state| state.from <= attempt.end);
    states.get(first..end.max(first)).unwrap_or_default()
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(pod) => write!(f, "answered by {}", pod.names().join(", ")),
            Self::Other => f.write_str("answered by another server"),
            Self::Nobody(error) => f.write_str(error),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target {
            service,
            frontend,
            port,
            side,
        } = self.target;
        let took = self.end - self.begin;
        write!(
            f,
            "shop-{service} {frontend:?} {port} {side:?} {} {}: {} after {took:.3?}",
            self.family, self.protocol, self.answered
        )
    }
}
