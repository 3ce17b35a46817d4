//! Writes what is told, one after the other.

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

use super::event::{event, number};
use super::failure::{self, WriteRecovery};
use super::limit::{EventLimiter, LimitDecision};
use super::objects::{self, Uid};
use super::{DroppedEvents, QueuedEvent, WritePace};
use crate::logging::LogEvent;
use crate::planner::model::ObjectKind;

/// How often one is tried, as client-go does.
const TRIES: usize = 12;

/// How long the API server may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) struct EventWriter {
    pace: WritePace,
    client: Client,
    node: Arc<str>,
    dropped: DroppedEvents,
    limiter: EventLimiter,
    /// Since when the API server forbids it.
    forbidden_since: Option<Instant>,
    /// Nothing is written before this time.
    held_until: Option<Instant>,
    /// The failures that were logged since the last success.
    logged: BTreeSet<LogEvent>,
}

impl EventWriter {
    pub(super) fn new(
        pace: WritePace,
        client: Client,
        node: Arc<str>,
        dropped: DroppedEvents,
    ) -> Self {
        Self {
            pace,
            client,
            node,
            dropped,
            limiter: EventLimiter::default(),
            forbidden_since: None,
            held_until: None,
            logged: BTreeSet::new(),
        }
    }

    /// Until nobody tells anything any more.
    pub(super) async fn run(mut self, mut remarks: mpsc::Receiver<QueuedEvent>) {
        while let Some(told) = remarks.recv().await {
            let now = Instant::now();
            if self.held_until.is_some_and(|until| now < until) {
                self.dropped.one();
                continue;
            }
            match self.limiter.admit(&told.remark, now) {
                LimitDecision::Repeated => {}
                LimitDecision::TooMany => self.dropped.too_many(),
                LimitDecision::After(wait) => {
                    sleep(wait.max(self.turn(&told, now))).await;
                    self.tell(&told).await;
                }
            }
        }
    }

    /// How long until it is this node's turn to say what all nodes see.
    fn turn(&self, told: &QueuedEvent, now: Instant) -> Duration {
        if told.remark.reason.is_of_this_node() {
            return Duration::ZERO;
        }
        let permille = u32::try_from(number(&[&self.node]) % 1000).unwrap_or_default();
        let turn = told.since + self.pace.spread * permille / 1000;
        turn.saturating_duration_since(now)
    }

    async fn tell(&mut self, told: &QueuedEvent) {
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(self.pace.first_pause)
            .with_max_delay(Duration::from_mins(1))
            .with_factor(2.0)
            .with_max_times(TRIES - 1)
            .with_jitter()
            .build();
        loop {
            let remedy = match timeout(ANSWER, self.write(told)).await {
                Ok(Ok(())) => return self.well(),
                Ok(Err(error)) => self.failed(&error),
                Err(_elapsed) => self.unanswered(),
            };
            let pause = match remedy {
                WriteRecovery::Nothing => return self.well(),
                WriteRecovery::GiveUp => None,
                WriteRecovery::Hold => self
                    .forbidden(Instant::now())
                    .then(|| pauses.next())
                    .flatten(),
                // `Retry-After` gives every node the same pause; the jitter keeps a fleet from retrying at one time.
                WriteRecovery::Again(at_least) => pauses.next().map(|pause| at_least + pause),
            };
            let Some(pause) = pause else {
                return self.dropped.one();
            };
            sleep(pause).await;
        }
    }

    /// Takes in that it is forbidden; whether that may be for a moment only, and is worth another try. Else
    /// nothing is written for a while.
    fn forbidden(&mut self, now: Instant) -> bool {
        let since = *self.forbidden_since.get_or_insert(now);
        let for_a_moment = now.saturating_duration_since(since) < self.pace.moment;
        if !for_a_moment {
            let mut pause = ExponentialBuilder::new()
                .with_min_delay(self.pace.forbidden)
                .with_max_delay(self.pace.forbidden)
                .with_jitter()
                .build();
            self.held_until = Some(now + pause.next().unwrap_or(self.pace.forbidden));
        }
        for_a_moment
    }

    async fn write(&self, told: &QueuedEvent) -> Result<(), Error> {
        let object = &told.remark.object;
        let uid = match objects::uid(&self.client, object).await? {
            Uid::Is(uid) => Some(uid),
            Uid::Hidden => None,
            // A Node may be told of before it is registered.
            Uid::Gone if object.kind == ObjectKind::Node => None,
            Uid::Gone => {
                debug!(%object, "gone before an Event could be made of it");
                return Ok(());
            }
        };
        let regarding = objects::reference(object, uid);
        let event = event(&told.remark, regarding, &self.node, told.at);
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        events.create(&PostParams::default(), &event).await?;
        Ok(())
    }

    fn well(&mut self) {
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
        let remedy = failure::remedy(error);
        let error = failure::text(error);
        match remedy {
            WriteRecovery::Nothing => {}
            WriteRecovery::GiveUp => {
                if self.logged.insert(LogEvent::EventRejected) {
                    warn!(event = %LogEvent::EventRejected, error, "the API server rejects an Event");
                }
            }
            WriteRecovery::Hold => {
                if self.logged.insert(LogEvent::EventsForbidden) {
                    warn!(
                        event = %LogEvent::EventsForbidden,
                        error,
                        "cannot write Events: the ClusterRole must allow create on events.events.k8s.io"
                    );
                }
            }
            WriteRecovery::Again(_) => self.write_failed(&error),
        }
        remedy
    }

    fn write_failed(&mut self, error: &str) {
        if self.logged.insert(LogEvent::EventWriteFailed) {
            warn!(event = %LogEvent::EventWriteFailed, error, "cannot write an Event; retrying");
        }
    }

    fn unanswered(&mut self) -> WriteRecovery {
        self.write_failed("no answer from the API server");
        WriteRecovery::Again(Duration::ZERO)
    }
}
