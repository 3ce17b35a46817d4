//! The faults that tests inject.

use super::Server;
use super::contents::Contents;
use super::media::Encodings;
use super::state::{Fault, Garbage, Gone, StreamingLists};

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
        self.shared.change(|state| state.gone = gone);
        self.shared.cluster.change(Contents::compact);
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

    /// Answers all requests with `status` until [`Server::admit_all`], as a server that has not
    /// loaded its RBAC rules yet answers 403.
    pub(crate) fn bar_all(&self, status: u16) {
        self.shared.change(|state| state.all_barred = Some(status));
    }

    /// Reverts [`Server::bar_all`].
    pub(crate) fn admit_all(&self) {
        self.shared.change(|state| state.all_barred = None);
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

    /// Reports an object as deleted before the end of each streaming list that begins with it.
    pub(crate) fn delete_within_lists(&self, plural: &str, key: &str) {
        let deleted = Some((plural.to_owned(), key.to_owned()));
        self.shared.change(|state| state.deleted_within = deleted);
    }

    /// Cuts the connections of all open watches.
    pub(crate) fn cut_watches(&self) {
        self.shared.change(|state| state.orders.cut += 1);
    }

    /// Silences all open watches for good.
    pub(crate) fn hang_watches(&self) {
        self.shared.change(|state| state.orders.hang += 1);
    }

    /// Sends garbage to all open watches of `plural`, and then ends them if the garbage ends.
    pub(crate) fn send_garbage(&self, plural: &str, garbage: Garbage) {
        self.shared.change(|state| {
            state.garbage = Some((plural.to_owned(), garbage));
            state.orders.garbage += 1;
        });
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

    /// Cuts all connections at once, as a restart does; TLS sessions are forgotten.
    pub(crate) fn restart(&self) {
        self.shared.change(|state| state.restarts += 1);
    }

    /// Tells the clients of all HTTP/2 connections to go away (GOAWAY): what is open goes on, and new
    /// requests need a new connection.
    pub(crate) fn go_away(&self) {
        self.shared.change(|state| state.go_aways += 1);
    }

    /// Silences all open connections for good, and new ones until [`Server::speak`].
    ///
    /// TCP works; no byte of a client is answered, not even a ping of HTTP/2.
    pub(crate) fn fall_silent(&self) {
        self.shared.fall_silent();
    }

    /// Serves new connections again.
    pub(crate) fn speak(&self) {
        self.shared.speak();
    }

    /// Lets the server lag: it knows no change from now on until [`Server::catch_up`].
    pub(crate) fn lag(&self) {
        let contents = self.shared.cluster.contents().clone();
        self.shared.change(|state| state.lagging = Some(contents));
    }

    /// Reverts [`Server::lag`].
    pub(crate) fn catch_up(&self) {
        self.shared.change(|state| state.lagging = None);
    }

    /// Restores a backup of etcd: the objects are those of `version`, later versions are used again,
    /// and all servers of the cluster restart.
    pub(crate) fn restore(&self, version: u64) {
        self.shared.cluster.restore(version);
    }
}
