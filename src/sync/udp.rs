//! After a commit: the UDP entries that lead nowhere by it are deleted from connection tracking.
//!
//! After the rules changed and what clients are remembered for is forgotten, or the next packet
//! would make the same entry again. What fails is logged; the rules are right without it.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::state::{State, UdpClaims};
use super::turn::milliseconds;
use crate::conntrack::{self, Frontends};
use crate::metrics::Metrics;
use crate::model::Address;
use crate::netlink::Conntrack;

/// How long after UDP entries were deleted conntrack is looked through once more: an answer that was
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
    again: UdpClaims,
    /// How often that was looked for already.
    looks: u32,
}

impl Cleaner {
    pub(super) fn new(conntrack: Conntrack, ipv6: bool, metrics: Metrics) -> Self {
        Self {
            conntrack,
            metrics,
            ipv6,
            again: UdpClaims::default(),
            looks: 0,
        }
    }

    /// Looks through the table for what was touched by commits since the last time: once a family,
    /// and not at all if no UDP frontend was touched. Once more later if it deleted any, or if not
    /// all clients are forgotten yet that session affinity would send to an endpoint that is gone.
    pub(super) fn clean(&mut self, state: &mut State, forgotten: bool) {
        let touched = state.take_touched_udp();
        if self.look(state, &touched) > 0 || !forgotten {
            self.again.ipv4.extend(touched.ipv4);
            self.again.ipv6.extend(touched.ipv6);
            self.looks = 0;
        }
    }

    /// After how long to look again: entries were deleted that may have come back by a packet that
    /// was on its way.
    pub(super) fn must_look_again(&self) -> Option<Duration> {
        let must = self.again != UdpClaims::default();
        must.then(|| LATE_ANSWERS * 2u32.saturating_pow(self.looks))
    }

    /// Looks through the table once more for those.
    pub(super) fn clean_again(&mut self, state: &State) {
        let again = std::mem::take(&mut self.again);
        self.looks += 1;
        if self.look(state, &again) > 0 && self.looks < LOOKS {
            self.again = again;
        }
    }

    /// How many entries were deleted.
    fn look(&mut self, state: &State, at: &UdpClaims) -> usize {
        let (ipv4, ipv6) = state.udp_frontends(at);
        let mut deleted = self.delete(&ipv4);
        if self.ipv6 {
            deleted += self.delete(&ipv6);
        }
        deleted
    }

    fn delete<A: Address>(&mut self, frontends: &Frontends<A>) -> usize {
        if frontends.is_empty() {
            return 0;
        }
        let started = Instant::now();
        let stale = |entry: &_| conntrack::stale(entry, frontends);
        match self.conntrack.delete(stale) {
            Ok(cleaned) => {
                debug!(
                    family = %A::FAMILY,
                    frontends = frontends.len(),
                    entries = cleaned.entries,
                    deleted = cleaned.deleted,
                    elapsed_ms = milliseconds(started.elapsed()),
                    "looked through conntrack"
                );
                let family = A::FAMILY.into();
                let looks = self.metrics.conntrack.get_or_create(&family);
                looks.observe(started.elapsed().as_secs_f64());
                let deleted = u64::try_from(cleaned.deleted).unwrap_or(u64::MAX);
                let of_family = self.metrics.conntrack_deleted.get_or_create(&family);
                of_family.inc_by(deleted);
                cleaned.deleted
            }
            Err(error) => {
                warn!(
                    %error,
                    family = %A::FAMILY,
                    "cannot clean conntrack, UDP clients may stay with endpoints that are gone"
                );
                0
            }
        }
    }
}
