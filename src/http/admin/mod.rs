//! What operators and their tools ask this process: health at one address, everything else at
//! another, as kube-proxy has it.

mod answers;
mod connections;
mod health;
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

pub use connections::{CONNECTIONS, ConnectionMetrics, HIDDEN};
pub use status::ReportedStatus;

use crate::events::{EventReason, EventRecorder};
use crate::http::Server;
use crate::http::server::HttpResponse;
use crate::logging::LogEvent;
use crate::planner::model::addr::Family;
use crate::metrics::{Exposition, Metrics};
use crate::sync::DebugRequest;
use crate::sync::SyncHealth;

/// How long after a port could not be had it is tried again, as kube-proxy does.
const RETRY: Duration = Duration::from_secs(5);

/// What is told.
pub struct AdminServer {
    /// Whether what was reported reaches the kernel.
    pub sync_health: Arc<SyncHealth>,
    /// The families of the node, for kube-proxy's `status`.
    pub families: &'static [Family],
    /// What is counted.
    pub metrics: Metrics,
    /// The same as text.
    pub exposition: Arc<Exposition>,
    /// The configuration, as JSON.
    pub configuration: serde_json::Value,
    /// Who knows what is programmed.
    pub debug_requests: mpsc::Sender<DebugRequest>,
    /// Who tells users that health cannot be served.
    pub recorder: EventRecorder,
}

/// Where it is told.
#[derive(Clone, Copy, Debug)]
pub struct BindAddresses {
    /// `/healthz`, `/livez` and `/readyz`; `None`: nowhere.
    pub health: Option<SocketAddr>,
    /// Everything else; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Whether to end when one of them cannot be had.
    pub hard_fail: bool,
}

/// An address that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} at {at}: {source}")]
pub struct BindError {
    what: &'static str,
    at: SocketAddr,
    source: io::Error,
}

/// Serves both for ever.
///
/// # Errors
/// If an address cannot be had and that is to end the process; else it is tried again.
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
    let told = |at: SocketAddr, error: &io::Error| {
        let note = format!("cannot serve health at {at}, will try again: {error}");
        let reason = EventReason::FailedToStartProxierHealthcheck;
        admin.recorder.record_for_node(reason, note);
    };
    let health = run_one("health", (health, hard_fail), &server, answer, told);
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

async fn run_one<A, R>(
    what: &'static str,
    (at, hard_fail): (Option<SocketAddr>, bool),
    server: &Server,
    answer: A,
    told: impl Fn(SocketAddr, &io::Error),
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
                server.failed.port(what, at, None);
                server.serve(listeners, answer.clone()).await;
            }
            Err(source) if hard_fail => return Err(BindError { what, at, source }),
            Err(error) if !failed => {
                failed = true;
                error!(event = %LogEvent::ServerListenFailed, %at, %error, "cannot serve {what}; retrying");
                let why = format!("it cannot be served: {error}");
                server.failed.port(what, at, Some(why));
                told(at, &error);
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}
