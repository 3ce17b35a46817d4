//! The health of the sync loop, and whether load balancers should use this Node.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::RecentSyncs;
use crate::clock;

/// The longest time that a change may be pending while the daemon is healthy: twice kube-proxy's
/// `syncPeriod` of 30 s, as in `pkg/proxy/healthcheck/proxy_health.go`.
const MAX_SYNC_DELAY: Duration = Duration::from_mins(1);

/// Whether the source of objects has a Node object of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeObject {
    /// An API server has a Node object of every node.
    Required,
    /// Manifests may have no Node object.
    Optional,
}

/// The health of the sync loop, which the loop updates and the HTTP servers report.
#[derive(Debug)]
pub struct SyncHealth {
    /// The longest time that a change may be pending.
    max_sync_delay: Duration,
    node_object: NodeObject,
    /// Whether everything has been committed once.
    has_committed: watch::Sender<bool>,
    state: Mutex<SyncHealthState>,
    /// The latest syncs.
    pub recent: RecentSyncs,
}

#[derive(Debug, Default)]
struct SyncHealthState {
    /// When the oldest pending change became pending.
    pending_since: Option<Instant>,
    committed_at: Option<SystemTime>,
    /// Whether our Node is about to be deleted; `None` if there is no Node object.
    node_is_leaving: Option<bool>,
    /// Since when this node is drained.
    drained_since: Option<SystemTime>,
}

impl Default for SyncHealth {
    fn default() -> Self {
        Self::new(MAX_SYNC_DELAY, NodeObject::Optional)
    }
}

impl SyncHealth {
    /// Creates the health of a loop that has committed nothing yet.
    ///
    /// A change may be pending for `max_sync_delay`. Without a Node object, the node is eligible
    /// only if the object is optional.
    #[must_use]
    pub fn new(max_sync_delay: Duration, node_object: NodeObject) -> Self {
        Self {
            max_sync_delay,
            node_object,
            has_committed: watch::Sender::new(false),
            state: Mutex::default(),
            recent: RecentSyncs::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, SyncHealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a change is pending, from now on if none was.
    pub fn pending(&self) {
        self.state().pending_since.get_or_insert_with(Instant::now);
    }

    /// Records that everything is committed.
    pub fn committed(&self) {
        let mut state = self.state();
        state.pending_since = None;
        state.committed_at = Some(clock::now());
        drop(state);
        self.has_committed
            .send_if_modified(|has| !mem::replace(has, true));
    }

    /// Waits until everything has been committed once, as `/readyz` reports.
    pub async fn first_commit(&self) {
        let mut has_committed = self.has_committed.subscribe();
        // The channel cannot close: its sender is in `self`.
        let _open = has_committed.wait_for(|has| *has).await;
    }

    /// Records whether our Node is about to be deleted; `None` if there is no Node object.
    pub fn set_node_leaving(&self, is_leaving: Option<bool>) {
        self.state().node_is_leaving = is_leaving;
    }

    /// Whether there is a Node object of this node.
    #[must_use]
    pub fn has_node(&self) -> bool {
        self.state().node_is_leaving.is_some()
    }

    /// Whether no change is pending for too long.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_healthy_at(Instant::now())
    }

    fn is_healthy_at(&self, now: Instant) -> bool {
        let since = self.state().pending_since;
        since.is_none_or(|since| now.saturating_duration_since(since) <= self.max_sync_delay)
    }

    /// Returns when everything was last committed.
    #[must_use]
    pub fn committed_at(&self) -> Option<SystemTime> {
        self.state().committed_at
    }

    /// Drains this node, or ends that: the health checks of its load balancers fail meanwhile.
    /// Returns whether that changed anything.
    pub fn set_drained(&self, is_drained: bool) -> bool {
        let mut state = self.state();
        let was_drained = state.drained_since.is_some();
        if was_drained != is_drained {
            state.drained_since = is_drained.then(clock::now);
        }
        was_drained != is_drained
    }

    /// Returns since when this node is drained, if it is.
    #[must_use]
    pub fn drained_since(&self) -> Option<SystemTime> {
        self.state().drained_since
    }

    /// Whether load balancers should send connections to this node: it is not drained, and its Node
    /// object exists, if it is required, and is not about to be deleted (KEP-3836).
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        let state = self.state();
        let has_eligible_node = match state.node_is_leaving {
            Some(is_leaving) => !is_leaving,
            None => self.node_object == NodeObject::Optional,
        };
        has_eligible_node && state.drained_since.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_that_is_pending_for_long_is_unhealthy() {
        let sync_health = SyncHealth::default();
        let (now, later) = (Instant::now(), Instant::now() + MAX_SYNC_DELAY * 2);
        assert!(sync_health.is_healthy_at(later));
        sync_health.pending();
        assert!(sync_health.is_healthy_at(now));
        assert!(!sync_health.is_healthy_at(later));
        // The next change does not restart the delay.
        sync_health.pending();
        assert!(!sync_health.is_healthy_at(later));
        assert_eq!(sync_health.committed_at(), None);
        sync_health.committed();
        assert!(sync_health.is_healthy_at(later));
        assert!(sync_health.committed_at().is_some());
    }

    #[test]
    fn a_node_without_an_object_or_about_to_be_deleted_is_not_eligible() {
        let sync_health = SyncHealth::new(MAX_SYNC_DELAY, NodeObject::Required);
        assert!(!sync_health.is_eligible());
        sync_health.set_node_leaving(Some(false));
        assert!(sync_health.is_eligible());
        sync_health.set_node_leaving(Some(true));
        assert!(!sync_health.is_eligible());
        assert!(SyncHealth::new(MAX_SYNC_DELAY, NodeObject::Optional).is_eligible());
    }

    #[test]
    fn a_drained_node_is_healthy_and_not_eligible() {
        let sync_health = SyncHealth::default();
        assert!(sync_health.set_drained(true));
        let since = sync_health.drained_since();
        assert!(since.is_some());
        assert!(!sync_health.set_drained(true));
        assert_eq!(sync_health.drained_since(), since);
        assert!(sync_health.is_healthy() && !sync_health.is_eligible());
        assert!(sync_health.set_drained(false));
        assert!(!sync_health.set_drained(false));
        assert!(sync_health.is_eligible() && sync_health.drained_since().is_none());
    }
}
