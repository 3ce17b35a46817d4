//! `/debug/status`: what the daemon reports about itself to `kube-dnat status`.

use serde::{Deserialize, Serialize};

use super::AdminServer;
use crate::clock;
use crate::metrics::{FamilyLabel, seconds_of};
use crate::watch::{ReportingSource, SourceReport};

/// The state of a daemon, as it answers `/debug/status`. None of it waits for a sync in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedStatus {
    /// The version of the daemon.
    pub version: String,
    /// Seconds since the last commit; `None` before the first one.
    pub last_sync_seconds: Option<f64>,
    /// Changes that wait for a sync.
    pub pending_changes: i64,
    /// Services whose elements a read-back of the tables has not read yet.
    pub unread_services: i64,
    /// Whether flows may continue to endpoints that are gone, since conntrack is not cleaned up yet.
    #[serde(default)]
    pub conntrack_cleanup_pending: bool,
    /// Repairs of the tables after a foreign change, since the daemon started.
    pub drift_repairs: u64,
    /// Failed syncs, since the daemon started.
    pub failed_syncs: u64,
    /// Seconds since this node was drained; `None` if it is not drained.
    #[serde(default)]
    pub drained_seconds: Option<f64>,
    /// The Node object of this node.
    #[serde(default)]
    pub node: Option<NodeReport>,
    /// The API server with the state of each watch, or the manifests.
    #[serde(flatten)]
    pub source: SourceReport,
    /// What a pending takeover waits for; `None` if no takeover is pending.
    #[serde(default)]
    pub takeover_waits_for: Option<String>,
}

/// Whether the Node object of this node exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The name of this node.
    pub name: String,
    /// Whether a Node object has this name; `None` before the objects are listed.
    pub exists: Option<bool>,
}

impl AdminServer {
    /// Returns whether the Node object exists, as the API server or else the sync loop knows it.
    fn node_report(&self) -> NodeReport {
        let is_listed = self.sync_health.committed_at().is_some();
        let in_manifests = || is_listed.then(|| self.sync_health.has_node());
        NodeReport {
            name: self.node.to_string(),
            exists: match self.source {
                ReportingSource::ApiServer(_) => self.source.shows_node(),
                ReportingSource::Manifests(_) => in_manifests(),
            },
        }
    }

    /// Collects the status from the metrics.
    pub(super) fn status(&self) -> ReportedStatus {
        let metrics = &self.metrics;
        let families = || self.families.iter().copied().map(FamilyLabel::from);
        let last_sync = families()
            .map(|family| metrics.last_sync.get_or_create(&family).get())
            .fold(0.0, f64::max);
        let failures = families().map(|family| metrics.sync_failures.get_or_create(&family).get());
        let pending = [
            &metrics.service_changes_pending,
            &metrics.endpoint_changes_pending,
        ];
        ReportedStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            last_sync_seconds: (last_sync > 0.0).then(|| seconds_of(clock::now()) - last_sync),
            pending_changes: pending.iter().map(|gauge| gauge.get()).sum(),
            unread_services: metrics.unread_services.get(),
            conntrack_cleanup_pending: metrics.conntrack_cleanup_pending.get() > 0,
            drift_repairs: metrics.repairs.get(),
            failed_syncs: failures.sum(),
            drained_seconds: (self.sync_health.drained_since())
                .map(|since| (seconds_of(clock::now()) - seconds_of(since)).max(0.0)),
            node: Some(self.node_report()),
            source: self.source.report(),
            takeover_waits_for: self.takeover.waits_for(),
        }
    }
}
