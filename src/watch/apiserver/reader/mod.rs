//! The reader of one kind of object, from its first list on.

use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Uri};
use kube::client::Body;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use super::WatchTimeouts;
use super::answer::{self, Frames};
use super::client::ApiClient;
use super::connections::Recipient;
use super::failure::{LoggedFailures, WatchFailure};
use super::kinds::Watched;
use super::known::KnownNames;
use super::object::WatchedObject;
use super::pauses::Pauses;
use super::request::Requests;
use super::version::{ResourceVersion, SeenVersions};
use crate::config::{AcceptedTypes, ContentType};
use crate::planner::model::{Event, Events, Object, ObjectKey, Update};

mod listing;
mod older;
mod recovery;
mod watching;

/// Lists and watches the objects of kind `W` until the receiver of `events` is dropped.
pub(super) fn read<'a, W: Watched>(
    client: &'a ApiClient,
    our_node: &'a str,
    timeouts: &'a WatchTimeouts,
    events: &'a Sender<Events>,
) -> BoxFuture<'a, ()> {
    let mut reader = WatchReader::<W> {
        client,
        server: None,
        timeouts,
        events,
        requests: Requests {
            our_node,
            accepted: client.accepted,
            seconds: timeouts.watch,
        },
        queue: Vec::with_capacity(QUEUE_LIMIT),
        known: KnownNames::default(),
        versions: SeenVersions::default(),
        next: NextStep::List,
        unconfirmed: false,
        pauses: Pauses::new(timeouts),
        logged: LoggedFailures::default(),
        lists: ListForm::Stream,
        in_pages_since: None,
        json_since: None,
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
    /// The API server that the last request went to.
    server: Option<Uri>,
    /// The timeouts and pauses.
    timeouts: &'a WatchTimeouts,
    /// The channel of the events.
    events: &'a Sender<Events>,
    /// The events that are not sent yet.
    queue: Vec<Event>,
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
    /// The form of the current list.
    lists: ListForm,
    /// The time since which lists come in pages, since a stream failed.
    in_pages_since: Option<Instant>,
    /// The time since which only JSON is accepted, since protobuf failed.
    json_since: Option<Instant>,
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

/// The number of objects after which queued events are sent, even if the next object has arrived.
const QUEUE_LIMIT: usize = 64;

/// What a reader does next.
#[derive(Clone, Debug)]
enum NextStep {
    /// List what is at least as new as everything before.
    List,
    /// List the newest version of etcd.
    ListNewest,
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
        self.choose_forms(Instant::now());
        let end = match (self.next.clone(), self.lists) {
            (NextStep::Watch(after), _) => self.watch(&after).await,
            (NextStep::List | NextStep::ListNewest, ListForm::Stream) => {
                self.list_as_stream().await
            }
            (NextStep::List | NextStep::ListNewest, ListForm::Pages) => self.list_in_pages().await,
        };
        self.flush().await?;
        match end {
            Ok(()) => Ok(()),
            Err(ReadEnd::Failed(failure)) => self.recover(&failure).await,
            Err(ReadEnd::Stopped) => Err(Stopped),
        }
    }

    /// Chooses the forms of the next request: the best ones, unless they failed lately.
    fn choose_forms(&mut self, now: Instant) {
        let fallback = self.timeouts.fallback;
        let is_recent = |since: Option<Instant>| since.is_some_and(|at| now - at < fallback);
        self.lists = if is_recent(self.in_pages_since) {
            ListForm::Pages
        } else {
            ListForm::Stream
        };
        self.requests.accepted = if is_recent(self.json_since) {
            AcceptedTypes::JsonOnly
        } else {
            self.client.accepted
        };
        self.requests.seconds = self.timeouts.next_watch();
    }

    /// Sends the request of a watch.
    async fn open_watch(
        &mut self,
        request: Request<Body>,
    ) -> Result<(ContentType, Frames), WatchFailure> {
        let (format, body) = self.send(request).await?;
        Ok((format, answer::frames(format, body)))
    }

    /// Sends a request, and records the server that it goes to.
    async fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<(ContentType, Body), WatchFailure> {
        let recipient = Recipient::default();
        request.extensions_mut().insert(recipient.clone());
        let answer = answer::send(&self.client.kube, request, self.timeouts.answer).await;
        self.server = recipient.server();
        answer
    }

    /// Returns the URL of the server that the last request went to, or before the first connection
    /// the URLs of all, for the log.
    fn server(&self) -> String {
        self.server
            .as_ref()
            .map_or_else(|| self.client.server(), Uri::to_string)
    }

    /// Records a failure of the server of the last request: another one may be healthier.
    fn distrust(&self) {
        if let Some(server) = &self.server {
            self.client.connections.failed(server);
        }
    }

    /// Queues an object that exists.
    async fn apply(&mut self, object: &WatchedObject<W>) -> Result<(), Stopped> {
        let update = object.update(self.requests.our_node);
        self.known.insert(&update.key.name);
        self.received();
        self.queue(Event::Update(update)).await
    }

    /// Records that an object or a bookmark arrived.
    fn received(&self) {
        self.client.watches.received(W::KIND, self.known.len());
    }

    /// Reports once that the kind is listed.
    async fn report_listed(&mut self) -> Result<(), Stopped> {
        if self.reported_listed {
            return Ok(());
        }
        self.reported_listed = true;
        self.report(Event::Listed(W::KIND)).await
    }

    /// Queues an object, or its deletion.
    async fn update(&mut self, key: ObjectKey, object: Option<Object>) -> Result<(), Stopped> {
        let rejected = Vec::new();
        let update = Update {
            key,
            object,
            rejected,
            triggered: None,
        };
        self.queue(Event::Update(update)).await
    }

    /// Sends an event to the receiver, after the queued ones.
    async fn report(&mut self, event: Event) -> Result<(), Stopped> {
        self.queue.push(event);
        self.flush().await
    }

    /// Queues an event until [`Self::flush`]: each message to the receiver may wake its thread.
    async fn queue(&mut self, event: Event) -> Result<(), Stopped> {
        self.queue.push(event);
        if self.queue.len() < QUEUE_LIMIT {
            return Ok(());
        }
        self.flush().await
    }

    /// Sends the queued events to the receiver.
    async fn flush(&mut self) -> Result<(), Stopped> {
        if self.queue.is_empty() {
            return Ok(());
        }
        let events = mem::replace(&mut self.queue, Vec::with_capacity(QUEUE_LIMIT));
        self.events.send(events).await.ok().ok_or(Stopped)
    }

    /// Sends the queued events, unless another frame has already arrived.
    async fn flush_before(&mut self, frames: &mut Frames) -> Result<(), Stopped> {
        if Pin::new(frames).peek().now_or_never().is_some() {
            return Ok(());
        }
        self.flush().await
    }
}
