//! An open watch.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Frame;
use tokio::time::{Instant, sleep_until};

use super::form::{bookmark, status};
use super::garbage::{self, Frames, Whole};
use super::media::Format;
use super::shared::Shared;
use super::state::{Garbage, Orders};
use super::store::{Event, Filter, Kind, Stored};

/// The size from which events are sent in more than one piece.
const PIECE: usize = 32 << 10;

/// The start of a watch.
pub(crate) enum Begin {
    /// The watch sends all objects, marks their end or not, and then sends all changes.
    List {
        marked: bool,
        /// The version that the objects must have, if any.
        at_least: Option<u64>,
    },
    /// The watch sends all changes after this version.
    After(u64),
}

pub(crate) struct Watch {
    shared: Arc<Shared>,
    kind: &'static Kind,
    format: Format,
    filter: Filter,
    bookmarks: bool,
    frames: Frames,
    /// The commands from before the watch was opened, or that it has executed.
    orders: Orders,
    /// The version up to which changes were sent.
    version: u64,
}

/// The next part of a watch.
struct News {
    events: Vec<Event>,
    /// Whether a bookmark follows the events, and ends the list.
    bookmark: Option<bool>,
}

impl Watch {
    pub(crate) fn new(
        shared: Arc<Shared>,
        kind: &'static Kind,
        format: Format,
        filter: Filter,
        bookmarks: bool,
        frames: Frames,
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
    pub(crate) async fn run(mut self, begin: Begin, seconds: u64, garbage: Option<Garbage>) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let mut bell = self.shared.subscribe();
        let first = self.begin(&begin);
        if let Some(garbage) = garbage {
            return self.send_garbage(garbage, &first).await;
        }
        self.send(&first).await;
        loop {
            let news = self.news();
            let Some(news) = news else {
                let mut text = Vec::new();
                self.format.event_with(&mut text, "ERROR", &status(410));
                return self.send_text(text).await;
            };
            self.send(&news).await;
            if self.is_ended().await {
                return;
            }
            tokio::select! {
                () = self.frames.closed() => return,
                () = sleep_until(deadline) => return,
                rung = bell.changed() => rung.expect("the bell outlives its watches"),
            }
        }
    }

    /// Executes new commands; returns whether the watch has ended.
    async fn is_ended(&self) -> bool {
        let (orders, is_brief, garbage) = {
            let state = self.shared.look();
            let garbage = state
                .garbage
                .clone()
                .filter(|(of, _)| of == self.kind.plural);
            let is_brief = state.brief.contains(self.kind.plural);
            (state.orders, is_brief, garbage)
        };
        if orders.hang > self.orders.hang {
            self.frames.closed().await;
            return true;
        }
        if orders.cut > self.orders.cut {
            let error = io::Error::other("told to cut the connection");
            self.frames.send(Err(error)).await.ok();
            return true;
        }
        if let Some((_, garbage)) = garbage
            && orders.garbage > self.orders.garbage
        {
            let bookmark = News {
                events: Vec::new(),
                bookmark: Some(false),
            };
            self.send_garbage(garbage, &bookmark).await;
            return true;
        }
        is_brief || orders.close > self.orders.close
    }

    /// Sends events and a bookmark, in pieces.
    async fn send(&self, news: &News) {
        let mut text = Vec::new();
        for event in &news.events {
            self.write(&mut text, event);
            if text.len() >= PIECE {
                self.send_text(std::mem::take(&mut text)).await;
            }
        }
        if let Some(ends_list) = news.bookmark {
            self.write_bookmark(&mut text, ends_list);
        }
        self.send_text(text).await;
    }

    async fn send_garbage(&self, garbage: Garbage, news: &News) {
        let mut text = Vec::new();
        for event in &news.events {
            self.write(&mut text, event);
        }
        if let Some(ends_list) = news.bookmark {
            self.write_bookmark(&mut text, ends_list);
        }
        garbage::send(&self.frames, garbage, self.format, Whole::Watch(text)).await;
    }

    async fn send_text(&self, text: Vec<u8>) {
        if !text.is_empty() {
            let length = text.len() as u64;
            let plural = self.kind.plural;
            self.shared
                .note(|state| *state.body_bytes.entry(plural).or_default() += length);
            self.frames.send(Ok(Frame::data(text.into()))).await.ok();
        }
    }

    fn begin(&mut self, begin: &Begin) -> News {
        let Begin::List { marked, .. } = begin else {
            if let Begin::After(version) = begin {
                self.version = *version;
            }
            return News {
                events: Vec::new(),
                bookmark: None,
            };
        };
        let deleted = self.shared.look().deleted_within.clone();
        let deleted = deleted.filter(|(plural, _)| plural == self.kind.plural);
        let is_deleted =
            |object: &Stored| deleted.as_ref().is_some_and(|(_, key)| *key == object.key);
        let (version, events) = self.shared.view(|contents| {
            let objects = contents.collection(self.kind.plural).objects.values();
            let matching = objects.filter(|object| self.filter.matches(object));
            let event = |kind, object: &Arc<Stored>| Event {
                kind,
                object: Arc::clone(object),
            };
            let added = matching.clone().map(|object| event("ADDED", object));
            let deleted = matching.filter(|object| is_deleted(object));
            let events = added.chain(deleted.map(|object| event("DELETED", object)));
            (contents.version, events.collect())
        });
        self.version = version;
        News {
            events,
            bookmark: marked.then_some(true),
        }
    }

    /// Returns the changes, and a bookmark on demand; `None` if the changes are compacted.
    fn news(&mut self) -> Option<News> {
        let shared = Arc::clone(&self.shared);
        let state = shared.look();
        let mut news = News {
            events: Vec::new(),
            bookmark: None,
        };
        if state.orders.hang > self.orders.hang {
            return Some(news);
        }
        let version = shared.view_of(&state, |contents| {
            if self.version < contents.compacted {
                return None;
            }
            let collection = contents.collection(self.kind.plural);
            news.events = collection.since(self.kind, self.version, &self.filter);
            Some(contents.version)
        })?;
        // A watch from a version that the server does not have yet is silent until it has it.
        if version >= self.version {
            self.version = version;
            if self.bookmarks && state.orders.bookmark > self.orders.bookmark {
                self.orders.bookmark = state.orders.bookmark;
                news.bookmark = Some(false);
            }
        }
        Some(news)
    }

    fn write(&self, text: &mut Vec<u8>, event: &Event) {
        let Event { kind, object } = event;
        self.format.event(text, kind, self.kind, object);
        object.sent();
    }

    fn write_bookmark(&self, text: &mut Vec<u8>, ends_list: bool) {
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
