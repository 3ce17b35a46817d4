//! Services, `EndpointSlices`, our own Node and `ServiceCIDRs` of an API server, listed and then
//! watched, for ever: whatever fails is tried again, and nothing is said to be gone but by the
//! API server itself.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube::Client;
use tokio::sync::mpsc::Sender;

use crate::planner::model::{Events, wire};

mod client;
mod failure;
mod kinds;
mod known;
mod reader;
mod slim;

pub use client::{ClientError, client};

use reader::read;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct WatchTimeouts {
    /// In whole seconds: after this the API server is asked to close a watch, to be taken up
    /// again; a watch that is silent for 5 s longer is dead.
    pub watch: u32,
    /// A page of a list, or the answer to the begin of a watch.
    pub answer: Duration,
    /// The next event of a streaming list that has begun. The API server sends the objects at
    /// once and marks their end within about a second; one too old to know streaming lists never
    /// does, and is listed in pages instead.
    pub streaming_list: Duration,
    /// The first pause after a failure; each one after that is twice as long, up to 30 s, and
    /// each is prolonged by up to as much again, at random: all nodes see the API server fail at
    /// the same time. client-go's reflector begins with 800 ms, too.
    pub first_pause: Duration,
    /// At most between two requests for a kind that the API server does not have or does not let us
    /// see, and that we can do without. Seconds at first, twice as long each time.
    pub unavailable: Duration,
}

impl WatchTimeouts {
    /// No connection in good order is silent for longer.
    fn longest_silence(&self) -> Duration {
        Duration::from_secs(u64::from(self.watch) + 15).max(self.answer)
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
        }
    }
}

/// Reports the objects to `events` until nobody receives them, waiting while the channel is full.
///
/// Each kind ends its first list with [`Listed`](crate::planner::model::Event::Listed); a Node or
/// `ServiceCIDRs` that the API server does not have or does not let us see count as listed, with a
/// warning.
pub async fn watch(client: Client, our_node: Arc<str>, events: Sender<Events>) {
    watch_with(WatchTimeouts::default(), client, our_node, events).await;
}

/// [`watch`] with other timeouts.
pub async fn watch_with(
    timeouts: WatchTimeouts,
    client: Client,
    our_node: Arc<str>,
    events: Sender<Events>,
) {
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
        _ = kinds => {}
    }
}
