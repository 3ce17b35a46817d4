//! The requests, answers and connections that tests look at.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;

use super::Server;
use super::state::{Connections, Request, State};

impl Server {
    /// Returns the requests for `plural` so far.
    pub(crate) fn requests(&self, plural: &str) -> Vec<Request> {
        let state = self.shared.look();
        let requests = state.requests.iter();
        requests
            .filter(|request| request.plural == plural)
            .cloned()
            .collect()
    }

    /// Returns the numbers of TLS connections.
    pub(crate) fn connections(&self) -> Connections {
        self.shared.look().connections
    }

    /// Waits until exactly `count` TLS connections are open.
    pub(crate) async fn until_open(&self, count: usize) {
        let open = |state: &State| state.connections.open;
        self.shared.until(|state| open(state) == count).await;
    }

    /// Returns the bytes of all answers about `plural` so far, without HTTP.
    pub(crate) fn body_bytes(&self, plural: &str) -> u64 {
        let state = self.shared.look();
        state.body_bytes.get(plural).copied().unwrap_or_default()
    }

    /// Returns the bytes that were sent over TCP so far, with TLS and HTTP.
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.shared.wire_bytes.load(Relaxed)
    }

    /// Returns the Events that were written so far, in order.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.shared.cluster.events().all().to_vec()
    }

    /// Waits until `count` Events were written.
    pub(crate) async fn until_events(&self, count: usize) {
        let written = || self.shared.cluster.events().all().len();
        self.shared.until(|_| written() >= count).await;
    }

    /// Returns whether `key` was ever sent to a client.
    pub(crate) fn has_sent(&self, plural: &str, key: &str) -> bool {
        let contents = self.shared.cluster.contents();
        contents.collection(plural).has_sent(key)
    }

    /// Returns the requests for `plural` after the first `count`.
    pub(crate) fn requests_after(&self, plural: &str, count: usize) -> Vec<Request> {
        self.requests(plural).split_off(count)
    }

    /// Waits until there were `count` requests for `plural`.
    pub(crate) async fn until_requested(&self, plural: &str, count: usize) {
        let requests = |state: &State| {
            let of_plural = state.requests.iter().filter(|it| it.plural == plural);
            of_plural.count()
        };
        self.shared.until(|state| requests(state) >= count).await;
    }

    /// Waits until exactly `count` watches of `plural` are open.
    pub(crate) async fn until_watched(&self, plural: &str, count: usize) {
        let watches = |state: &State| state.watches.get(plural).copied().unwrap_or_default();
        self.shared.until(|state| watches(state) == count).await;
    }
}
