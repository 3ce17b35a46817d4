//! The thread that answers over HTTP. It has nothing else to do, so that neither a large list from the
//! API server nor a long commit keeps a probe waiting.

use std::sync::Arc;
use std::thread;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tracing::debug;

use super::runtime;
use crate::admin::{self, Addresses, Admin, Taken};
use crate::events::Teller;
use crate::health::{self, Change, Lag, Slots};
use crate::metrics::Metrics;

/// Serves health checks, health and metrics on a thread of its own. The future ends when the crank
/// does, or with what is to end the process.
///
/// # Errors
/// If the thread cannot be.
pub(super) fn serve(
    admin: Admin,
    addresses: Addresses,
    changes: UnboundedReceiver<Change>,
    (lag, metrics, teller): (Arc<Lag>, Metrics, Teller),
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>>> {
    allow_file_descriptors();
    let runtime = runtime()?;
    let (ends, ended) = oneshot::channel();
    let serving = async move {
        let slots = Slots::new();
        let checks = health::serve(changes, lag, Arc::clone(&slots), metrics, teller);
        let result: Result<(), Taken> = tokio::select! {
            result = admin::run(admin, addresses, slots) => result.map(|never| match never {}),
            () = checks => Ok(()),
        };
        // Nobody waits for it when the daemon ends.
        let _gone = ends.send(result);
    };
    thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || runtime.block_on(serving))
        .context("cannot start a thread")?;
    Ok(async {
        let ended = ended.await.context("the thread that answers panicked")?;
        Ok(ended?)
    })
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
