//! The crank: take in what was reported, plan, commit, take in that it is committed, or try again.

mod affinity;
mod conntrack;
mod describe;
mod diagnostics;
mod drift;
mod family;
mod health;
mod measure;
mod opened;
mod pace;
mod state;
mod sync_once;
mod timers;
mod trust;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::warn;

pub use affinity::StaleClients;
use affinity::{AffinityReaper, FullMaps};
use conntrack::ConntrackCleaner;
pub use describe::{DebugQuestion, DebugRequest};
pub use diagnostics::{Diagnostic, DiagnosticSubject};
use drift::DriftMonitor;
pub use family::{Basis, FamilyState, Prepared};
pub use health::SyncHealth;
use measure::SyncMetrics;
pub use opened::Sockets;
pub use state::{Plans, State, SyncOutcome};
use timers::{Retry, Timer, Timers};
use trust::Trust;

use crate::events::EventRecorder;
use crate::logging::LogEvent;
use crate::metrics::Metrics;
use crate::netlink::{Commit, Kernel, TableMonitor};
use crate::planner::desired::HealthCheckChange;
use crate::planner::model::Events;

/// How long after a failure the next attempt is made at the latest, unless the configuration says another.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// How long a balance chain may stand unused: they are removed together, at most this often, since
/// each change of a chain makes the kernel validate the table, and a rollout soon wants it again.
const UNUSED_CHAINS: Duration = Duration::from_mins(10);

/// The crank and what it turns.
pub struct Syncer {
    kernel: Kernel,
    forgetter: AffinityReaper,
    drift: DriftMonitor,
    health: UnboundedSender<HealthCheckChange>,
    sync_health: Arc<SyncHealth>,
    cleaner: ConntrackCleaner,
    full_maps: FullMaps,
    measure: SyncMetrics,
    recorder: EventRecorder,
    state: State,
    /// Whether the node has IPv6 at all.
    ipv6: bool,
    /// How long after a turn the next one begins at the earliest.
    min_sync_period: Duration,
    /// How long after a failure the next attempt is made at the latest.
    last_retry: Duration,
    last_sync: Option<Instant>,
    trust: Trust,
    /// Whether the last turn failed since another process owns the tables.
    owned_by_other: bool,
    committed_once: bool,
    /// What is to be done once the kernel holds all that it should.
    after_first_sync: Option<fn()>,
}

impl Syncer {
    /// A crank for a kernel; `ipv6` tells whether there is such a family. It reports to `health`
    /// which health checks changed, and to `sync_health` whether anything waits to be committed.
    ///
    /// # Errors
    /// If the thread that it starts cannot be.
    pub fn new(
        open: Sockets,
        state: State,
        ipv6: bool,
        health: UnboundedSender<HealthCheckChange>,
        sync_health: Arc<SyncHealth>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let Sockets {
            kernel,
            for_clients,
            conntrack,
        } = open;
        let drift = DriftMonitor::new(TableMonitor::new(kernel.port()), kernel.owns_tables());
        Ok(Self {
            kernel,
            drift,
            forgetter: AffinityReaper::start(for_clients)?,
            health,
            sync_health,
            cleaner: ConntrackCleaner::new(conntrack, ipv6, metrics.clone()),
            full_maps: FullMaps::default(),
            measure: SyncMetrics::new(metrics, ipv6),
            recorder: EventRecorder::default(),
            state,
            ipv6,
            min_sync_period: Duration::ZERO,
            last_retry: LAST_RETRY,
            last_sync: None,
            trust: Trust::Read,
            owned_by_other: false,
            committed_once: false,
            after_first_sync: None,
        })
    }

    /// Turns at most once in `min_sync_period`, and tries again what failed after `sync_period` at
    /// the latest.
    #[must_use]
    pub fn paced(self, min_sync_period: Duration, sync_period: Duration) -> Self {
        Self {
            min_sync_period,
            last_retry: sync_period,
            ..self
        }
    }

    /// Does this once, when the kernel holds all that it should; it must not block.
    #[must_use]
    pub fn after_first_sync(self, what: fn()) -> Self {
        Self {
            after_first_sync: Some(what),
            ..self
        }
    }

    /// Tells users what is not served as asked, too.
    #[must_use]
    pub fn with_recorder(self, recorder: EventRecorder) -> Self {
        Self { recorder, ..self }
    }

    /// Turns until `stop` says true or the sources are gone. What came while a transaction was
    /// committed goes together into the next. Blocks its thread while the kernel commits.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Events>,
        mut asked: mpsc::Receiver<DebugRequest>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut timers = Timers::default();
        let mut retry = Retry::default();
        self.drift.listen();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                pause = self.drift.wait() => {
                    timers.repair.start(pause);
                }
                () = timers.repair.wait() => {
                    if self.trust == Trust::Picture {
                        self.trust = Trust::Read;
                    }
                }
                report = events.recv() => match report {
                    Some(report) => self.handle_events(report),
                    None => return,
                },
                Some(debug_request) = asked.recv() => {
                    // Who asked may be gone.
                    let _gone = debug_request.answer.send(self.state.answer(debug_request.question));
                }
                () = timers.retry.wait() => {
                    self.state.ipv4.retry_skipped();
                    self.state.ipv6.retry_skipped();
                }
                () = timers.next_turn.wait() => {}
                () = timers.unused_chains.wait() => self.delete_unused_chains(),
                () = timers.conntrack.wait() => self.cleaner.look_if_due(&self.state),
                () = self.forgetter.wait() => self.forget_some(),
                () = timers.forget.wait() => self.forget_again(),
                () = timers.full_maps.wait() => self.look_for_full_maps(),
            }
            // As many as may wait, no more: sources that never rest must not keep us from syncing.
            for _ in 0..events.max_capacity() {
                let Ok(report) = events.try_recv() else { break };
                self.handle_events(report);
            }
            self.sync_health.node(self.state.node_is_leaving());
            if self.state.is_complete() {
                self.sync_health.waiting();
                let early = self.early();
                if retry.failing && timers.retry.is_running() {
                    // An event is no reason that it should not fail again.
                } else if early.is_zero() {
                    let progress = self.sync_once();
                    self.after(progress, &mut timers, &mut retry);
                } else {
                    timers.next_turn.start(early);
                }
            }
            if self.state.is_complete() {
                let diagnostics = self.state.look_for_node();
                self.report_diagnostics(diagnostics);
            }
            self.measure.not_served(self.state.objects_not_served());
            self.start(&mut timers);
        }
    }

    /// Takes in what a turn came to.
    fn after(&mut self, progress: SyncOutcome, timers: &mut Timers, retry: &mut Retry) {
        if progress != SyncOutcome::Waiting {
            self.sync_health.committed();
        }
        match progress {
            SyncOutcome::Complete => {
                if let Some(then) = self.after_first_sync.take() {
                    then();
                }
                timers.retry = Timer::default();
                *retry = Retry::default();
            }
            SyncOutcome::LeftOut => {
                retry.failing = false;
                if timers.retry.start(retry.pause) {
                    retry.longer(self.last_retry);
                }
            }
            SyncOutcome::Waiting => {
                if !retry.failing {
                    *retry = Retry::failing();
                }
                timers.retry = Timer::default();
                timers.retry.start(retry.pause);
                // That another process ends is not told: to look costs little.
                if !self.owned_by_other {
                    retry.longer(self.last_retry);
                }
            }
        }
    }

    /// Starts the timers of what is to be done later.
    fn start(&mut self, timers: &mut Timers) {
        if self.drift.needs_audit() {
            timers.repair.start(Duration::ZERO);
        }
        if self.has_unused_chains() {
            timers.unused_chains.start(UNUSED_CHAINS);
        }
        if self.has_affinity() {
            timers.full_maps.start(affinity::EVERY);
        }
        if let Some(after) = self.forgetter.must_look_again() {
            timers.forget.start(after);
        }
        timers.conntrack = Timer::at(self.cleaner.next_look());
    }

    fn handle_events(&mut self, events: Events) {
        for event in events {
            self.measure.reported(&event);
            let rejected = measure::rejected(&event);
            let diagnostics = self.state.apply(event);
            if !diagnostics.is_empty() {
                self.measure.rejected(rejected);
            }
            self.report_diagnostics(diagnostics);
        }
    }

    /// How much too early it is for a turn that has something to do.
    fn early(&self) -> Duration {
        let next = self
            .last_sync
            .map(|last_sync| last_sync + self.min_sync_period);
        let next = next.filter(|_| !self.is_clean());
        next.map_or(Duration::ZERO, |next| {
            next.saturating_duration_since(Instant::now())
        })
    }

    fn report_diagnostics(&self, diagnostics: Vec<Diagnostic>) {
        for diagnostic in diagnostics {
            diagnostic.log();
            self.recorder.record(diagnostic.event());
        }
    }

    fn tell_health(&mut self) {
        let [ipv4, ipv6] = self.state.take_health_changes();
        for change in ipv4
            .into_iter()
            .chain(ipv6.into_iter().filter(|_| self.ipv6))
        {
            // Nobody listens any more when the daemon ends.
            let _ended = self.health.send(change);
        }
    }

    fn has_affinity(&self) -> bool {
        self.state.ipv4.applied().has_affinity() || self.state.ipv6.applied().has_affinity()
    }

    fn look_for_full_maps(&mut self) {
        if self.trust != Trust::Picture {
            return;
        }
        self.full_maps.look(&mut self.kernel, self.ipv6);
    }

    fn has_unused_chains(&self) -> bool {
        let ipv4 = self.state.ipv4.applied().unused_chains();
        let ipv6 = self.state.ipv6.applied().unused_chains();
        !ipv4.is_empty() || !ipv6.is_empty()
    }

    fn delete_unused_chains(&mut self) {
        if self.trust != Trust::Picture {
            return;
        }
        let mut commit = Commit::default();
        commit.ipv4.transaction = self.state.ipv4.applied().unused_chains();
        commit.ipv6.transaction = self.state.ipv6.applied().unused_chains();
        match self.kernel.commit(&commit) {
            Ok(()) => {
                self.state.ipv4.applied_mut().unused_chains_deleted();
                self.state.ipv6.applied_mut().unused_chains_deleted();
            }
            Err(error) => {
                warn!(event = %LogEvent::ChainCleanupFailed, %error, "cannot delete unused chains; retrying");
                self.measure.cleanup_failed();
            }
        }
    }
}
