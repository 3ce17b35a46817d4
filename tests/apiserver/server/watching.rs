//! An open watch.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until};

use super::answer::frame;
use super::form::{bookmark, status};
use super::media::Format;
use super::state::{Orders, Shared, State};
use super::store::{Event, Filter, Kind};

/// The start of a watch.
pub(crate) enum Begin {
    /// The watch sends all objects, marks their end or not, and then sends all changes.
    List { marked: bool },
    /// The watch sends all changes after this version.
    After(u64),
}

pub(crate) struct Watch {
    shared: Arc<Shared>,
    kind: &'static Kind,
    format: Format,
    filter: Filter,
    bookmarks: bool,
    frames: Sender<io::Result<Frame<Bytes>>>,
    /// The commands from before the watch was opened, or that it has executed.
    orders: Orders,
    /// The version up to which changes were sent.
    version: u64,
}

impl Watch {
    pub(crate) fn new(
        shared: Arc<Shared>,
        kind: &'static Kind,
        format: Format,
        filter: Filter,
        bookmarks: bool,
        frames: Sender<io::Result<Frame<Bytes>>>,
    ) -> Self {
        let orders = shared.note(|state| {
            *state.watches.entry(kind.plural).or_default() += 1;
            state.orders
        });
        Self {
            shared,
            kind,
            format,
            filter,
            bookmarks,
            frames,
            orders,
            version: 0,
        }
    }

    /// Runs the watch until its timeout, until the client disconnects, or until a test ends it.
    pub(crate) async fn run(mut self, begin: Begin, seconds: u64) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let mut bell = self.shared.subscribe();
        let shared = Arc::clone(&self.shared);
        let first = self.begin(&begin, &mut shared.look());
        self.send(first).await;
        loop {
            let news = self.news(&mut shared.look());
            let Some(text) = news else {
                let mut text = Vec::new();
                self.format.event_with(&mut text, "ERROR", &status(410));
                return self.send(text).await;
            };
            self.send(text).await;
            let (orders, is_brief) = {
                let state = shared.look();
                (state.orders, state.brief.contains(self.kind.plural))
            };
            if orders.hang > self.orders.hang {
                return self.frames.closed().await;
            }
            if orders.cut > self.orders.cut {
                let error = io::Error::other("told to cut the connection");
                self.frames.send(Err(error)).await.ok();
                return;
            }
            if is_brief || orders.close > self.orders.close {
                return;
            }
            tokio::select! {
                () = self.frames.closed() => return,
                () = sleep_until(deadline) => return,
                rung = bell.changed() => rung.expect("the bell outlives its watches"),
            }
        }
    }

    async fn send(&self, text: Vec<u8>) {
        if !text.is_empty() {
            let length = text.len() as u64;
            let plural = self.kind.plural;
            self.shared
                .note(|state| *state.body_bytes.entry(plural).or_default() += length);
            self.frames.send(Ok(frame(text))).await.ok();
        }
    }

    fn begin(&mut self, begin: &Begin, state: &mut State) -> Vec<u8> {
        let mut text = Vec::new();
        match begin {
            Begin::After(version) => self.version = *version,
            Begin::List { marked } => {
                self.version = state.version;
                let objects = state.collection(self.kind.plural).objects.values();
                let matching = objects.filter(|object| self.filter.matches(object));
                let events: Vec<_> = matching
                    .map(|object| Event {
                        kind: "ADDED",
                        object: Arc::clone(object),
                    })
                    .collect();
                self.write(&mut text, state, &events);
                if *marked {
                    self.bookmark(&mut text, true);
                }
            }
        }
        text
    }

    /// Returns the changes, and a bookmark on demand; `None` if the changes are compacted.
    fn news(&mut self, state: &mut State) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        if state.orders.hang > self.orders.hang {
            return Some(text);
        }
        if self.version < state.compacted {
            return None;
        }
        let collection = state.collection(self.kind.plural);
        let events = collection.since(self.kind, self.version, &self.filter);
        self.write(&mut text, state, &events);
        self.version = state.version;
        if self.bookmarks && state.orders.bookmark > self.orders.bookmark {
            self.orders.bookmark = state.orders.bookmark;
            self.bookmark(&mut text, false);
        }
        Some(text)
    }

    fn write(&self, text: &mut Vec<u8>, state: &mut State, events: &[Event]) {
        let sent = state.sent.entry(self.kind.plural).or_default();
        for event in events {
            self.format
                .event(text, event.kind, self.kind, &event.object);
            if event.object.is_sent_first() {
                sent.insert(event.object.key.clone());
            }
        }
    }

    fn bookmark(&self, text: &mut Vec<u8>, ends_list: bool) {
        let object = bookmark(self.kind, self.version, ends_list);
        self.format.event_with(text, "BOOKMARK", &object);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.note(|state| {
            *state.watches.entry(self.kind.plural).or_default() -= 1;
        });
    }
}
