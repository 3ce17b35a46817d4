//! The threads that serve HTTP: health, metrics and the health checks of load balancers.
//!
//! They do nothing else, so that neither a large list from the API server nor a long commit delays
//! a probe. One thread serves this node and the other one all other peers, so that a flood of
//! connections does not delay a probe either.

use std::sync::Arc;
use std::thread;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tracing::debug;

pub mod admin;
pub mod control;
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
use crate::relay::RelayProblems;
use crate::sync::SyncHealth;
use admin::{AdminServer, BindAddresses, BindError};

/// Serves health checks, health and metrics on two threads, one for each runtime.
///
/// The first runtime serves the requests of this node. The future ends when the sync loop ends, or
/// with the error that ends the process.
///
/// # Errors
/// If a thread cannot be started.
pub fn serve(
    admin: AdminServer,
    addresses: BindAddresses,
    (own, other): (Runtime, Runtime),
    changes: UnboundedReceiver<HealthCheckChange>,
    (sync_health, metrics, recorder): (Arc<SyncHealth>, Metrics, EventRecorder),
    relay: RelayProblems,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    raise_file_limit();
    let (result_sender, result) = oneshot::channel();
    let server = Server::new(own.handle().clone(), relay);
    let control = control::serve(Arc::clone(&sync_health), metrics.clone());
    start_thread("http-own", own, async { match control.await {} })?;
    let serving = async move {
        let checks = health_check::serve(changes, sync_health, server.clone(), metrics, recorder);
        let result: Result<(), BindError> = tokio::select! {
            result = admin::run(admin, addresses, server) => result.map(|never| match never {}),
            () = checks => Ok(()),
        };
        // The receiver is dropped when the daemon exits.
        let _dropped = result_sender.send(result);
    };
    start_thread("http", other, serving)?;
    Ok(async {
        let result = result.await.context("the HTTP thread panicked")?;
        Ok(result?)
    })
}

/// Starts a thread that runs a future to its end.
fn start_thread(
    name: &str,
    runtime: Runtime,
    future: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(move || runtime.block_on(future));
    started.map(drop).context("cannot start a thread")
}

/// Raises the limit of open files to the hard limit.
///
/// The listeners of many health checks and their connections can exceed the default limit of 1024.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        debug!(%error, "cannot raise the limit of open files");
    }
}
