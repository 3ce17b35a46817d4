//! The threads that answer over HTTP. They have nothing else to do, so that neither a large list from the
//! API server nor a long commit keeps a probe waiting. One answers this node, the other everyone else,
//! so that no crowd does either.

use std::future::pending;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tracing::debug;

pub mod admin;
mod failed;
pub mod health_check;
mod listen;
mod server;
mod slots;
mod steer;

pub use server::Server;

use crate::events::EventRecorder;
use crate::metrics::Metrics;
use crate::planner::desired::HealthCheckChange;
use crate::sync::SyncHealth;
use admin::{AdminServer, BindAddresses, BindError};

/// Serves health checks, health and metrics on threads of their own: what this node asks on the runtime
/// `own`. The future ends when the crank does, or with what is to end the process.
///
/// # Errors
/// If the thread cannot be.
pub fn serve(
    admin: AdminServer,
    addresses: BindAddresses,
    (own, others): (Runtime, Runtime),
    changes: UnboundedReceiver<HealthCheckChange>,
    (sync_health, metrics, recorder): (Arc<SyncHealth>, Metrics, EventRecorder),
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    allow_file_descriptors();
    let (ends, ended) = oneshot::channel();
    let server = Server::new(own.handle().clone());
    start("http-own", own, pending())?;
    let serving = async move {
        let checks = health_check::serve(changes, sync_health, server.clone(), metrics, recorder);
        let result: Result<(), BindError> = tokio::select! {
            result = admin::run(admin, addresses, server) => result.map(|never| match never {}),
            () = checks => Ok(()),
        };
        // Nobody waits for it when the daemon ends.
        let _gone = ends.send(result);
    };
    start("http", others, serving)?;
    Ok(async {
        let ended = ended.await.context("the thread that answers panicked")?;
        Ok(ended?)
    })
}

fn start(
    name: &str,
    runtime: Runtime,
    future: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(move || runtime.block_on(future));
    started.map(drop).context("cannot start a thread")
}

/// Listeners of many health checks beside the connections to them can be more than the 1024 files
/// that a process may open at first; it may allow itself as many as its hard limit says.
fn allow_file_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        debug!(%error, "cannot raise the limit of open files");
    }
}
