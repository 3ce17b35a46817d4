//! The reader of one kind of object, from its first list on.

use std::marker::PhantomData;
use std::time::Duration;

use futures::{FutureExt, StreamExt, future::BoxFuture};
use http::Request;
use kube::client::Body;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, error, info, warn};

use super::WatchTimeouts;
use super::answer::{self, Frames};
use super::client::ApiClient;
use super::content::ContentType;
use super::decode::{self, WatchFrame};
use super::failure::{self, LoggedFailures, ReaderPhase, ReaderState, WatchFailure, WatchRecovery};
use super::kinds::Watched;
use super::known::KnownNames;
use super::object::WatchedObject;
use super::pauses::Pauses;
use super::request::{ListStart, Requests};
use super::version::{ListAge, ResourceVersion, SeenVersions};
use crate::config::AcceptedTypes;
use crate::logging::LogEvent;
use crate::planner::model::{Event, Events, Object, ObjectKey, Update};

/// Lists and watches the objects of kind `W` until the receiver of `events` is dropped.
pub(super) fn read<'a, W: Watched>(
    client: &'a ApiClient,
    our_node: &'a str,
    timeouts: &'a WatchTimeouts,
    events: &'a Sender<Events>,
) -> BoxFuture<'a, ()> {
    let mut reader = WatchReader::<W> {
        client,
        timeouts,
        events,
        requests: Requests {
            our_node,
            accepted: client.accepted,
            seconds: timeouts.watch,
        },
        known: KnownNames::default(),
        versions: SeenVersions::default(),
        next: NextStep::List,
        unconfirmed: false,
        pauses: Pauses::new(timeouts),
        logged: LoggedFailures::default(),
        lists: ListForm::Stream,
        page_limit: PAGE_LIMIT,
        broken_lists: 0,
        failures: 0,
        malformed: 0,
        reported_listed: false,
        unavailable: false,
        kind: PhantomData,
    };
    async move { while reader.step().await.is_ok() {} }.boxed()
}

/// The state of the reader of kind `W`.
struct WatchReader<'a, W> {
    /// The client of the API servers.
    client: &'a ApiClient,
    /// The timeouts and pauses.
    timeouts: &'a WatchTimeouts,
    /// The channel of the events.
    events: &'a Sender<Events>,
    /// The requests of the kind.
    requests: Requests<'a>,
    /// The names of the known objects.
    known: KnownNames,
    /// The newest version that was seen.
    versions: SeenVersions,
    /// What to do next.
    next: NextStep,
    /// Whether the API server may have gone back before the version of the watch: the watch was
    /// interrupted, and nothing has arrived since.
    unconfirmed: bool,
    /// The pauses after failures.
    pauses: Pauses,
    /// The failures that are in the log.
    logged: LoggedFailures,
    /// The form of lists; after a rejection of a stream, they come in pages for good.
    lists: ListForm,
    /// The number of objects in a page.
    page_limit: u32,
    /// The number of consecutive streaming lists that the API server closed before their end.
    broken_lists: u32,
    /// The number of consecutive failures.
    failures: u32,
    /// The number of consecutive answers that did not decode.
    malformed: u32,
    /// Whether [`Event::Listed`] was reported.
    reported_listed: bool,
    /// Whether the kind was logged as unavailable since its last list.
    unavailable: bool,
    /// The kind that the reader lists.
    kind: PhantomData<W>,
}

/// The number of objects in a page, as in client-go.
const PAGE_LIMIT: u32 = 500;

/// The number of consecutive failures after which the reader relists.
///
/// Not every server answers 410 if it cannot continue a watch.
const RELIST_AFTER: u32 = 6;

/// A watch that ends within this time without an event was closed at once, as in client-go.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// What a reader does next.
#[derive(Clone, Debug)]
enum NextStep {
    /// List what is at least as new as everything before.
    List,
    /// List the newest version of etcd.
    ListNewest,
    /// Ask for the newest version until it is new enough, since a list was older.
    AwaitNewer,
    /// Watch from this version on.
    Watch(ResourceVersion),
}

/// The form of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListForm {
    /// As a stream, which continues as a watch.
    Stream,
    /// In pages.
    Pages,
}

/// The end of what a reader was doing.
enum ReadEnd {
    /// The list or watch failed.
    Failed(WatchFailure),
    /// The receiver of the events is dropped.
    Stopped,
}

/// The receiver of the events is dropped.
struct Stopped;

impl From<WatchFailure> for ReadEnd {
    fn from(failure: WatchFailure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Stopped> for ReadEnd {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl<W: Watched> WatchReader<'_, W> {
    /// Lists or watches once, and recovers if that fails.
    async fn step(&mut self) -> Result<(), Stopped> {
        let end = match (self.next.clone(), self.lists) {
            (NextStep::Watch(after), _) => self.watch(&after).await,
            (NextStep::AwaitNewer, _) => self.await_newer().await,
            (NextStep::List | NextStep::ListNewest, ListForm::Stream) => {
                self.list_as_stream().await
            }
            (NextStep::List | NextStep::ListNewest, ListForm::Pages) => self.list_in_pages().await,
        };
        match end {
            Ok(()) => Ok(()),
            Err(ReadEnd::Failed(failure)) => self.recover(&failure).await,
            Err(ReadEnd::Stopped) => Err(Stopped),
        }
    }

    /// Lists the objects as a stream, and watches them in the same stream.
    async fn list_as_stream(&mut self) -> Result<(), ReadEnd> {
        let start = match (&self.next, self.versions.newest()) {
            (NextStep::ListNewest, _) => ListStart::Newest,
            (_, Some(newest)) => ListStart::NotOlderThan(newest.clone()),
            (_, None) => ListStart::Cached,
        };
        let (format, mut frames) = self
            .open_watch(self.requests.streaming_list::<W>(&start))
            .await?;
        self.known.begin();
        loop {
            let next = timeout(self.timeouts.streaming_list, frames.next());
            let Some(frame) = next.await.map_err(|_elapsed| WatchFailure::Stalled)? else {
                self.broken_lists += 1;
                return Err(WatchFailure::ClosedAtOnce.into());
            };
            match decode::watch_frame::<W>(format, frame?).map_err(WatchFailure::from)? {
                WatchFrame::Applied(object) => self.apply(&object).await?,
                WatchFrame::Bookmark { version, ends_list } if ends_list => {
                    self.complete_list(&version).await?;
                    return self.follow(format, frames).await;
                }
                // No list has deleted objects, and other bookmarks do not matter.
                WatchFrame::Deleted(_) | WatchFrame::Bookmark { .. } => {}
                WatchFrame::Failed(status) => return Err(WatchFailure::Ended(status).into()),
            }
        }
    }

    /// Lists the objects in pages.
    async fn list_in_pages(&mut self) -> Result<(), ReadEnd> {
        self.known.begin();
        let mut token = None;
        loop {
            let request = self
                .requests
                .page::<W>(self.page_limit, token.as_deref());
            let answer = self.send(request).await?;
            let page = answer::page::<W>(answer, self.timeouts.answer).await?;
            for object in &page.items {
                self.apply(object).await?;
            }
            token = page.next;
            if token.is_none() {
                return self.complete_list(&page.version).await;
            }
        }
    }

    /// Watches the objects from a version on.
    async fn watch(&mut self, after: &ResourceVersion) -> Result<(), ReadEnd> {
        let (format, frames) = self.open_watch(self.requests.watch::<W>(after)).await?;
        self.follow(format, frames).await
    }

    /// Follows a watch to its end.
    async fn follow(&mut self, format: ContentType, mut frames: Frames) -> Result<(), ReadEnd> {
        let start = Instant::now();
        let end = start + self.timeouts.longest_watch();
        let confirmed_by = start + self.timeouts.confirmation;
        let mut is_empty = true;
        loop {
            let checks = self.unconfirmed && confirmed_by < end;
            let limit = if checks { confirmed_by } else { end };
            let frame = match timeout_at(limit, frames.next()).await {
                Ok(Some(frame)) => frame?,
                Ok(None) if is_empty && start.elapsed() < SHORT_WATCH => {
                    return Err(WatchFailure::ClosedAtOnce.into());
                }
                Ok(None) => {
                    // A watch that ends before its timeout ends with its API server.
                    self.unconfirmed |= start.elapsed() < self.timeouts.shortest_watch();
                    return Ok(());
                }
                Err(_elapsed) if checks => {
                    self.confirm().await?;
                    continue;
                }
                Err(_elapsed) => return Err(WatchFailure::Silent.into()),
            };
            is_empty = false;
            match decode::watch_frame::<W>(format, frame).map_err(WatchFailure::from)? {
                WatchFrame::Applied(object) => {
                    self.advance(object.version())?;
                    self.apply(&object).await?;
                }
                WatchFrame::Deleted(object) => {
                    self.advance(object.version())?;
                    let key = object.key();
                    self.known.remove(&key.name);
                    self.update(key, None).await?;
                }
                WatchFrame::Bookmark { version, .. } => self.advance(Some(version))?,
                WatchFrame::Failed(status) => return Err(WatchFailure::Ended(status).into()),
            }
        }
    }

    /// Checks that the API server still has the version after which the watch continues.
    ///
    /// A watch of a later version than the newest one is silent, for a restored etcd for hours
    /// (kubernetes/kubernetes 107457). A bookmark, once a minute, makes the check needless.
    async fn confirm(&mut self) -> Result<(), WatchFailure> {
        let version = self.newest_version().await?;
        if self.judge(&version) != ListAge::Current {
            self.next = NextStep::AwaitNewer;
            return Err(WatchFailure::Older);
        }
        self.unconfirmed = false;
        Ok(())
    }

    /// Records the version of a watch event, after a success.
    fn advance(&mut self, version: Option<ResourceVersion>) -> Result<(), WatchFailure> {
        let version =
            version.ok_or(WatchFailure::Malformed(decode::DecodeError::NoVersion))?;
        self.versions.record(&version);
        self.next = NextStep::Watch(version);
        self.unconfirmed = false;
        self.succeeded();
        Ok(())
    }

    /// Sends the request of a watch.
    async fn open_watch(
        &self,
        request: Request<Body>,
    ) -> Result<(ContentType, Frames), WatchFailure> {
        let (format, body) = self.send(request).await?;
        Ok((format, answer::frames(format, body)))
    }

    /// Sends a request.
    async fn send(&self, request: Request<Body>) -> Result<(ContentType, Body), WatchFailure> {
        answer::send(&self.client.kube, request, self.timeouts.answer).await
    }

    /// Reports an object that exists.
    async fn apply(&mut self, object: &WatchedObject<W>) -> Result<(), Stopped> {
        let update = object.update(self.requests.our_node);
        self.known.insert(&update.key.name);
        self.report(Event::Update(update)).await
    }

    /// Completes a list, and reports deleted objects unless the list is an old one.
    async fn complete_list(&mut self, version: &ResourceVersion) -> Result<(), ReadEnd> {
        match self.judge(version) {
            ListAge::Current => {}
            ListAge::Older => {
                self.next = NextStep::AwaitNewer;
                return Err(WatchFailure::Older.into());
            }
            ListAge::WentBack => warn!(
                event = %LogEvent::ApiServerWentBack, kind = %W::KIND, %version,
                "the API server has lost its newer versions, as after a restore of etcd; \
                 following the older ones"
            ),
        }
        for name in self.known.finish() {
            let kind = W::KIND;
            self.update(ObjectKey { kind, name }, None).await?;
        }
        debug!(kind = %W::KIND, "listed");
        self.versions.restart(version);
        self.next = NextStep::Watch(version.clone());
        self.unconfirmed = false;
        self.unavailable = false;
        self.pauses.available();
        self.succeeded();
        Ok(self.report_listed().await?)
    }

    /// Asks for the newest version, and lists again if it is new enough or stays older.
    async fn await_newer(&mut self) -> Result<(), ReadEnd> {
        let version = self.newest_version().await?;
        if self.judge(&version) == ListAge::Older {
            return Err(WatchFailure::Older.into());
        }
        self.next = NextStep::ListNewest;
        Ok(())
    }

    /// Asks for the newest version with a list of one object, which costs next to nothing.
    async fn newest_version(&mut self) -> Result<ResourceVersion, WatchFailure> {
        let answer = self.send(self.requests.page::<W>(1, None)).await?;
        let page = answer::page::<W>(answer, self.timeouts.answer).await?;
        Ok(page.version)
    }

    /// Judges a list by its version.
    fn judge(&mut self, version: &ResourceVersion) -> ListAge {
        let patience = self.timeouts.older_lists;
        self.versions.judge(version, Instant::now(), patience)
    }

    /// Reports once that the kind is listed.
    async fn report_listed(&mut self) -> Result<(), Stopped> {
        if self.reported_listed {
            return Ok(());
        }
        self.reported_listed = true;
        self.report(Event::Listed(W::KIND)).await
    }

    /// Reports an object, or its deletion.
    async fn update(&self, key: ObjectKey, object: Option<Object>) -> Result<(), Stopped> {
        let rejected = Vec::new();
        let update = Update {
            key,
            object,
            rejected,
            triggered: None,
        };
        self.report(Event::Update(update)).await
    }

    /// Sends an event to the receiver.
    async fn report(&self, event: Event) -> Result<(), Stopped> {
        self.events.send(vec![event]).await.ok().ok_or(Stopped)
    }

    /// Ends a series of failures, and logs that if there were any.
    fn succeeded(&mut self) {
        self.broken_lists = 0;
        self.failures = 0;
        self.malformed = 0;
        self.pauses.succeeded();
        if self.logged.clear() {
            info!(event = %LogEvent::WatchRecovered, kind = %W::KIND, "watch recovered");
        }
    }

    /// Handles a failure.
    async fn recover(&mut self, failure: &WatchFailure) -> Result<(), Stopped> {
        let phase = match (&self.next, self.lists) {
            (NextStep::Watch(_), _) => ReaderPhase::Watching,
            (NextStep::List | NextStep::ListNewest, ListForm::Stream) => ReaderPhase::StreamingList,
            (NextStep::List | NextStep::ListNewest | NextStep::AwaitNewer, _) => ReaderPhase::Pages,
        };
        let is_listed = phase == ReaderPhase::Watching;
        let state = ReaderState {
            phase,
            protobuf: self.requests.accepted != AcceptedTypes::JsonOnly,
            optional: W::OPTIONAL,
            malformed: self.malformed,
        };
        let recovery = failure::recovery(failure, state);
        let text = failure.describe();
        match recovery {
            WatchRecovery::InPages => {
                self.in_pages(&text);
                return Ok(());
            }
            WatchRecovery::Unavailable => return self.continue_without(&text).await,
            WatchRecovery::Json => self.accept_json(&text),
            WatchRecovery::Retry | WatchRecovery::Relist => self.log(failure, &text),
        }
        let interrupted = Event::Interrupted(W::KIND, failure.reason());
        self.report(interrupted).await?;
        self.note(failure, is_listed);
        self.failures += 1;
        if recovery == WatchRecovery::Relist || (is_listed && self.failures >= RELIST_AFTER) {
            self.failures = 0;
            self.next = NextStep::List;
        }
        if recovery != WatchRecovery::Json {
            self.pauses.after_failure(failure.retry_after()).await;
        }
        Ok(())
    }

    /// Records what a failure says about the next requests.
    fn note(&mut self, failure: &WatchFailure, is_listed: bool) {
        self.unconfirmed = is_listed;
        if matches!(self.next, NextStep::List) && self.versions.newest().is_some() {
            // A list that fails from one version may succeed from another one.
            self.next = NextStep::ListNewest;
        }
        match failure {
            WatchFailure::Older => self.client.connections.distrust(),
            WatchFailure::Malformed(error) => {
                self.malformed += 1;
                if matches!(error, decode::DecodeError::TooLarge) {
                    self.page_limit = (self.page_limit / 2).max(1);
                }
            }
            WatchFailure::MediaType(_) => self.malformed += 1,
            WatchFailure::Rejected(_)
            | WatchFailure::Ended(_)
            | WatchFailure::Connection(_)
            | WatchFailure::Broken(_)
            | WatchFailure::ClosedAtOnce
            | WatchFailure::Silent
            | WatchFailure::Stalled => {}
        }
        if self.lists == ListForm::Stream && self.broken_lists > 1 {
            self.in_pages("two streaming lists broke off");
        }
    }

    /// Logs a failure, at a level that fits it.
    fn log(&mut self, failure: &WatchFailure, text: &str) {
        let server = self.client.server().unwrap_or_default();
        if failure.is_routine() || !self.logged.is_new(text, Instant::now()) {
            debug!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, server, "watch failed");
        } else if failure.is_forbidden() {
            error!(event = %LogEvent::WatchForbidden, error = %text, kind = %W::KIND, server, "watch forbidden by the API server");
        } else {
            warn!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, server, "watch failed");
        }
    }

    /// Switches to lists in pages.
    fn in_pages(&mut self, reason: &str) {
        debug!(%reason, kind = %W::KIND, "listing in pages from now on");
        self.lists = ListForm::Pages;
    }

    /// Switches to JSON.
    fn accept_json(&mut self, reason: &str) {
        info!(event = %LogEvent::JsonOnly, error = %reason, kind = %W::KIND, "requesting JSON instead of protobuf from now on");
        self.requests.accepted = AcceptedTypes::JsonOnly;
    }

    /// Continues without an optional kind; objects that were reported before stay.
    async fn continue_without(&mut self, error: &str) -> Result<(), Stopped> {
        if !self.unavailable {
            self.unavailable = true;
            warn!(event = %LogEvent::KindUnavailable, %error, kind = %W::KIND, "kind unavailable; continuing without it");
        }
        self.next = NextStep::List;
        self.report_listed().await?;
        // For a moment after its start an API server answers 403 until it has its RBAC, and 404
        // until it serves every kind.
        sleep(self.pauses.unavailable()).await;
        Ok(())
    }
}
