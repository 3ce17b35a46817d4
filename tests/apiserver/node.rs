//! A node without a kernel: it plans the events, treats plans as committed, and records problems as
//! Events.

use std::sync::Arc;
use std::time::Duration;

use kube_dnat::events::{self, EventRecorder, ServerUrl, WritePace};
use kube_dnat::metrics::Metrics;
use kube_dnat::planner::desired::NodeFacts;
use kube_dnat::planner::model::Events;
use kube_dnat::sync::{Diagnostic, State};
use kube_dnat::watch::apiserver::{client, watch_with};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use super::seen::{DEADLINE, TIMEOUTS, settings};
use super::server::Server;

pub(crate) const PACE: WritePace = WritePace {
    spread: Duration::ZERO,
    first_pause: Duration::from_millis(20),
    grace: Duration::ZERO,
    hold: DEADLINE,
};

pub(crate) struct Node {
    pub(crate) state: State,
    pub(crate) recorder: EventRecorder,
    metrics: Metrics,
    reported: Receiver<Events>,
}

impl Node {
    /// Starts to follow the server and to record problems.
    pub(crate) async fn start(server: &Server, name: &str, pace: WritePace) -> Self {
        let client = client(&settings(&server.kubeconfig()))
            .await
            .expect("a client");
        let (metrics, _) = Metrics::new();
        let url = client.server();
        let api_server = (client.kube(), Arc::new(move || url.clone()) as ServerUrl);
        let (recorder, telling) = events::recorder_with(pace, api_server, name.into(), &metrics);
        tokio::spawn(telling);
        let (sender, reported) = channel(16);
        tokio::spawn(watch_with(TIMEOUTS, client, name.into(), sender));
        Self {
            state: State::new(NodeFacts::default()),
            recorder,
            metrics,
            reported,
        }
    }

    /// Starts, and waits until all existing objects are planned.
    pub(crate) async fn started(server: &Server, name: &str, pace: WritePace) -> Self {
        let mut node = Self::start(server, name, pace).await;
        node.until("everything is listed", State::is_complete).await;
        node
    }

    /// Handles and plans events until `condition` holds.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&State) -> bool) {
        let handling = async {
            while !condition(&self.state) {
                let events = self.reported.recv().await.expect("the watch continues");
                for event in events {
                    let diagnostics = self.state.apply(event);
                    self.report_diagnostics(diagnostics);
                }
                if self.state.is_complete() {
                    self.commit();
                }
            }
        };
        let in_time = timeout(DEADLINE, handling).await.is_ok();
        assert!(in_time, "not in time: {what}");
    }

    /// Handles and plans events until this many Services are planned.
    pub(crate) async fn until_served(&mut self, services: usize) {
        let served = |state: &State| state.families.ipv4.applied().service_count() == services;
        self.until("so many Services are served", served).await;
    }

    /// Returns the number of dropped Events.
    pub(crate) fn dropped(&self) -> u64 {
        self.metrics.events_dropped.get()
    }

    fn commit(&mut self) {
        let (_, effects) = self.state.plan_changes().split();
        let diagnostics = self.state.committed(effects);
        self.report_diagnostics(diagnostics);
    }

    fn report_diagnostics(&self, diagnostics: Vec<Diagnostic>) {
        for diagnostic in diagnostics {
            self.recorder.record(diagnostic.event());
        }
    }
}
