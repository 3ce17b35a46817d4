//! The endpoints for operators and their tools, as in kube-proxy: health at one address, metrics
//! and debugging at another.

mod answers;
mod connections;
mod health;
mod host;
mod overview;
mod page;
mod services;
mod services_json;
mod shares;
mod status;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{error, info};

pub(super) use answers::{json, not_found, text};
pub use connections::{CONNECTIONS, ConnectionMetrics, DENIED, HIDDEN, SAMPLED};
pub use services::Services;
pub use status::{NodeReport, ReportedStatus};

use crate::events::{EventReason, EventRecorder};
use crate::http::Server;
use crate::http::server::HttpResponse;
use crate::kube_proxy::TakeoverProgress;
use crate::logging::LogEvent;
use crate::metrics::{Exposition, Metrics};
use crate::planner::model::addr::Family;
use crate::sync::DebugRequest;
use crate::sync::SyncHealth;
use crate::watch::ReportingSource;

/// The interval between attempts to bind a port that is in use, as in kube-proxy.
const RETRY: Duration = Duration::from_secs(5);

/// The state behind the endpoints.
pub struct AdminServer {
    /// The name of this node.
    pub node: Arc<str>,
    /// The source of the objects.
    pub source: ReportingSource,
    /// The takeover from kube-proxy.
    pub takeover: TakeoverProgress,
    /// The health of the sync loop.
    pub sync_health: Arc<SyncHealth>,
    /// The families of the node, for kube-proxy's field `status`.
    pub families: &'static [Family],
    /// The metrics that the endpoints count.
    pub metrics: Metrics,
    /// The text exposition of all metrics.
    pub exposition: Arc<Exposition>,
    /// The configuration as JSON.
    pub configuration: serde_json::Value,
    /// The counters of connections, unless they are disabled.
    pub connections: Option<ConnectionMetrics>,
    /// The channel to the sync loop, which answers questions about its state.
    pub debug_requests: mpsc::Sender<DebugRequest>,
    /// The snapshots of all Services.
    pub services: Arc<Services>,
    /// The recorder of the Event that health cannot be served.
    pub recorder: EventRecorder,
}

/// The addresses of the endpoints.
#[derive(Clone, Copy, Debug)]
pub struct BindAddresses {
    /// The address of `/healthz`, `/livez` and `/readyz`; `None` disables them.
    pub health: Option<SocketAddr>,
    /// The address of all other endpoints; `None` disables them.
    pub metrics: Option<SocketAddr>,
    /// Whether to exit if an address is in use, instead of retrying.
    pub hard_fail: bool,
}

/// The error of an address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} at {at}: {source}")]
pub struct BindError {
    /// The endpoints of the address: `health` or `metrics`.
    what: &'static str,
    /// The address.
    at: SocketAddr,
    /// The error of the socket.
    source: io::Error,
}

/// Serves both addresses, and retries if an address is in use.
///
/// # Errors
/// If an address cannot be bound and [`BindAddresses::hard_fail`] is set.
pub async fn run(
    admin: AdminServer,
    addresses: BindAddresses,
    server: Server,
) -> Result<Infallible, BindError> {
    let admin = Arc::new(admin);
    let BindAddresses {
        health,
        metrics,
        hard_fail,
    } = addresses;
    let at_health = Arc::clone(&admin);
    let answer = move |_, request| {
        let admin = Arc::clone(&at_health);
        async move { admin.health(&request) }
    };
    let report_failure = |at: SocketAddr, error: &io::Error| {
        let note = format!("cannot serve health at {at}; retrying: {error}");
        let reason = EventReason::FailedToStartProxierHealthcheck;
        admin.recorder.record_for_node(reason, note);
    };
    let health = run_one(
        "health",
        (health, hard_fail),
        &server,
        answer,
        report_failure,
    );
    let (at_metrics, failed) = (Arc::clone(&admin), server.failed.clone());
    let answer = move |from, request| {
        let (admin, failed) = (Arc::clone(&at_metrics), failed.clone());
        async move { admin.metrics(from, request, &failed).await }
    };
    let metrics = run_one("metrics", (metrics, hard_fail), &server, answer, |_, _| {});
    tokio::select! {
        result = health => result,
        result = metrics => result,
    }
}

/// Serves one address.
async fn run_one<A, R>(
    what: &'static str,
    (at, hard_fail): (Option<SocketAddr>, bool),
    server: &Server,
    answer: A,
    report_failure: impl Fn(SocketAddr, &io::Error),
) -> Result<Infallible, BindError>
where
    A: Fn(SocketAddr, Request<Bytes>) -> R + Clone + Send + 'static,
    R: Future<Output = HttpResponse> + Send + 'static,
{
    let Some(at) = at else {
        return std::future::pending().await;
    };
    let mut failed = false;
    loop {
        match server.listen_everywhere(at) {
            Ok(listeners) => {
                if failed {
                    info!(event = %LogEvent::ServerListening, %at, "{what} is served");
                }
                failed = false;
                server.failed.set_port(what, at, None);
                server.serve(listeners, answer.clone()).await;
            }
            Err(source) if hard_fail => return Err(BindError { what, at, source }),
            Err(error) if !failed => {
                failed = true;
                error!(event = %LogEvent::ServerListenFailed, %at, %error, "cannot serve {what}; retrying");
                let problem = format!("cannot be served: {error}");
                server.failed.set_port(what, at, Some(problem));
                report_failure(at, &error);
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}
