//! The answers to lists and watches of a kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::Response;
use serde_json::json;
use tokio::sync::mpsc;

use super::answer::{Body, with_body, with_frames};
use super::contents::Contents;
use super::garbage::{self, Whole};
use super::media::Media;
use super::selector::Selector;
use super::shared::Shared;
use super::state::{Garbage, Gone, State, StreamingLists};
use super::store::{Filter, Kind};
use super::watching::{Begin, Watch};

/// A request for a list or a watch; each error of its answer is an HTTP status.
pub(crate) struct Resource {
    pub(crate) shared: Arc<Shared>,
    pub(crate) kind: &'static Kind,
    pub(crate) media: Media,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) garbage: Option<Garbage>,
}

impl Resource {
    pub(crate) async fn answer(self, namespace: Option<&str>) -> Result<Response<Body>, u16> {
        let selector = |key| Selector::parse(self.text(key)).ok_or(400_u16);
        let filter = Filter {
            namespace: namespace.map(str::to_owned),
            labels: selector("labelSelector")?,
            fields: selector("fieldSelector")?,
        };
        let mut fields = filter.fields.keys();
        if !fields.all(|field| self.kind.has_field(field)) {
            return Err(400);
        }
        drop(fields);
        if self.text("watch") == "true" {
            self.watch(filter).await
        } else {
            self.list(&filter).await
        }
    }

    fn text(&self, key: &str) -> &str {
        self.query.get(key).map_or("", String::as_str)
    }

    /// Answers with a list.
    ///
    /// As the watch cache of the real server does, a list at a version comes from what this server
    /// knows, as a whole, and every other list and page from the store.
    async fn list(&self, filter: &Filter) -> Result<Response<Body>, u16> {
        let Self { shared, kind, .. } = self;
        let token = self.text("continue");
        let limit = self.text("limit").parse().unwrap_or(usize::MAX);
        let text = match self.text("resourceVersion") {
            "" => {
                let contents = shared.cluster.contents();
                self.page(&contents, filter, limit, token)?
            }
            "0" => shared.view(|contents| self.page(contents, filter, usize::MAX, ""))?,
            version => {
                self.until_fresh(version.parse().or(Err(400_u16))?).await?;
                shared.view(|contents| self.page(contents, filter, usize::MAX, ""))?
            }
        };
        shared.note(|state| {
            *state.body_bytes.entry(kind.plural).or_default() += text.len() as u64;
        });
        let media_type = self.media.format.media_type();
        let Some(garbage) = self.garbage else {
            return Ok(with_body(200, media_type, text.into()));
        };
        let (frames, received) = mpsc::channel(1);
        let format = self.media.format;
        tokio::spawn(async move {
            garbage::send(&frames, garbage, format, Whole::List(text)).await;
        });
        Ok(with_frames(media_type, received))
    }

    async fn until_fresh(&self, version: u64) -> Result<(), u16> {
        let is_fresh = self.shared.is_fresh(version).await;
        is_fresh.then_some(()).ok_or(504)
    }

    /// Builds a page; its continue token has the version and the last object of the page.
    fn page(
        &self,
        contents: &Contents,
        filter: &Filter,
        limit: usize,
        token: &str,
    ) -> Result<Vec<u8>, u16> {
        let (version, last) = match token.split_once(' ') {
            Some((version, last)) => (version.parse().or(Err(400_u16))?, last),
            None => (contents.version, ""),
        };
        if version < contents.compacted {
            return Err(410);
        }
        let objects = &contents.collection(self.kind.plural).objects;
        let page: Vec<_> = objects
            .range(last.to_owned()..)
            .map(|(_, object)| object)
            .filter(|object| object.key != last && filter.matches(object))
            .take(limit.saturating_add(1))
            .collect();
        let is_last = page.len() <= limit;
        let page = page.get(..limit).unwrap_or(&page);
        let token = match page.last() {
            Some(last) if !is_last => format!("{version} {}", last.key),
            _ => String::new(),
        };
        let metadata = json!({"resourceVersion": version.to_string(), "continue": token});
        for object in page {
            object.sent();
        }
        let page = page.iter().map(|object| &***object);
        Ok(self.media.list(self.kind, &metadata, page))
    }

    async fn watch(self, filter: Filter) -> Result<Response<Body>, u16> {
        let begin = begin(&self.shared, &self.shared.look(), &self.query)?;
        if let Begin::List {
            at_least: Some(version),
            ..
        } = begin
        {
            self.until_fresh(version).await?;
        }
        let seconds = self.text("timeoutSeconds").parse().unwrap_or(1800);
        let bookmarks = self.text("allowWatchBookmarks") == "true";
        let format = self.media.format;
        let (frames, received) = mpsc::channel(16);
        let watch = Watch::new(self.shared, self.kind, format, filter, bookmarks, frames);
        tokio::spawn(watch.run(begin, seconds, self.garbage));
        Ok(with_frames(format.stream_type(), received))
    }
}

/// Returns the start of a watch, by the rules of `ValidateListOptions` in apimachinery.
fn begin(shared: &Shared, state: &State, query: &BTreeMap<String, String>) -> Result<Begin, u16> {
    let text = |key: &str| query.get(key).map_or("", String::as_str);
    let streams = text("sendInitialEvents") == "true";
    let not_older = text("resourceVersionMatch") == "NotOlderThan";
    let marked = match state.streaming_lists {
        StreamingLists::Served if streams != not_older => return Err(422),
        StreamingLists::Refused if streams || not_older => return Err(422),
        StreamingLists::Served => streams,
        StreamingLists::Refused | StreamingLists::Ignored => false,
    };
    let version = match text("resourceVersion") {
        // A streaming list without a version is as new as the store.
        "" if marked => Some(shared.cluster.contents().version),
        "" | "0" => None,
        version => Some(version.parse().or(Err(400_u16))?),
    };
    match (marked, version) {
        (true, at_least) => Ok(Begin::List {
            marked: true,
            at_least,
        }),
        (false, None) => Ok(Begin::List {
            marked: false,
            at_least: None,
        }),
        (false, Some(version)) => match state.gone {
            Gone::Status if version < shared.view_of(state, |it| it.compacted) => Err(410),
            Gone::Status | Gone::Event => Ok(Begin::After(version)),
        },
    }
}
