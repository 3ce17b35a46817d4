//! What a user must know of an object, told as an Event of it, as kube-proxy does: what
//! `kubectl describe service` shows. The log says the same, and all of it.
//!
//! What is wrong with an object every node sees, and at the same moment. kube-proxy tells it once a
//! node. Here the name of an Event follows from what it says, so that the first node makes it and the
//! others are answered that it is there already: one Event, whatever the size of the cluster, for as
//! long as the API server keeps it (an hour, unless configured). So that the answers do not come all
//! at once either, each node waits for its moment within [`WritePace::spread`]. What only this node knows
//! (a port that is taken, a kernel that refuses) bears its name, and is told by each node.
//!
//! Nobody waits for an Event and none is worth a storm. They are limited as client-go limits them: 25
//! of an object, then one each five minutes; and to 10 a second of all objects. The same is not told
//! again within ten minutes. What does not fit is dropped and counted. Who may not write Events says
//! so once; within the first minute it tries again after seconds, later after five minutes.
//!
//! What an Event regards is found in a list of one object, of which only the metadata is sent:
//! kube-proxy's own `ClusterRole`, `system:node-proxier`, may list Services, but not get one.

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

/// What may wait to be written.
const QUEUE: usize = 1000;

/// What is to be told of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewEvent {
    /// Which object.
    pub object: ObjectKey,
    /// Of which sort.
    pub reason: EventReason,
    /// The sentence for the user.
    pub note: String,
}

/// A remark that waits to be written.
#[derive(Debug)]
struct QueuedEvent {
    remark: NewEvent,
    /// When it was made, for who reads it and for who waits.
    at: Timestamp,
    since: Instant,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct WritePace {
    /// The nodes of a cluster tell what all of them see within this time of each other.
    pub spread: Duration,
    /// The first pause after a failure; each one after that is twice as long, up to a minute.
    pub first_pause: Duration,
    /// How long the API server may forbid it before that is taken to stay so: one that has just started
    /// forbids everything until it has its RBAC. What it forbids until then is tried again.
    pub moment: Duration,
    /// How long nothing is written when that stays so; up to as much again, at random.
    pub forbidden: Duration,
}

impl Default for WritePace {
    fn default() -> Self {
        Self {
            spread: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            moment: Duration::from_mins(1),
            forbidden: Duration::from_mins(5),
        }
    }
}

/// Takes remarks, and makes nobody wait. The default tells nobody.
#[derive(Clone, Debug, Default)]
pub struct EventRecorder(Option<EventQueue>);

#[derive(Clone, Debug)]
struct EventQueue {
    node: Arc<str>,
    told: mpsc::Sender<QueuedEvent>,
    dropped: DroppedEvents,
}

impl EventRecorder {
    /// Tells it, some time, unless too much is told already.
    pub fn record(&self, remark: NewEvent) {
        let Some(queue) = &self.0 else { return };
        let told = QueuedEvent {
            remark,
            at: Timestamp::now(),
            since: Instant::now(),
        };
        if queue.told.try_send(told).is_err() {
            queue.dropped.too_many();
        }
    }

    /// Tells it of this Node.
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

/// Counts what is not told.
#[derive(Clone, Debug)]
struct DroppedEvents {
    count: prometheus_client::metrics::counter::Counter,
    said: Arc<AtomicBool>,
}

impl DroppedEvents {
    /// For a reason that was said.
    fn one(&self) {
        self.count.inc();
    }

    /// Since there are too many, which is said once.
    fn too_many(&self) {
        self.one();
        if !self.said.swap(true, Ordering::Relaxed) {
            warn!(
                event = %LogEvent::EventsDropped,
                "too many Events; dropping some, counted by kube_dnat_events_dropped_total"
            );
        }
    }
}

/// Tells the API server what is told to the teller, until there is no teller any more; first, that
/// this node starts.
pub fn to(
    client: Client,
    node: Arc<str>,
    metrics: &Metrics,
) -> (EventRecorder, impl Future<Output = ()> + use<>) {
    to_with(WritePace::default(), client, node, metrics)
}

/// [`to`] at another pace.
pub fn to_with(
    pace: WritePace,
    client: Client,
    node: Arc<str>,
    metrics: &Metrics,
) -> (EventRecorder, impl Future<Output = ()> + use<>) {
    let (told, remarks) = mpsc::channel(QUEUE);
    let dropped = DroppedEvents {
        count: metrics.events_dropped.clone(),
        said: Arc::default(),
    };
    let recorder = EventRecorder(Some(EventQueue {
        node: Arc::clone(&node),
        told,
        dropped: dropped.clone(),
    }));
    let version = env!("CARGO_PKG_VERSION");
    recorder.record_for_node(EventReason::Starting, format!("kube-dnat {version} starts"));
    let writer = EventWriter::new(pace, client, node, dropped);
    (recorder, writer.run(remarks))
}
