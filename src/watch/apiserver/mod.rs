//! Lists and watches Services, `EndpointSlices`, this node's Node and `ServiceCIDRs` at the API
//! servers of a cluster.
//!
//! Every failure is retried, and an object is deleted only if the API server says so.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, join3};
use tokio::sync::mpsc::Sender;

use crate::planner::model::{Events, wire};

mod answer;
mod certificate;
mod client;
mod connect;
mod connections;
mod content;
mod credentials;
mod decode;
mod envelope;
mod failure;
mod kinds;
mod known;
mod missing_node;
mod object;
mod pauses;
mod reader;
mod request;
mod servers;
mod servers_file;
mod status;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod version;
mod watches;

pub use certificate::ServerCertificate;
pub use client::{ApiClient, ClientError, ClientSettings, client};
pub use connect::HttpVersions;
pub use servers_file::ServersFileError;

use reader::read;

/// The timeouts and pauses of a watch.
#[derive(Clone, Copy, Debug)]
pub struct WatchTimeouts {
    /// The shortest duration of one watch request, in seconds.
    ///
    /// Each watch lasts up to twice as long, at random, so that watches that began together do not
    /// end together. The API server closes it after its time, and the reader continues it with
    /// another request. A watch that the API server does not close 10 s later is dead.
    pub watch: u32,
    /// The timeout of a page of a list, and of the first answer to a watch request.
    pub answer: Duration,
    /// The timeout of the next event of a streaming list.
    ///
    /// The API server sends the objects at once and marks their end within about a second. An API
    /// server without streaming lists never does, and is listed in pages instead.
    pub streaming_list: Duration,
    /// The first pause after a failure; each later one is twice as long, up to 30 s.
    ///
    /// Jitter prolongs each pause by up to as much again, since all nodes see the API server fail
    /// at the same time. client-go's reflector begins with 800 ms, too.
    pub first_pause: Duration,
    /// The longest pause between two requests for an optional kind that the API server does not
    /// have or forbids. The first pause takes seconds, and each later one is twice as long.
    pub unavailable: Duration,
    /// The silence of a watch, resumed after an interruption, after which the API server is asked
    /// for its newest version. It sends a bookmark once a minute.
    pub confirmation: Duration,
    /// The time after which lists that are older than what was seen before are accepted. With the
    /// pauses in between, an etcd that was restored is followed within five minutes.
    pub older_lists: Duration,
    /// The time without a Node of the name of this node after which that is reported.
    pub missing_node: Duration,
    /// The time for which a reader does without streaming lists or protobuf after they failed. The
    /// API server, or a proxy in front of it, may have them then.
    pub fallback: Duration,
}

impl WatchTimeouts {
    /// Returns the duration of the next watch, in seconds.
    fn next_watch(&self) -> u32 {
        fastrand::u32(self.watch..self.watch.saturating_mul(2).max(1))
    }
}

impl Default for WatchTimeouts {
    fn default() -> Self {
        Self {
            watch: 290,
            answer: Duration::from_mins(1),
            streaming_list: Duration::from_secs(10),
            first_pause: Duration::from_millis(800),
            unavailable: Duration::from_mins(5),
            confirmation: Duration::from_secs(75),
            older_lists: Duration::from_secs(150),
            missing_node: Duration::from_secs(5),
            fallback: Duration::from_hours(1),
        }
    }
}

/// Sends the objects to `events` until the receiver is dropped, and waits while the channel is
/// full.
///
/// After its first list each kind sends [`Listed`](crate::planner::model::Event::Listed). A Node or
/// `ServiceCIDRs` that the API server does not have or forbids count as listed, with a warning.
pub async fn watch(client: ApiClient, our_node: Arc<str>, events: Sender<Events>) {
    watch_with(WatchTimeouts::default(), client, our_node, events).await;
}

/// Does the same as [`watch`] with other timeouts.
pub async fn watch_with(
    timeouts: WatchTimeouts,
    client: ApiClient,
    our_node: Arc<str>,
    events: Sender<Events>,
) {
    let follow = client.clone().follow_servers();
    let (client, node, timeouts, out) = (&client, &*our_node, &timeouts, &events);
    let kinds = join_all([
        read::<wire::WireService>(client, node, timeouts, out),
        read::<wire::WireEndpointSlice>(client, node, timeouts, out),
        read::<wire::WireNode>(client, node, timeouts, out),
        read::<wire::WireServiceCidr>(client, node, timeouts, out),
    ]);
    tokio::select! {
        biased;
        () = events.closed() => {}
        _ = join3(kinds, follow, missing_node::report(client, node, timeouts, out)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_that_begin_together_end_at_different_times() {
        let timeouts = WatchTimeouts::default();
        let watches: Vec<u32> = (0..100).map(|_| timeouts.next_watch()).collect();
        assert!(watches.iter().all(|watch| (290..580).contains(watch)));
        assert!(watches.iter().any(|watch| *watch != watches[0]));
    }
}
