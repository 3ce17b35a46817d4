//! After a commit: the entries of connection tracking that do what the rules would not do any more are
//! deleted.
//!
//! After the rules changed and what clients are remembered for is forgotten, or the next packet
//! would make the same entry again. What fails is logged; the rules are right without it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::family::FamilyState;
use super::pace::{Look, Pace};
use super::state::State;
use super::sync_once::milliseconds;
use crate::logging::LogEvent;
use crate::metrics::Metrics;
use crate::netlink::Conntrack;
use crate::per_family;
use crate::planner::conntrack::{ConntrackEntry, DirtyFrontends};
use crate::planner::dual::Dual;
use crate::planner::model::{Address, Protocol};

/// Connection tracking, and what to look for in it.
pub(super) struct ConntrackCleaner {
    conntrack: Conntrack,
    metrics: Metrics,
    wanted: Dual<Wanted<Ipv4Addr>, Wanted<Ipv6Addr>>,
    /// Whether some of it may be made again after a look that finds nothing.
    is_early: bool,
    pace: Pace,
}

/// What to look for.
struct Wanted<A> {
    frontends: DirtyFrontends<A>,
    /// The answers that may come late to entries that were deleted. Nothing else tells an entry that
    /// one makes from a flow of the node itself.
    answers: BTreeSet<ConntrackEntry<A>>,
}

impl<A> Default for Wanted<A> {
    fn default() -> Self {
        Self {
            frontends: DirtyFrontends::default(),
            answers: BTreeSet::new(),
        }
    }
}

impl ConntrackCleaner {
    pub(super) fn new(conntrack: Conntrack, metrics: Metrics) -> Self {
        Self {
            conntrack,
            metrics,
            wanted: Dual::both(Wanted::default(), Wanted::default()),
            is_early: false,
            pace: Pace::default(),
        }
    }

    /// Takes in what commits touched since the last time, and looks for it unless it is too early. Not at
    /// all if no frontend was touched. `forgotten` says whether all clients are forgotten that session
    /// affinity would send to an endpoint that is gone: if not, the look is repeated.
    pub(super) fn clean(&mut self, state: &mut State, forgotten: bool) {
        let dirty = state.take_dirty_frontends();
        let are_empty = per_family!(dirty.as_ref(), |dirty| dirty.is_empty());
        if are_empty.into_iter().all(|is_empty| is_empty) {
            return;
        }
        per_family!(self.wanted.as_mut().zip(dirty), |(wanted, dirty)| wanted
            .frontends
            .extend(dirty));
        self.is_early |= !forgotten;
        self.pace.touched();
        self.look_if_due(state);
    }

    /// All clients are forgotten: what they had made again meanwhile is looked for.
    pub(super) fn all_reaped(&mut self, state: &State) {
        self.pace.repeat_now(Instant::now());
        self.look_if_due(state);
    }

    /// When to look next, if there is anything to look for.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.pace.next(Instant::now())
    }

    /// Looks through the table: once a family and protocol.
    pub(super) fn look_if_due(&mut self, state: &State) {
        let began = Instant::now();
        if self.pace.next(began).is_none_or(|next| next > began) {
            return;
        }
        let found = self.look(state) > 0;
        let look = Look {
            began,
            ended: Instant::now(),
            found,
            is_early: std::mem::take(&mut self.is_early),
        };
        if !self.pace.looked(look) {
            per_family!(self.wanted.as_mut(), |wanted| *wanted = Wanted::default());
        }
    }

    /// How many entries were deleted.
    fn look(&mut self, state: &State) -> usize {
        let families = state.families.as_ref().zip(self.wanted.as_mut());
        per_family!(families, |(family, wanted)| {
            delete(&mut self.conntrack, &self.metrics, family, wanted)
        })
        .into_iter()
        .sum()
    }
}

/// Deletes what is stale at touched frontends, and the late answers of what was deleted before. Returns
/// how many entries that were.
fn delete<A: Address>(
    conntrack: &mut Conntrack,
    metrics: &Metrics,
    family: &FamilyState<A>,
    wanted: &mut Wanted<A>,
) -> usize {
    let Wanted { frontends, answers } = wanted;
    if frontends.is_empty() {
        return 0;
    }
    let started = Instant::now();
    let frontends = family.frontends(frontends);
    let stale = |entry: &_| frontends.is_stale(entry) || answers.contains(entry);
    match conntrack.delete(&frontends.protocols(), stale) {
        Ok(cleaned) => {
            debug!(
                event = %LogEvent::ConntrackCleaned,
                family = %A::FAMILY,
                frontends = frontends.len(),
                entries = cleaned.entries,
                deleted = cleaned.deleted,
                elapsed_ms = milliseconds(started.elapsed()),
                "cleaned conntrack"
            );
            let label = A::FAMILY.into();
            let looks = metrics.conntrack.get_or_create(&label);
            looks.observe(started.elapsed().as_secs_f64());
            let deleted = u64::try_from(cleaned.deleted).unwrap_or(u64::MAX);
            let of_family = metrics.conntrack_deleted.get_or_create(&label);
            of_family.inc_by(deleted);
            let datagrams = cleaned.stale.iter();
            let datagrams = datagrams.filter(|entry| entry.protocol == Protocol::Udp);
            answers.extend(datagrams.filter_map(ConntrackEntry::late_reply));
            cleaned.deleted
        }
        Err(error) => {
            warn!(
                event = %LogEvent::ConntrackCleanupFailed,
                %error,
                family = %A::FAMILY,
                "conntrack cleanup failed; flows may continue to endpoints that are gone"
            );
            0
        }
    }
}
