//! Whether what was reported reaches the kernel, and whether this Node is to be kept.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::clock;

/// How long a change may wait to be committed before we are unhealthy: twice kube-proxy's
/// `syncPeriod` of 30 s, as `pkg/proxy/healthcheck/proxy_health.go` has it.
const PATIENCE: Duration = Duration::from_mins(1);

/// Since when something waits to be committed. Shared by who commits and who tells.
#[derive(Debug)]
pub struct SyncHealth {
    patience: Duration,
    /// Whether there should be a Node object.
    needs_node: bool,
    known: Mutex<SyncHealthState>,
}

#[derive(Debug, Default)]
struct SyncHealthState {
    waits_since: Option<Instant>,
    committed_at: Option<SystemTime>,
    /// Whether our Node is about to be deleted; `None`: no Node was seen.
    node_is_leaving: Option<bool>,
}

impl Default for SyncHealth {
    fn default() -> Self {
        Self::new(PATIENCE, false)
    }
}

impl SyncHealth {
    /// Nothing is known yet. A change may wait for `patience`; without a Node object the node is
    /// eligible only if none is needed.
    #[must_use]
    pub fn new(patience: Duration, needs_node: bool) -> Self {
        Self {
            patience,
            needs_node,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, SyncHealthState> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something waits, from now on if not already.
    pub fn waiting(&self) {
        self.known().waits_since.get_or_insert_with(Instant::now);
    }

    /// Everything is committed.
    pub fn committed(&self) {
        let mut known = self.known();
        known.waits_since = None;
        known.committed_at = Some(clock::now());
    }

    /// What our Node says of itself.
    pub fn node(&self, is_leaving: Option<bool>) {
        self.known().node_is_leaving = is_leaving;
    }

    /// Whether nothing has waited too long.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_healthy_at(Instant::now())
    }

    fn is_healthy_at(&self, now: Instant) -> bool {
        let since = self.known().waits_since;
        since.is_none_or(|since| now.saturating_duration_since(since) <= self.patience)
    }

    /// When everything was last committed.
    #[must_use]
    pub fn committed_at(&self) -> Option<SystemTime> {
        self.known().committed_at
    }

    /// Whether load balancers should send connections here: the Node is there, and not about to be
    /// deleted (KEP-3836).
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        match self.known().node_is_leaving {
            Some(is_leaving) => !is_leaving,
            None => !self.needs_node,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_for_long_is_unhealthy() {
        let sync_health = SyncHealth::default();
        let (now, later) = (Instant::now(), Instant::now() + PATIENCE * 2);
        assert!(sync_health.is_healthy_at(later));
        sync_health.waiting();
        assert!(sync_health.is_healthy_at(now));
        assert!(!sync_health.is_healthy_at(later));
        // It does not begin anew with the next change.
        sync_health.waiting();
        assert!(!sync_health.is_healthy_at(later));
        assert_eq!(sync_health.committed_at(), None);
        sync_health.committed();
        assert!(sync_health.is_healthy_at(later));
        assert!(sync_health.committed_at().is_some());
    }

    #[test]
    fn a_node_that_is_unknown_or_about_to_go_is_not_eligible() {
        let sync_health = SyncHealth::new(PATIENCE, true);
        assert!(!sync_health.is_eligible());
        sync_health.node(Some(false));
        assert!(sync_health.is_eligible());
        sync_health.node(Some(true));
        assert!(!sync_health.is_eligible());
        assert!(SyncHealth::new(PATIENCE, false).is_eligible());
    }
}
