//! `/debug/overview`: what the page shows at its top. None of it waits for a sync in progress.

use serde::Serialize;

use super::AdminServer;
use super::status::ReportedStatus;
use crate::clock;
use crate::metrics::{ProcessUsage, seconds_of};
use crate::sync::{RecentSync, SyncHealth};

/// The state of the daemon, and its latest syncs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overview<'a> {
    /// The name of the node.
    node: &'a str,
    /// The Unix time of the answer, in seconds.
    now: f64,
    /// The health: `starting` before the first commit, `unhealthy` as in `/livez`, `drained` on a
    /// drained node, `ineligible` if load balancers should not use the node, or `healthy`.
    health: &'static str,
    /// The families of the node.
    families: Vec<&'static str>,
    /// Whether `/debug/connections` has counters.
    counts_connections: bool,
    /// The age and the memory of the process.
    process: Option<ProcessUsage>,
    /// The answer of `/debug/status`.
    status: ReportedStatus,
    /// The latest syncs, oldest first.
    syncs: Vec<RecentSync>,
}

/// The health of the daemon in one word.
fn health(sync_health: &SyncHealth) -> &'static str {
    if sync_health.committed_at().is_none() {
        "starting"
    } else if !sync_health.is_healthy() {
        "unhealthy"
    } else if sync_health.drained_since().is_some() {
        "drained"
    } else if !sync_health.is_eligible() {
        "ineligible"
    } else {
        "healthy"
    }
}

impl AdminServer {
    /// Collects the overview.
    pub(super) fn overview(&self) -> Overview<'_> {
        Overview {
            node: &self.node,
            now: seconds_of(clock::now()),
            health: health(&self.sync_health),
            families: self.families.iter().map(|family| family.as_str()).collect(),
            counts_connections: self.connections.is_some(),
            process: ProcessUsage::of_this_process(),
            status: self.status(),
            syncs: self.sync_health.recent.list(),
        }
    }
}
