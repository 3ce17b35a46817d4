//! The state of a server: the faults that tests inject, and what it saw.

use std::collections::{BTreeMap, BTreeSet};

use super::contents::Contents;
use super::media::Encodings;

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
    /// Answer with bytes that no client accepts.
    Garbage(Garbage),
}

/// An answer, or the rest of one, that no client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Garbage {
    /// The first half of the answer, and its end.
    Truncated,
    /// A frame or body of random bytes.
    Random,
    /// A frame or body with a field of a wire type that does not exist, or broken JSON.
    UnknownWireType,
    /// The header of a frame of more than 64 MiB, or as much of one line or body, and then nothing.
    TooLarge,
    /// The first half of the answer, and then nothing.
    Unfinished,
    /// A frame, line or body that goes on byte by byte, without an end.
    Endless,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) plural: &'static str,
    pub(crate) query: BTreeMap<String, String>,
    /// The `Accept` header.
    pub(crate) accept: String,
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
    /// Send garbage instead of the rest.
    pub(crate) garbage: u64,
}

/// See the methods of `Server` for what each is for.
pub(crate) struct State {
    pub(crate) token: String,
    /// The objects at an old version, for a server that lags.
    pub(crate) lagging: Option<Contents>,
    pub(crate) streaming_lists: StreamingLists,
    pub(crate) encodings: Encodings,
    pub(crate) gone: Gone,
    /// The faults: plural, part of the query, fault and remaining times.
    pub(crate) faults: Vec<(String, String, Fault, u32)>,
    /// The plurals whose requests get a status.
    pub(crate) barred: BTreeMap<String, u16>,
    /// The status that all requests get.
    pub(crate) all_barred: Option<u16>,
    pub(crate) down: bool,
    /// The number of times that the server restarted.
    pub(crate) restarts: u64,
    /// The number of times that the server told its clients to go away.
    pub(crate) go_aways: u64,
    pub(crate) only_http1: bool,
    /// The plurals whose watches end after their first objects.
    pub(crate) brief: BTreeSet<String>,
    /// The plural and the key of an object that is deleted before the end of each streaming list.
    pub(crate) deleted_within: Option<(String, String)>,
    pub(crate) orders: Orders,
    /// The last order to send garbage: the plural of the watches, and the garbage.
    pub(crate) garbage: Option<(String, Garbage)>,
    pub(crate) requests: Vec<Request>,
    /// The number of open watches, by plural.
    pub(crate) watches: BTreeMap<&'static str, usize>,
    pub(crate) connections: Connections,
    /// The bytes of all answers, by plural, without HTTP.
    pub(crate) body_bytes: BTreeMap<&'static str, u64>,
}

impl State {
    pub(crate) fn new(token: String) -> Self {
        Self {
            token,
            lagging: None,
            streaming_lists: StreamingLists::Served,
            encodings: Encodings::All,
            gone: Gone::Event,
            faults: Vec::new(),
            barred: BTreeMap::new(),
            all_barred: None,
            down: false,
            restarts: 0,
            go_aways: 0,
            only_http1: false,
            brief: BTreeSet::new(),
            deleted_within: None,
            orders: Orders::default(),
            garbage: None,
            requests: Vec::new(),
            watches: BTreeMap::new(),
            connections: Connections::default(),
            body_bytes: BTreeMap::new(),
        }
    }

    /// Takes the fault for a request, if there is one.
    pub(crate) fn fault(&mut self, plural: &str, query: &str) -> Option<Fault> {
        if let Some(status) = self.barred.get(plural).copied().or(self.all_barred) {
            return Some(Fault::Status(status));
        }
        let (_, _, fault, left) = self.faults.iter_mut().find(|(of, part, _, left)| {
            of == plural && query.contains(part.as_str()) && *left > 0
        })?;
        *left -= 1;
        Some(*fault)
    }
}
