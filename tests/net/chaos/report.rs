//! The table of a run, and its verdict.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::clients::Held;
use super::daemon::Usage;
use super::fault::Fault;
use super::history::{Attempt, History};

/// The faults of one kind.
#[derive(Debug, Default)]
struct Suffered {
    times: usize,
    /// The longest time from the end of the fault until the kernel had the desired state.
    longest: Duration,
    total: Duration,
    log_lines: usize,
}

/// What happened so far.
pub(super) struct Report {
    seed: u64,
    started: Instant,
    before: Usage,
    faults: BTreeMap<Fault, Suffered>,
}

impl Report {
    pub(super) fn new(seed: u64, started: Instant, before: Usage) -> Self {
        Self {
            seed,
            started,
            before,
            faults: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, fault: Fault, repaired: Duration, lines: usize) {
        let suffered = self.faults.entry(fault).or_default();
        suffered.times += 1;
        suffered.total += repaired;
        suffered.longest = suffered.longest.max(repaired);
        suffered.log_lines += lines;
    }

    /// Prints the report; fails if a connection did.
    pub(super) fn finish(self, after: Usage, history: &History, attempts: &[Attempt], held: &Held) {
        let judgement = history.judge(attempts);
        let seconds = self.started.elapsed().as_secs();
        let (mut times, mut text) = (0, String::new());
        for (fault, suffered) in &self.faults {
            let count = u32::try_from(suffered.times).expect("fewer faults");
            times += suffered.times;
            let (name, mean) = (format!("{fault:?}"), suffered.total / count);
            let Suffered {
                longest, log_lines, ..
            } = suffered;
            let line =
                format!("{name:<42} {count:>5} {mean:>9.0?} {longest:>9.0?} {log_lines:>7}\n");
            text.push_str(&line);
        }
        eprintln!(
            "chaos: seed {}, {seconds} s, {times} faults\n\
             fault                                      times      mean   longest   lines\n{text}\
             connections: {} new, {} failed, {} to an endpoint that was gone, {} without an endpoint; \
             {} held, {} broken, {} reset by a flush\n\
             daemon before: {}\n\
             daemon after:  {after}",
            self.seed,
            judgement.attempts,
            judgement.failed.len(),
            judgement.stale.len(),
            judgement.excused,
            held.opened,
            held.broken.len(),
            held.reset,
            self.before,
        );
        let is_good =
            judgement.failed.is_empty() && judgement.stale.is_empty() && held.broken.is_empty();
        if !is_good {
            eprintln!("{}", history.events());
        }
        let first = |list: &[String]| list.iter().take(20).cloned().collect::<Vec<_>>();
        assert!(
            judgement.failed.is_empty(),
            "failed: {:#?}",
            first(&judgement.failed)
        );
        assert!(
            judgement.stale.is_empty(),
            "gone: {:#?}",
            first(&judgement.stale)
        );
        assert!(held.broken.is_empty(), "broken: {:#?}", first(&held.broken));
    }
}
