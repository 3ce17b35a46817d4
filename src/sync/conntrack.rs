//! After a commit: the entries of connection tracking that do what the rules would not do any more are
//! deleted.
//!
//! After the rules changed and what clients are remembered for is forgotten, or the next packet
//! would make the same entry again. What fails is logged; the rules are right without it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::family::FamilyState;
use super::state::State;
use super::turn::milliseconds;
use crate::metrics::Metrics;
use crate::netlink::Conntrack;
use crate::planner::conntrack::{Entry, Touched};
use crate::planner::model::{Address, Protocol};

/// How long after entries were deleted conntrack is looked through once more: an answer that was
/// on its way may have made an entry of its own, which would keep its client where it was. Doubled
/// each time.
const LATE_ANSWERS: Duration = Duration::from_millis(50);

/// How often it is looked through once more at most: some hosts send from such an address unasked.
const LOOKS: u32 = 6;

/// Connection tracking, and what to look for in it again.
pub(super) struct Cleaner {
    conntrack: Conntrack,
    metrics: Metrics,
    ipv6: bool,
    again4: Again<Ipv4Addr>,
    again6: Again<Ipv6Addr>,
    /// How often that was looked for already.
    looks: u32,
}

/// What to look for again.
struct Again<A> {
    touched: Touched<A>,
    /// The answers that may come late to entries that were deleted. Nothing else tells an entry that
    /// one makes from a flow of the node itself.
    answers: BTreeSet<Entry<A>>,
}

impl<A> Default for Again<A> {
    fn default() -> Self {
        Self {
            touched: Touched::default(),
            answers: BTreeSet::new(),
        }
    }
}

impl Cleaner {
    pub(super) fn new(conntrack: Conntrack, ipv6: bool, metrics: Metrics) -> Self {
        Self {
            conntrack,
            metrics,
            ipv6,
            again4: Again::default(),
            again6: Again::default(),
            looks: 0,
        }
    }

    /// Looks through the table for what was touched by commits since the last time: once a family and
    /// protocol, and not at all if no frontend was touched. Once more later if it deleted any, or if not
    /// all clients are forgotten yet that session affinity would send to an endpoint that is gone.
    pub(super) fn clean(&mut self, state: &mut State, forgotten: bool) {
        let (ipv4, ipv6) = state.take_touched();
        let deleted = self.look(state, &ipv4, &ipv6);
        if deleted > 0 || !forgotten {
            self.again4.touched.extend(ipv4);
            self.again6.touched.extend(ipv6);
            self.looks = 0;
        }
    }

    /// After how long to look again: entries were deleted that may have come back by a packet that
    /// was on its way.
    pub(super) fn must_look_again(&self) -> Option<Duration> {
        let must = !self.again4.touched.is_empty() || !self.again6.touched.is_empty();
        must.then(|| LATE_ANSWERS * 2u32.saturating_pow(self.looks))
    }

    /// Looks through the table once more for those.
    pub(super) fn clean_again(&mut self, state: &State) {
        let ipv4 = std::mem::take(&mut self.again4.touched);
        let ipv6 = std::mem::take(&mut self.again6.touched);
        self.looks += 1;
        if self.look(state, &ipv4, &ipv6) > 0 && self.looks < LOOKS {
            self.again4.touched = ipv4;
            self.again6.touched = ipv6;
        } else {
            self.again4.answers.clear();
            self.again6.answers.clear();
        }
    }

    /// How many entries were deleted.
    fn look(&mut self, state: &State, ipv4: &Touched<Ipv4Addr>, ipv6: &Touched<Ipv6Addr>) -> usize {
        let (conntrack, metrics) = (&mut self.conntrack, &self.metrics);
        let answers = &mut self.again4.answers;
        let mut deleted = delete(conntrack, metrics, &state.ipv4, ipv4, answers);
        if self.ipv6 {
            let answers = &mut self.again6.answers;
            deleted += delete(conntrack, metrics, &state.ipv6, ipv6, answers);
        }
        deleted
    }
}

/// Deletes what is stale at touched frontends, and the late answers of what was deleted before. Returns
/// how many entries that were.
fn delete<A: Address>(
    conntrack: &mut Conntrack,
    metrics: &Metrics,
    family: &FamilyState<A>,
    touched: &Touched<A>,
    answers: &mut BTreeSet<Entry<A>>,
) -> usize {
    if touched.is_empty() {
        return 0;
    }
    let started = Instant::now();
    let frontends = family.frontends(touched);
    let stale = |entry: &_| frontends.is_stale(entry) || answers.contains(entry);
    match conntrack.delete(&frontends.protocols(), stale) {
        Ok(cleaned) => {
            debug!(
                family = %A::FAMILY,
                frontends = frontends.len(),
                entries = cleaned.entries,
                deleted = cleaned.deleted,
                elapsed_ms = milliseconds(started.elapsed()),
                "looked through conntrack"
            );
            let label = A::FAMILY.into();
            let looks = metrics.conntrack.get_or_create(&label);
            looks.observe(started.elapsed().as_secs_f64());
            let deleted = u64::try_from(cleaned.deleted).unwrap_or(u64::MAX);
            let of_family = metrics.conntrack_deleted.get_or_create(&label);
            of_family.inc_by(deleted);
            let datagrams = cleaned.stale.iter();
            let datagrams = datagrams.filter(|entry| entry.protocol == Protocol::Udp);
            answers.extend(datagrams.filter_map(Entry::late_answer));
            cleaned.deleted
        }
        Err(error) => {
            warn!(
                %error,
                family = %A::FAMILY,
                "cannot clean conntrack, clients may stay with endpoints that are gone"
            );
            0
        }
    }
}
