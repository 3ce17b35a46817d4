//! The cleanup of conntrack after a commit: entries to endpoints that no longer serve their
//! frontend are deleted.
//!
//! It follows the commit and the unpinning of clients, or the next packet would recreate the entry.
//! A failure is logged, and the rules are right without the cleanup.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::affinity::Reaped;
use super::family::FamilyState;
use super::metrics::count;
use super::pace::{CleanupPace, CleanupRun, Repetition};
use super::state::State;
use super::sync_once::milliseconds;
use crate::logging::LogEvent;
use crate::metrics::Metrics;
use crate::netlink::{CleanResult, Conntrack};
use crate::per_family;
use crate::planner::conntrack::{ConntrackEntry, DirtyFrontends};
use crate::planner::dual::Dual;
use crate::planner::model::{Address, Protocol};

/// The cleaner of conntrack, and the entries that it searches for.
pub(super) struct ConntrackCleaner {
    conntrack: Conntrack,
    metrics: Metrics,
    targets: Dual<CleanupTargets<Ipv4Addr>, CleanupTargets<Ipv6Addr>>,
    /// Whether pinned clients may recreate entries after a cleanup that finds none.
    is_early: bool,
    pace: CleanupPace,
}

/// The entries that a cleanup of one family searches for.
struct CleanupTargets<A> {
    frontends: DirtyFrontends<A>,
    /// The late replies of deleted entries. Nothing else tells the entry of such a reply from a
    /// flow of the node itself.
    late_replies: BTreeSet<ConntrackEntry<A>>,
}

impl<A> Default for CleanupTargets<A> {
    fn default() -> Self {
        Self {
            frontends: DirtyFrontends::default(),
            late_replies: BTreeSet::new(),
        }
    }
}

impl ConntrackCleaner {
    /// Creates a cleaner that has nothing to do yet.
    pub(super) fn new(conntrack: Conntrack, metrics: Metrics) -> Self {
        Self {
            conntrack,
            metrics,
            targets: Dual::both(CleanupTargets::default(), CleanupTargets::default()),
            is_early: false,
            pace: CleanupPace::default(),
        }
    }

    /// Adds the frontends that commits changed since the last call, and cleans conntrack unless it
    /// must wait. Does nothing if no frontend changed.
    ///
    /// While a client is pinned to an endpoint that is gone, the cleanup is repeated.
    pub(super) fn clean(&mut self, state: &mut State, reaped: Reaped) {
        let dirty = state.take_dirty_frontends();
        let are_empty = per_family!(dirty.as_ref(), |dirty| dirty.is_empty());
        if are_empty.all() {
            return;
        }
        per_family!(self.targets.as_mut().zip(dirty), |(targets, dirty)| targets
            .frontends
            .extend(dirty));
        self.is_early |= reaped == Reaped::Pending;
        self.pace.add_frontends();
        self.clean_if_due(state);
    }

    /// Repeats the cleanup once all clients are unpinned, for the entries that they recreated.
    pub(super) fn all_reaped(&mut self, state: &State) {
        self.pace.repeat_now(Instant::now());
        self.clean_if_due(state);
    }

    /// Returns when the next cleanup is due, if there is anything to clean.
    pub(super) fn next_cleanup(&self) -> Option<Instant> {
        self.pace.next(Instant::now())
    }

    /// Cleans conntrack if a cleanup is due: one dump for each family and protocol.
    pub(super) fn clean_if_due(&mut self, state: &State) {
        let started = Instant::now();
        if self.pace.next(started).is_none_or(|next| next > started) {
            return;
        }
        let deleted = self.delete(state);
        let cleanup = CleanupRun {
            started,
            ended: Instant::now(),
            has_deleted: deleted > 0,
            is_early: std::mem::take(&mut self.is_early),
        };
        if self.pace.record(cleanup) == Repetition::NotNeeded {
            per_family!(self.targets.as_mut(), |targets| *targets =
                CleanupTargets::default());
        }
    }

    /// Deletes the targets; returns the number of deleted entries.
    fn delete(&mut self, state: &State) -> usize {
        let families = state.families.as_ref().zip(self.targets.as_mut());
        per_family!(families, |(family, targets)| {
            let is_early = self.is_early;
            delete(
                &mut self.conntrack,
                &self.metrics,
                family,
                targets,
                is_early,
            )
        })
        .into_iter()
        .sum()
    }
}

/// Deletes the stale entries at dirty frontends, and the late replies of entries that were deleted
/// before; returns the number of deleted entries.
///
/// Established connections are read once, unless pinned clients may still open others (`is_early`).
fn delete<A: Address>(
    conntrack: &mut Conntrack,
    metrics: &Metrics,
    family: &FamilyState<A>,
    targets: &mut CleanupTargets<A>,
    is_early: bool,
) -> usize {
    let CleanupTargets {
        frontends: dirty,
        late_replies,
    } = targets;
    if dirty.is_empty() {
        return 0;
    }
    let started = Instant::now();
    let frontends = family.frontends(dirty);
    let is_target = |entry: &_| frontends.is_stale(entry) || late_replies.contains(entry);
    match conntrack.delete(&frontends.scope(), is_target) {
        Ok(result) => {
            let elapsed = started.elapsed();
            debug!(
                event = %LogEvent::ConntrackCleaned,
                family = %A::FAMILY,
                frontends = frontends.len(),
                entries = result.entries,
                deleted = result.deleted,
                elapsed_ms = milliseconds(elapsed),
                "cleaned conntrack"
            );
            let label = A::FAMILY.into();
            metrics
                .conntrack
                .get_or_create(&label)
                .observe(elapsed.as_secs_f64());
            metrics
                .conntrack_deleted
                .get_or_create(&label)
                .inc_by(count(result.deleted));
            late_replies.extend(late_udp_replies(&result));
            if !is_early {
                dirty.connections_closed();
            }
            result.deleted
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

fn late_udp_replies<A: Address>(
    result: &CleanResult<A>,
) -> impl Iterator<Item = ConntrackEntry<A>> {
    result
        .stale
        .iter()
        .filter(|entry| entry.protocol == Protocol::Udp)
        .filter_map(ConntrackEntry::late_reply)
}
