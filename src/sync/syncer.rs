//! The sync loop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::warn;

use super::affinity::{self, AffinityReaper, FullMaps};
use super::audit::Auditor;
use super::conntrack::ConntrackCleaner;
use super::drift::DriftMonitor;
use super::localhost::LocalhostPorts;
use super::metrics::{self, SyncMetrics};
use super::mode::SyncMode;
use super::reading::Reading;
use super::tasks::{Backoff, Task, Tasks};
use super::{DebugRequest, Diagnostic, Sockets, State, SyncHealth, SyncOutcome};
use crate::events::EventRecorder;
use crate::logging::LogEvent;
use crate::metrics::Metrics;
use crate::netlink::{Kernel, TableMonitor};
use crate::per_family;
use crate::planner::desired::{HealthCheckChange, LocalhostChange};
use crate::planner::model::Events;

/// The default of the longest pause before a retry.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The delay after which unused dynamic chains are deleted together.
///
/// Each change of a chain makes the kernel validate the table, and a rollout soon needs the chain
/// again.
const UNUSED_CHAINS_DELAY: Duration = Duration::from_mins(10);

/// The sync loop, which owns the state of the node and everything that programs the kernel.
pub struct Syncer {
    pub(super) kernel: Kernel,
    pub(super) reaper: AffinityReaper,
    pub(super) drift: DriftMonitor,
    pub(super) auditor: Auditor,
    health_checks: UnboundedSender<HealthCheckChange>,
    pub(super) localhost: LocalhostPorts,
    pub(super) sync_health: Arc<SyncHealth>,
    pub(super) cleaner: ConntrackCleaner,
    pub(super) full_maps: FullMaps,
    pub(super) metrics: SyncMetrics,
    recorder: EventRecorder,
    pub(super) state: State,
    /// The minimum interval between the starts of two syncs.
    min_sync_period: Duration,
    /// The longest pause before a retry.
    longest_retry: Duration,
    /// The moment from which the state counts time.
    started: Instant,
    pub(super) last_sync: Option<Instant>,
    pub(super) mode: SyncMode,
    /// The read-back that is not complete.
    pub(super) reading: Option<Reading>,
    /// The number of read-backs in a row that started over, because the ruleset changed.
    pub(super) reading_restarts: u32,
    /// Whether the last sync failed because another process owns the tables.
    pub(super) owned_by_other: bool,
    /// The failure that was logged since the last sync that succeeded.
    pub(super) logged_failure: Option<String>,
    pub(super) committed_once: bool,
    /// The channel that is notified when the kernel first holds everything that is desired.
    first_sync: Option<oneshot::Sender<()>>,
}

impl Syncer {
    /// Creates the sync loop of a node.
    ///
    /// It sends changes of health checks to `health_checks`, and reports pending changes to
    /// `sync_health`.
    ///
    /// # Errors
    /// If a thread cannot start.
    pub fn new(
        sockets: Sockets,
        state: State,
        health_checks: UnboundedSender<HealthCheckChange>,
        sync_health: Arc<SyncHealth>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let Sockets {
            kernel,
            for_clients,
            for_audits,
            conntrack,
        } = sockets;
        let drift = DriftMonitor::new(TableMonitor::new(kernel.port()), kernel.owns_tables());
        let families = per_family!(state.families.as_ref(), |family| family.family());
        Ok(Self {
            kernel,
            drift,
            reaper: AffinityReaper::start(for_clients)?,
            auditor: Auditor::start(for_audits)?,
            health_checks,
            localhost: LocalhostPorts::default(),
            sync_health,
            cleaner: ConntrackCleaner::new(conntrack, metrics.clone()),
            full_maps: FullMaps::default(),
            metrics: SyncMetrics::new(metrics, families.into_iter().collect()),
            recorder: EventRecorder::default(),
            state,
            min_sync_period: Duration::ZERO,
            longest_retry: LONGEST_RETRY,
            started: Instant::now(),
            last_sync: None,
            mode: SyncMode::ReadBack,
            reading: None,
            reading_restarts: 0,
            owned_by_other: false,
            logged_failure: None,
            committed_once: false,
            first_sync: None,
        })
    }

    /// Sets the minimum interval between two syncs and the longest pause before a retry.
    #[must_use]
    pub fn paced(self, min_sync_period: Duration, sync_period: Duration) -> Self {
        Self {
            min_sync_period,
            longest_retry: sync_period,
            ..self
        }
    }

    /// Sets the channel that is notified when the kernel first holds everything that is desired.
    #[must_use]
    pub fn with_first_sync(self, first_sync: Option<oneshot::Sender<()>>) -> Self {
        Self { first_sync, ..self }
    }

    /// Sets the relay that serves node ports at localhost, if there is one.
    #[must_use]
    pub fn with_relay(self, relay: Option<UnboundedSender<LocalhostChange>>) -> Self {
        Self {
            localhost: LocalhostPorts::new(relay),
            ..self
        }
    }

    /// Sets the recorder of diagnostics as Events.
    #[must_use]
    pub fn with_recorder(self, recorder: EventRecorder) -> Self {
        Self { recorder, ..self }
    }

    /// Syncs until `stop` is true or the sources of events are gone.
    ///
    /// Events that arrive during a commit go together into the next one. A commit blocks the
    /// thread.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Events>,
        mut debug_requests: mpsc::Receiver<DebugRequest>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut tasks = Tasks::default();
        let mut backoff = Backoff::default();
        self.drift.listen();
        loop {
            // The runtime polls the sockets of notifications only when this task yields, which a
            // `select!` with a branch that is always ready does not.
            yield_now().await;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                pause = self.drift.wait() => tasks.schedule(Task::ReadBack, pause),
                task = tasks.next() => self.perform(task),
                () = self.reaper.wait() => self.reap_some(),
                () = self.auditor.wait() => {}
                received = events.recv() => match received {
                    Some(received) => self.handle_events(received),
                    None => return,
                },
                Some(request) = debug_requests.recv() => self.answer(request),
            }
            // While a read-back goes on, its next step is always due.
            while let Ok(request) = debug_requests.try_recv() {
                self.answer(request);
            }
            // The limit keeps busy sources from delaying the sync.
            for _ in 0..events.max_capacity() {
                let Ok(received) = events.try_recv() else {
                    break;
                };
                self.handle_events(received);
            }
            self.sync_health
                .set_node_leaving(self.state.node_is_leaving());
            self.conclude_audit();
            if self.state.is_complete() {
                self.state.advance_slow_starts(self.started.elapsed());
                self.sync_if_due(&mut tasks, &mut backoff);
                let diagnostics = self.state.check_node_name();
                self.report_diagnostics(diagnostics);
            }
            self.metrics
                .set_objects_not_served(self.state.objects_not_served());
            self.schedule(&mut tasks);
        }
    }

    /// Performs a task. The sync itself follows in any case.
    fn perform(&mut self, task: Task) {
        match task {
            Task::ReadBack => {
                if self.mode == SyncMode::Incremental {
                    self.mode = SyncMode::ReadBack;
                } else if let Some(reading) = &mut self.reading {
                    reading.is_outdated = true;
                }
            }
            Task::Retry => self.state.retry_skipped(),
            Task::Sync | Task::SlowStart => {}
            Task::CleanConntrack => self.cleaner.clean_if_due(&self.state),
            Task::ReapClients => self.retry_reaping(),
            Task::DeleteUnusedChains => self.delete_unused_chains(),
            Task::CheckAffinityMaps => self.check_affinity_maps(),
        }
    }

    /// Answers a request for a part of the state, unless the client has closed its connection.
    fn answer(&self, request: DebugRequest) {
        match request {
            DebugRequest::Json(view, response) if !response.is_closed() => {
                let _closed = response.send(self.state.debug(view));
            }
            DebugRequest::Services(known, response) if !response.is_closed() => {
                let is_new = known != Some(self.state.revision());
                let _closed = response.send(is_new.then(|| self.state.services_view()));
            }
            DebugRequest::Json(..) | DebugRequest::Services(..) => {}
        }
    }

    /// Syncs, unless a retry or the minimum interval between syncs delays that.
    fn sync_if_due(&mut self, tasks: &mut Tasks, backoff: &mut Backoff) {
        self.sync_health.pending();
        if backoff.is_failing && tasks.is_scheduled(Task::Retry) {
            // An event does not make success more likely.
            return;
        }
        let delay = self.delay();
        if delay.is_zero() {
            let outcome = self.sync_once();
            self.conclude(outcome, tasks, backoff);
        } else {
            tasks.schedule(Task::Sync, delay);
        }
    }

    /// Returns the time until the next sync may start; none if it has nothing to do.
    fn delay(&self) -> Duration {
        if self.is_clean() || self.reading.is_some() {
            return Duration::ZERO;
        }
        self.last_sync.map_or(Duration::ZERO, |last| {
            let next = last + self.min_sync_period;
            next.saturating_duration_since(Instant::now())
        })
    }

    /// Reports the outcome of a sync, and schedules the retry that it needs.
    fn conclude(&mut self, outcome: SyncOutcome, tasks: &mut Tasks, backoff: &mut Backoff) {
        if !matches!(outcome, SyncOutcome::Pending | SyncOutcome::Reading) {
            self.sync_health.committed();
        }
        match outcome {
            SyncOutcome::Complete => {
                if let Some(first_sync) = self.first_sync.take() {
                    // The daemon may be about to exit.
                    let _closed = first_sync.send(());
                }
                tasks.set(Task::Retry, None);
                *backoff = Backoff::default();
            }
            SyncOutcome::Reading => tasks.set(Task::Sync, Some(Instant::now())),
            SyncOutcome::SomeSkipped => {
                backoff.is_failing = false;
                if !tasks.is_scheduled(Task::Retry) {
                    tasks.schedule(Task::Retry, backoff.pause);
                    backoff.lengthen(self.longest_retry);
                }
            }
            SyncOutcome::Pending => {
                if !backoff.is_failing {
                    *backoff = Backoff::failing();
                }
                tasks.set(Task::Retry, Some(Instant::now() + backoff.pause));
                // The kernel does not notify of the exit of another owner, and an attempt is cheap.
                if !self.owned_by_other {
                    backoff.lengthen(self.longest_retry);
                }
            }
        }
    }

    /// Schedules the tasks that the state requires.
    fn schedule(&mut self, tasks: &mut Tasks) {
        if let Some(delay) = self.drift.take_audit() {
            tasks.schedule(Task::ReadBack, delay);
        }
        if self.has_unused_chains() {
            tasks.schedule(Task::DeleteUnusedChains, UNUSED_CHAINS_DELAY);
        }
        if self.has_affinity() {
            tasks.schedule(Task::CheckAffinityMaps, affinity::CHECK_INTERVAL);
        }
        if let Some(delay) = self.reaper.retry_delay() {
            tasks.schedule(Task::ReapClients, delay);
        }
        let next_step = self.state.store.next_slow_start_step();
        tasks.set(Task::SlowStart, next_step.map(|step| self.started + step));
        let next_cleanup = self.cleaner.next_cleanup();
        self.metrics.cleanup_pending(next_cleanup.is_some());
        tasks.set(Task::CleanConntrack, next_cleanup);
    }

    /// Applies events to the state, and reports their diagnostics.
    fn handle_events(&mut self, events: Events) {
        for event in events {
            self.metrics.count_event(&event);
            let rejected = metrics::rejected_parts(&event);
            let diagnostics = self.state.apply(event);
            if !diagnostics.is_empty() {
                self.metrics.count_rejected_parts(rejected);
            }
            self.report_diagnostics(diagnostics);
        }
    }

    /// Logs diagnostics, and records them as Events.
    pub(super) fn report_diagnostics(&self, diagnostics: Vec<Diagnostic>) {
        for diagnostic in diagnostics {
            diagnostic.log();
            self.recorder.record(diagnostic.event());
        }
    }

    /// Sends the changed health checks to their servers.
    pub(super) fn send_health_checks(&mut self) {
        for change in self.state.take_health_changes() {
            // Without a receiver, the daemon is about to exit.
            let _closed = self.health_checks.send(change);
        }
    }

    fn has_unused_chains(&self) -> bool {
        per_family!(self.state.families.as_ref(), |family| family
            .applied()
            .has_unused_chains())
        .any()
    }

    fn delete_unused_chains(&mut self) {
        if self.mode != SyncMode::Incremental {
            return;
        }
        let commit = per_family!(self.state.families.as_ref(), |family| family
            .applied()
            .delete_unused_chains()
            .into());
        match self.kernel.commit(&commit) {
            Ok(()) => {
                per_family!(self.state.families.as_mut(), |family| family
                    .applied_mut()
                    .unused_chains_deleted());
            }
            Err(error) => {
                warn!(event = %LogEvent::ChainCleanupFailed, %error, "cannot delete unused chains; retrying");
                self.metrics.cleanup_failed();
            }
        }
    }
}
