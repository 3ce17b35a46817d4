//! The state of each watch, which the readers record and `/debug/status` reports.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::planner::model::ObjectKind;
use crate::watch::report::{WatchReport, WatchState};

/// The kinds that have a watch, in the order of a report.
const KINDS: [ObjectKind; 4] = [
    ObjectKind::Service,
    ObjectKind::EndpointSlice,
    ObjectKind::Node,
    ObjectKind::ServiceCidr,
];

/// The state of the watch of each kind. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::watch) struct WatchStates(watch::Sender<BTreeMap<ObjectKind, WatchStatus>>);

/// The state of one watch.
#[derive(Clone, Debug)]
struct WatchStatus {
    /// The state.
    state: WatchState,
    /// The time since which the watch is in this state.
    since: Instant,
    /// The time of the last object or bookmark.
    last_event: Option<Instant>,
    /// Whether a list was complete.
    listed: bool,
    /// The number of objects.
    objects: usize,
    /// The last error.
    error: Option<String>,
}

impl WatchStatus {
    /// Creates the state before the first list.
    fn new(now: Instant) -> Self {
        Self {
            state: WatchState::Listing,
            since: now,
            last_event: None,
            listed: false,
            objects: 0,
            error: None,
        }
    }

    /// Changes the state, which begins now unless it was the same before.
    fn set(&mut self, state: WatchState, error: Option<String>) {
        if self.state != state {
            self.state = state;
            self.since = Instant::now();
        }
        self.error = error;
    }

    /// Returns whether the API server shows any object; `None` while that is not known.
    fn shows_any(&self) -> Option<bool> {
        let is_known = self.listed || self.state == WatchState::Unavailable;
        is_known.then_some(self.objects > 0)
    }
}

impl WatchStates {
    /// Creates the state of watches that begin now.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let states = KINDS.map(|kind| (kind, WatchStatus::new(now)));
        Self(watch::Sender::new(states.into()))
    }

    /// Changes the state of a watch, and wakes the tasks that wait for the Node if it appears or goes.
    fn change(&self, kind: ObjectKind, change: impl FnOnce(&mut WatchStatus)) {
        self.0.send_if_modified(|states| {
            let Some(status) = states.get_mut(&kind) else {
                return false;
            };
            let before = status.shows_any();
            change(status);
            kind == ObjectKind::Node && status.shows_any() != before
        });
    }

    /// Records an object or a bookmark, and the number of objects.
    pub(super) fn received(&self, kind: ObjectKind, objects: usize) {
        self.change(kind, |status| {
            status.last_event = Some(Instant::now());
            status.objects = objects;
        });
    }

    /// Records a complete list.
    pub(super) fn listed(&self, kind: ObjectKind, objects: usize) {
        self.change(kind, |status| {
            status.objects = objects;
            status.listed = true;
            status.set(WatchState::Synced, None);
        });
    }

    /// Records that the API server continues a watch after its list.
    pub(super) fn continued(&self, kind: ObjectKind) {
        self.change(kind, |status| status.set(WatchState::Synced, None));
    }

    /// Records a failure.
    pub(super) fn failed(&self, kind: ObjectKind, error: &str) {
        self.change(kind, |status| {
            status.set(WatchState::Failing, Some(error.to_owned()));
        });
    }

    /// Records that the API server does not have or forbids the kind.
    pub(super) fn unavailable(&self, kind: ObjectKind, error: &str) {
        self.change(kind, |status| {
            status.set(WatchState::Unavailable, Some(error.to_owned()));
        });
    }

    /// Returns whether the API server shows the Node of this node; `None` while that is not known.
    pub(in crate::watch) fn shows_node(&self) -> Option<bool> {
        shows_node(&self.0.borrow())
    }

    /// Waits until it is known that the API server shows the Node of this node, or that it does not.
    pub(super) async fn wait_for_node(&self, shown: bool) {
        let mut states = self.0.subscribe();
        // The sender lives as long as `self`.
        let _states = states
            .wait_for(|states| shows_node(states) == Some(shown))
            .await;
    }

    /// Reports the state of each watch.
    pub(in crate::watch) fn report(&self) -> Vec<WatchReport> {
        let states = self.0.borrow();
        let reports = states.iter().map(|(kind, status)| WatchReport {
            kind: kind.to_string(),
            state: status.state,
            seconds: status.since.elapsed().as_secs_f64(),
            last_event_seconds: status.last_event.map(|at| at.elapsed().as_secs_f64()),
            objects: status.objects,
            error: status.error.clone(),
        });
        reports.collect()
    }
}

/// Returns whether the API server shows the Node of this node; `None` while that is not known.
fn shows_node(states: &BTreeMap<ObjectKind, WatchStatus>) -> Option<bool> {
    states.get(&ObjectKind::Node)?.shows_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(states: &WatchStates) -> WatchReport {
        states.report().swap_remove(0)
    }

    #[test]
    fn a_failure_keeps_what_is_known_until_the_watch_continues() {
        let states = WatchStates::new();
        let kind = ObjectKind::Service;
        assert_eq!(service(&states).state, WatchState::Listing);
        assert_eq!(service(&states).last_event_seconds, None);
        states.received(kind, 1);
        states.listed(kind, 1);
        assert_eq!(service(&states).state, WatchState::Synced);
        states.failed(kind, "refused");
        let WatchReport {
            state,
            objects,
            error,
            ..
        } = service(&states);
        assert_eq!(state, WatchState::Failing);
        assert_eq!((objects, error.as_deref()), (1, Some("refused")));
        states.continued(kind);
        assert_eq!(service(&states).state, WatchState::Synced);
        assert_eq!(service(&states).error, None);
    }

    #[test]
    fn whether_the_node_is_shown_is_known_after_its_list() {
        let states = WatchStates::new();
        states.failed(ObjectKind::Node, "refused");
        assert_eq!(states.shows_node(), None);
        states.listed(ObjectKind::Node, 0);
        assert_eq!(states.shows_node(), Some(false));
        states.received(ObjectKind::Node, 1);
        states.failed(ObjectKind::Node, "refused");
        assert_eq!(states.shows_node(), Some(true));
        let forbidden = WatchStates::new();
        forbidden.unavailable(ObjectKind::Node, "forbidden");
        assert_eq!(forbidden.shows_node(), Some(false));
    }
}
