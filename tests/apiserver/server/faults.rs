//! The faults that tests inject.

use super::Server;
use super::media::Encodings;
use super::state::{Fault, Gone, StreamingLists};

impl Server {
    /// Sets the answer to streaming lists from now on.
    pub(crate) fn set_streaming_lists(&self, streaming_lists: StreamingLists) {
        self.shared
            .change(|state| state.streaming_lists = streaming_lists);
    }

    /// Sets the encodings that requests can choose from now on.
    pub(crate) fn set_encodings(&self, encodings: Encodings) {
        self.shared.change(|state| state.encodings = encodings);
    }

    /// Compacts all changes until now: watches from before get 410 in the given form.
    pub(crate) fn compact(&self, gone: Gone) {
        self.shared.change(|state| {
            state.gone = gone;
            // A watch that received the last change can continue.
            state.compacted = state.version;
            for collection in state.collections.values_mut() {
                collection.compact(state.version);
            }
        });
    }

    /// Answers the next `times` requests for `plural`, with `part` in their query, by `fault`.
    pub(crate) fn fail(&self, plural: &str, part: &str, fault: Fault, times: u32) {
        let entry = (plural.to_owned(), part.to_owned(), fault, times);
        self.shared.change(|state| state.faults.push(entry));
    }

    /// Answers all requests for `plural` with `status` until it is [`Server::admit`]ted.
    pub(crate) fn bar(&self, plural: &str, status: u16) {
        self.shared
            .change(|state| state.barred.insert(plural.to_owned(), status));
    }

    /// Reverts [`Server::bar`].
    pub(crate) fn admit(&self, plural: &str) {
        self.shared.change(|state| state.barred.remove(plural));
    }

    /// Ends all open watches as if their timeout expired.
    pub(crate) fn close_watches(&self) {
        self.shared.change(|state| state.orders.close += 1);
    }

    /// Ends each watch of `plural` from now on after its first objects.
    pub(crate) fn end_watches_at_once(&self, plural: &str) {
        self.shared
            .change(|state| state.brief.insert(plural.to_owned()));
    }

    /// Cuts the connections of all open watches.
    pub(crate) fn cut_watches(&self) {
        self.shared.change(|state| state.orders.cut += 1);
    }

    /// Silences all open watches for good.
    pub(crate) fn hang_watches(&self) {
        self.shared.change(|state| state.orders.hang += 1);
    }

    /// Sends a bookmark to all open watches.
    pub(crate) fn send_bookmarks(&self) {
        self.shared.change(|state| state.orders.bookmark += 1);
    }

    /// Cuts all connections, and each new one, until [`Server::come_up`].
    pub(crate) fn go_down(&self) {
        self.shared.change(|state| state.down = true);
    }

    /// Offers only HTTP/1.1 on new connections.
    pub(crate) fn offer_only_http1(&self) {
        self.shared.change(|state| state.only_http1 = true);
    }

    /// Serves again.
    pub(crate) fn come_up(&self) {
        self.shared.change(|state| state.down = false);
    }
}
