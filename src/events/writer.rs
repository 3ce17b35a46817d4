//! The task that writes Events to the API server, one after the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use k8s_openapi::api::events::v1::Event;
use kube::api::PostParams;
use kube::{Api, Client, Error};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::event::{event, hash};
use super::failure::{self, WriteRecovery};
use super::limit::{EventLimiter, LimitDecision};
use super::objects::{self, Uid};
use super::{DroppedEvents, QueuedEvent, ServerUrl, WritePace};
use crate::logging::LogEvent;
use crate::planner::model::ObjectKind;

/// The number of attempts for one Event, as in client-go.
const ATTEMPTS: usize = 12;

/// The time in which the API server must answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Writes queued Events within the limits, and retries after failures.
pub(super) struct EventWriter {
    /// The delays of the writer.
    pace: WritePace,
    /// The client of the API server.
    client: Client,
    /// The URL of the API server, for the log.
    server: ServerUrl,
    /// The name of the node.
    node: Arc<str>,
    /// The counter of dropped Events.
    dropped: DroppedEvents,
    /// The limits on Events.
    limiter: EventLimiter,
    /// The time since which the API server forbids writing Events.
    forbidden_since: Option<Instant>,
    /// The time before which no Events are written.
    held_until: Option<Instant>,
    /// The failures that were logged since the last success.
    logged: BTreeSet<LogEvent>,
}

impl EventWriter {
    /// Builds the writer.
    pub(super) fn new(
        pace: WritePace,
        (client, server): (Client, ServerUrl),
        node: Arc<str>,
        dropped: DroppedEvents,
    ) -> Self {
        Self {
            pace,
            client,
            server,
            node,
            dropped,
            limiter: EventLimiter::default(),
            forbidden_since: None,
            held_until: None,
            logged: BTreeSet::new(),
        }
    }

    /// Writes Events until every [`EventRecorder`](super::EventRecorder) is dropped.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<QueuedEvent>) {
        while let Some(queued) = queue.recv().await {
            let now = Instant::now();
            if self.held_until.is_some_and(|until| now < until) {
                self.dropped.count();
                continue;
            }
            match self.limiter.admit(&queued.event, now) {
                LimitDecision::Repeated => {}
                LimitDecision::TooMany => self.dropped.count_and_log(),
                LimitDecision::WriteAfter(wait) => {
                    sleep(wait.max(self.fleet_delay(&queued, now))).await;
                    self.write_with_retries(&queued).await;
                }
            }
        }
    }

    /// The time until this node writes an Event that every node has, a fixed part of
    /// [`WritePace::spread`] that differs between nodes.
    fn fleet_delay(&self, queued: &QueuedEvent, now: Instant) -> Duration {
        if queued.event.reason.is_local() {
            return Duration::ZERO;
        }
        let part = Duration::from_millis(hash(&[&self.node]) % 1000).as_secs_f64();
        let due = queued.since + self.pace.spread.mul_f64(part);
        due.saturating_duration_since(now)
    }

    /// Writes an Event, and retries until it is written, rejected or forbidden.
    async fn write_with_retries(&mut self, queued: &QueuedEvent) {
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(self.pace.first_pause)
            .with_max_delay(Duration::from_mins(1))
            .with_factor(2.0)
            .with_max_times(ATTEMPTS - 1)
            .with_jitter()
            .build();
        loop {
            let recovery = match timeout(ANSWER_TIMEOUT, self.write(queued)).await {
                Ok(Ok(())) => return self.succeeded(),
                Ok(Err(error)) => self.failed(&error),
                Err(_elapsed) => self.unanswered(),
            };
            let pause = match recovery {
                WriteRecovery::Continue => return self.succeeded(),
                WriteRecovery::Drop => None,
                WriteRecovery::Hold if self.is_grace_over(Instant::now()) => {
                    self.hold(Instant::now());
                    None
                }
                WriteRecovery::Hold => pauses.next(),
                // `Retry-After` is the same for every node; the jitter keeps a fleet from retrying
                // at one time.
                WriteRecovery::Retry(at_least) => pauses.next().map(|pause| at_least + pause),
            };
            let Some(pause) = pause else {
                return self.dropped.count();
            };
            sleep(pause).await;
        }
    }

    /// Returns whether the API server has forbidden Events for longer than [`WritePace::grace`].
    fn is_grace_over(&mut self, now: Instant) -> bool {
        let since = *self.forbidden_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.pace.grace
    }

    /// Writes no Events for [`WritePace::hold`], with jitter.
    fn hold(&mut self, now: Instant) {
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(self.pace.hold)
            .with_max_delay(self.pace.hold)
            .with_jitter()
            .build();
        self.held_until = Some(now + pauses.next().unwrap_or(self.pace.hold));
    }

    /// Writes an Event once.
    async fn write(&self, queued: &QueuedEvent) -> Result<(), Error> {
        let object = &queued.event.object;
        let uid = match objects::uid(&self.client, object).await? {
            Uid::Known(uid) => Some(uid),
            Uid::Hidden => None,
            // An Event about a Node may precede the Node's registration.
            Uid::Gone if object.kind == ObjectKind::Node => None,
            Uid::Gone => {
                debug!(%object, "object is gone; dropping its Event");
                return Ok(());
            }
        };
        let regarding = objects::reference(object, uid);
        let event = event(&queued.event, regarding, &self.node, queued.at);
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        events.create(&PostParams::default(), &event).await?;
        Ok(())
    }

    /// Ends a series of failures, and logs that if there were any.
    fn succeeded(&mut self) {
        self.forbidden_since = None;
        let before = self.logged.len();
        // One accepted Event does not show that the API server accepts the others.
        self.logged
            .retain(|event| *event == LogEvent::EventRejected);
        if self.logged.len() < before {
            info!(event = %LogEvent::EventWritesRecovered, "Events are written again");
        }
    }

    /// Logs each kind of failure once until the next success.
    fn failed(&mut self, error: &Error) -> WriteRecovery {
        let recovery = failure::recovery(error);
        let error = failure::describe(error);
        let server = (self.server)();
        match recovery {
            WriteRecovery::Continue => {}
            WriteRecovery::Drop => {
                if self.logged.insert(LogEvent::EventRejected) {
                    warn!(event = %LogEvent::EventRejected, error, server, "the API server rejects an Event");
                }
            }
            WriteRecovery::Hold => {
                if self.logged.insert(LogEvent::EventsForbidden) {
                    warn!(
                        event = %LogEvent::EventsForbidden,
                        error,
                        server,
                        "cannot write Events: the ClusterRole must allow create on events.events.k8s.io"
                    );
                }
            }
            WriteRecovery::Retry(_) => self.write_failed(&error),
        }
        recovery
    }

    /// Logs a failed write once until the next success.
    fn write_failed(&mut self, error: &str) {
        if self.logged.insert(LogEvent::EventWriteFailed) {
            let server = (self.server)();
            warn!(event = %LogEvent::EventWriteFailed, error, server, "cannot write an Event; retrying");
        }
    }

    /// Handles a write without an answer.
    fn unanswered(&mut self) -> WriteRecovery {
        self.write_failed("no answer from the API server");
        WriteRecovery::Retry(Duration::ZERO)
    }
}
