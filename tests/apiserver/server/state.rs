//! The state of the server: its objects, and the faults that tests inject.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use super::events::Events;
use super::media::Encodings;
use super::store::{Collection, KINDS};

/// The answer to streaming lists (KEP-3157).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamingLists {
    /// The answer since Kubernetes 1.32.
    Served,
    /// 422 Invalid, as since Kubernetes 1.19 or with the feature gate off.
    Refused,
    /// An ordinary watch, as in older versions: the end of the list is never marked.
    Ignored,
}

/// The answer to a watch from a compacted version.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The HTTP status 410.
    Status,
    /// The HTTP status 200 and an ERROR event with code 410.
    Event,
}

/// A fault instead of an answer.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Answer with this HTTP status.
    Status(u16),
    /// Never answer.
    Silence,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) plural: &'static str,
    pub(crate) query: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn is_watch(&self) -> bool {
        self.asks("watch", "true")
    }

    /// Returns whether the query has `key=value`.
    pub(crate) fn asks(&self, key: &str, value: &str) -> bool {
        self.query.get(key).is_some_and(|asked| asked == value)
    }
}

/// The TLS connections of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    /// The connections so far.
    pub(crate) accepted: usize,
    /// The connections of them that are open now.
    pub(crate) open: usize,
    /// The connections of them that speak HTTP/2.
    pub(crate) http2: usize,
    /// The connections of them that resumed a TLS session.
    pub(crate) resumed: usize,
}

/// The numbers of commands to all watches that are open at the time.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// End the answer.
    pub(crate) close: u64,
    /// Cut the connection in the middle of the answer.
    pub(crate) cut: u64,
    /// Send nothing more, and do not end either.
    pub(crate) hang: u64,
    /// Send a bookmark.
    pub(crate) bookmark: u64,
}

/// See the methods of `Server` for what each is for.
pub(crate) struct State {
    pub(crate) version: u64,
    /// The version up to which changes are compacted.
    pub(crate) compacted: u64,
    pub(crate) collections: BTreeMap<&'static str, Collection>,
    pub(crate) events: Events,
    pub(crate) token: String,
    pub(crate) streaming_lists: StreamingLists,
    pub(crate) encodings: Encodings,
    pub(crate) gone: Gone,
    /// The faults: plural, part of the query, fault and remaining times.
    pub(crate) faults: Vec<(String, String, Fault, u32)>,
    /// The plurals whose requests get a status.
    pub(crate) barred: BTreeMap<String, u16>,
    pub(crate) down: bool,
    pub(crate) only_http1: bool,
    /// The plurals whose watches end after their first objects.
    pub(crate) brief: BTreeSet<String>,
    pub(crate) orders: Orders,
    pub(crate) requests: Vec<Request>,
    /// The names of all objects that were ever sent, by plural.
    pub(crate) sent: BTreeMap<&'static str, BTreeSet<String>>,
    /// The number of open watches, by plural.
    pub(crate) watches: BTreeMap<&'static str, usize>,
    pub(crate) connections: Connections,
    /// The bytes of all answers, by plural, without HTTP.
    pub(crate) body_bytes: BTreeMap<&'static str, u64>,
}

impl State {
    fn new() -> Self {
        Self {
            version: 1,
            compacted: 0,
            collections: KINDS
                .iter()
                .map(|kind| (kind.plural, Collection::default()))
                .collect(),
            events: Events::default(),
            token: "a-token".to_owned(),
            streaming_lists: StreamingLists::Served,
            encodings: Encodings::All,
            gone: Gone::Event,
            faults: Vec::new(),
            barred: BTreeMap::new(),
            down: false,
            only_http1: false,
            brief: BTreeSet::new(),
            orders: Orders::default(),
            requests: Vec::new(),
            sent: BTreeMap::new(),
            watches: BTreeMap::new(),
            connections: Connections::default(),
            body_bytes: BTreeMap::new(),
        }
    }

    /// Takes the fault for a request, if there is one.
    pub(crate) fn fault(&mut self, plural: &str, query: &str) -> Option<Fault> {
        if let Some(status) = self.barred.get(plural) {
            return Some(Fault::Status(*status));
        }
        let (_, _, fault, left) = self.faults.iter_mut().find(|(of, part, _, left)| {
            of == plural && query.contains(part.as_str()) && *left > 0
        })?;
        *left -= 1;
        Some(*fault)
    }

    pub(crate) fn collection(&mut self, plural: &str) -> &mut Collection {
        self.collections.get_mut(plural).expect("a known plural")
    }
}

/// The state with notifications of its changes.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Rings after each change by a test, for the watches and connections.
    orders: watch::Sender<()>,
    /// Rings after each change, for the tests.
    progress: watch::Sender<()>,
    /// The bytes that were sent over TCP, with TLS and HTTP.
    pub(crate) wire_bytes: AtomicU64,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::new()),
            orders: watch::Sender::new(()),
            progress: watch::Sender::new(()),
            wire_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn look(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds the state")
    }

    /// Makes a change that the watches and connections react to.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = self.note(change);
        self.orders.send_replace(());
        result
    }

    /// Records what the server did.
    pub(crate) fn note<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.look());
        self.progress.send_replace(());
        result
    }

    /// Returns the bell that rings after each change by a test.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.orders.subscribe()
    }

    /// Waits until `condition` holds by what a test or the server did.
    pub(crate) async fn until(&self, condition: impl FnMut(&State) -> bool) {
        self.until_rung(self.progress.subscribe(), condition).await;
    }

    /// Waits until `condition` holds by what a test did.
    pub(crate) async fn until_ordered(&self, condition: impl FnMut(&State) -> bool) {
        self.until_rung(self.orders.subscribe(), condition).await;
    }

    async fn until_rung(
        &self,
        mut bell: watch::Receiver<()>,
        mut condition: impl FnMut(&State) -> bool,
    ) {
        while !condition(&self.look()) {
            bell.changed().await.expect("the bell is ours");
        }
    }
}
