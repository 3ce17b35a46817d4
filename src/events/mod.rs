//! Kubernetes Events, which `kubectl describe service` shows: what users must know about an object.
//!
//! The log has the same messages, and all of them.
//!
//! Every node sees the problems of an object, and at the same moment. kube-proxy writes one Event
//! for each node. Here the name of an Event follows from its content: the first node creates it,
//! and the others get the answer that it exists. So there is one Event, whatever the size of the
//! cluster, for as long as the API server keeps it (an hour by default). The nodes write at
//! different times within [`WritePace::spread`]. An Event about something that only one node can
//! see (a port in use, a rejection by its kernel) is hashed with the node's name, and each node
//! writes its own.
//!
//! Recording an Event never blocks. Events are limited as in client-go: 25 for one object, then one
//! each five minutes; in total 10 a second. An identical Event is not written again within ten
//! minutes. Events beyond the limits are dropped and counted. If the API server forbids Events,
//! that is logged once; the writer retries after seconds during the first minute, later after five
//! minutes.

mod event;
mod failure;
mod limit;
mod objects;
mod reason;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;
use tracing::warn;

use crate::logging::LogEvent;
use crate::metrics::Metrics;
use crate::planner::model::{ObjectKey, ObjectKind};
pub use limit::{EventLimiter, LimitDecision};
pub use reason::EventReason;
use writer::EventWriter;

/// The number of Events that can wait to be written.
const QUEUE_LENGTH: usize = 1000;

/// A message about an object, to be written as an Event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewEvent {
    /// The object that the Event is about.
    pub object: ObjectKey,
    /// The reason, from a closed list.
    pub reason: EventReason,
    /// The message for users.
    pub note: String,
}

/// An Event that waits to be written.
#[derive(Debug)]
struct QueuedEvent {
    /// The Event to write.
    event: NewEvent,
    /// The time of recording, as users see it.
    at: Timestamp,
    /// The time of recording, from which delays are measured.
    since: Instant,
}

/// The delays of the writer.
#[derive(Clone, Copy, Debug)]
pub struct WritePace {
    /// The time within which all nodes write an Event that each of them has.
    pub spread: Duration,
    /// The first pause after a failed write; each later one is twice as long, up to a minute.
    pub first_pause: Duration,
    /// The time during which forbidden writes are retried: an API server that has just started
    /// forbids everything until it has loaded its RBAC rules.
    pub grace: Duration,
    /// The time during which no Events are written after that; up to twice as long, at random.
    pub hold: Duration,
}

impl Default for WritePace {
    fn default() -> Self {
        Self {
            spread: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            grace: Duration::from_mins(1),
            hold: Duration::from_mins(5),
        }
    }
}

/// Records Events without blocking; the default recorder discards them.
#[derive(Clone, Debug, Default)]
pub struct EventRecorder(Option<EventQueue>);

/// The sending end of the queue to the [`EventWriter`].
#[derive(Clone, Debug)]
struct EventQueue {
    /// The name of the node.
    node: Arc<str>,
    /// The channel to the writer.
    sender: mpsc::Sender<QueuedEvent>,
    /// The counter of Events that are not queued.
    dropped: DroppedEvents,
}

impl EventRecorder {
    /// Queues an Event, or drops it if the queue is full.
    pub fn record(&self, event: NewEvent) {
        let Some(queue) = &self.0 else { return };
        let queued = QueuedEvent {
            event,
            at: Timestamp::now(),
            since: Instant::now(),
        };
        if queue.sender.try_send(queued).is_err() {
            queue.dropped.count_and_log();
        }
    }

    /// Queues an Event about the Node that the daemon runs on.
    pub fn record_for_node(&self, reason: EventReason, note: String) {
        let Some(queue) = &self.0 else { return };
        let object = ObjectKey {
            kind: ObjectKind::Node,
            name: Arc::clone(&queue.node),
        };
        self.record(NewEvent {
            object,
            reason,
            note,
        });
    }
}

/// The counter of dropped Events.
#[derive(Clone, Debug)]
struct DroppedEvents {
    /// The metric of dropped Events.
    count: prometheus_client::metrics::counter::Counter,
    /// Whether a dropped Event was logged.
    logged: Arc<AtomicBool>,
}

impl DroppedEvents {
    /// Counts an Event that is dropped for a reason that is in the log.
    fn count(&self) {
        self.count.inc();
    }

    /// Counts an Event beyond the limits, and logs the first one.
    fn count_and_log(&self) {
        self.count();
        if !self.logged.swap(true, Ordering::Relaxed) {
            warn!(
                event = %LogEvent::EventsDropped,
                "too many Events; dropping some, counted by kube_dnat_events_dropped_total"
            );
        }
    }
}

/// A function that returns the URL of the API server, for the log.
pub type ServerUrl = Arc<dyn Fn() -> String + Send + Sync>;

/// Returns a recorder, and the task that writes its Events until the last recorder is dropped.
///
/// The first Event says that the daemon starts on this node.
pub fn recorder(
    server: (Client, ServerUrl),
    node: Arc<str>,
    metrics: &Metrics,
) -> (EventRecorder, impl Future<Output = ()> + use<>) {
    recorder_with(WritePace::default(), server, node, metrics)
}

/// Does the same as [`recorder`] with other delays.
pub fn recorder_with(
    pace: WritePace,
    server: (Client, ServerUrl),
    node: Arc<str>,
    metrics: &Metrics,
) -> (EventRecorder, impl Future<Output = ()> + use<>) {
    let (sender, queue) = mpsc::channel(QUEUE_LENGTH);
    let dropped = DroppedEvents {
        count: metrics.events_dropped.clone(),
        logged: Arc::default(),
    };
    let recorder = EventRecorder(Some(EventQueue {
        node: Arc::clone(&node),
        sender,
        dropped: dropped.clone(),
    }));
    let version = env!("CARGO_PKG_VERSION");
    recorder.record_for_node(
        EventReason::Starting,
        format!("kube-dnat {version} is starting"),
    );
    let writer = EventWriter::new(pace, server, node, dropped);
    (recorder, writer.run(queue))
}
