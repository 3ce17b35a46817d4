//! The API server as the source of objects: lists and watches, one task a kind.

mod client;
mod relist;
mod slim;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, InitialListStrategy, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

pub use client::{Error, client};

use crate::logging::Causes;
use crate::model::{Event, wire};
use relist::Relist;
use slim::{Slim, Watched, parsed};

/// The labels and fields that kube-proxy selects by, on the server's side.
const OURS_TO_SERVE: &str = "!service.kubernetes.io/service-proxy-name";
const NOT_HEADLESS: &str = "!service.kubernetes.io/headless";
const HAS_CLUSTER_IP: &str = "spec.clusterIP!=None";

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After how long the server ends a watch, in whole seconds; a watch that is silent a few
    /// seconds longer is given up as dead. Every watch hears a bookmark about once a minute.
    pub watch: Duration,
    /// How long a streaming list may be silent before we take it that the server does not know
    /// streaming lists.
    pub streaming: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(290),
            streaming: Duration::from_secs(20),
        }
    }
}

/// Follows Services, `EndpointSlices`, our own Node and `ServiceCIDRs` for as long as somebody
/// listens. No error ends it: it tries again with back-off, and what was reported stays.
pub async fn watch(
    client: Client,
    our_node: Arc<str>,
    timing: Timing,
    events: mpsc::Sender<Event>,
) {
    let config = || Config::default().timeout(u32::try_from(timing.watch.as_secs()).unwrap_or(290));
    let watching = Watching {
        client,
        our_node: Arc::clone(&our_node),
        timing,
        events,
    };
    let services = config().labels(OURS_TO_SERVE).fields(HAS_CLUSTER_IP);
    let slices = config().labels(NOT_HEADLESS);
    let node = config().fields(&format!("metadata.name={our_node}"));
    // One task: it waits nearly all the time, and the crank has a thread of its own.
    tokio::join!(
        watching.follow::<wire::Service>(services),
        watching.follow::<wire::EndpointSlice>(slices),
        watching.follow::<wire::Node>(node),
        watching.follow::<wire::ServiceCidr>(config()),
    );
}

struct Watching {
    client: Client,
    our_node: Arc<str>,
    timing: Timing,
    events: mpsc::Sender<Event>,
}

/// Why a stream of one kind is left.
enum End {
    /// The server does not know streaming lists.
    NoStreamingLists,
    /// What the watch was to go on from is forgotten: a new list is needed.
    Expired,
    /// Nobody listens any more.
    Unheard,
}

impl Watching {
    async fn follow<T: Watched>(&self, config: Config) {
        let mut relist = Relist::new(T::KIND);
        let mut strategy = config.clone().streaming_lists();
        loop {
            match self.follow_with::<T>(strategy.clone(), &mut relist).await {
                End::Unheard => return,
                End::Expired => {}
                End::NoStreamingLists => {
                    info!(kind = %T::KIND, "no streaming lists on this API server, listing in pages");
                    strategy = config.clone();
                }
            }
        }
    }

    async fn follow_with<T: Watched>(&self, config: Config, relist: &mut Relist) -> End {
        let streaming = config.initial_list_strategy == InitialListStrategy::StreamingList;
        let api: Api<Slim<T>> = Api::all(self.client.clone());
        let stream = watcher(api, config).default_backoff();
        let mut stream = pin!(stream);
        let mut trouble = Trouble::default();
        loop {
            // While a streaming list has begun and not ended, silence means it never will.
            let silence = tokio::time::sleep(self.timing.streaming);
            let next = tokio::select! {
                next = stream.next() => next,
                () = silence, if streaming && relist.is_listing() => return End::NoStreamingLists,
            };
            let events = match next {
                None => return End::Unheard,
                Some(Ok(event)) => {
                    trouble.is_over::<T>(&event);
                    relist.take(parsed(event, &self.our_node))
                }
                Some(Err(error)) if streaming && rejects_streaming(&error) => {
                    return End::NoStreamingLists;
                }
                Some(Err(error)) if is_expired(&error) => return End::Expired,
                Some(Err(error)) => {
                    trouble.is::<T>(&error);
                    continue;
                }
            };
            for event in events {
                if self.events.send(event).await.is_err() {
                    return End::Unheard;
                }
            }
        }
    }
}

/// Whether the server answers that it does not take `sendInitialEvents` (feature gate `WatchList`
/// off: 422 Invalid; KEP-3157).
fn rejects_streaming(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else {
        return false;
    };
    status.code == 422 || status.code == 400
}

/// Whether the server answers a watch with the status 410 Gone. (kube's watcher lists again when it
/// hears so by an event, but not for this.)
fn is_expired(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else {
        return false;
    };
    status.code == 410
}

/// What is wrong with one kind's watch, so that it is said once.
#[derive(Default)]
struct Trouble {
    said: Option<String>,
}

impl Trouble {
    fn is<T: Watched>(&mut self, error: &watcher::Error) {
        let text = Causes(error).to_string();
        if self.said.as_ref() == Some(&text) {
            debug!(error = text, kind = %T::KIND, "still no word from the API server");
        } else {
            warn!(error = text, kind = %T::KIND, "no word from the API server, trying again; the rules stay");
            self.said = Some(text);
        }
    }

    fn is_over<T: Watched>(&mut self, event: &watcher::Event<Slim<T>>) {
        // `Init` only says that a list is asked for.
        if !matches!(event, watcher::Event::Init) && self.said.take().is_some() {
            info!(kind = %T::KIND, "the API server answers again");
        }
    }
}
