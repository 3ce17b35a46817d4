//! The relay: node ports at 127.0.0.1 and `::1` (`--localhost-node-ports`, KEP-6032).
//!
//! The kernel routes no packet of 127.0.0.1 off the node, unless `route_localnet` opens the loopback
//! addresses to neighbours, and of `::1` never. So this thread listens at localhost, and connects to an
//! endpoint for each client.
//!
//! ```text
//! client -> 127.0.0.1:30080 (this thread) -> 10.244.1.9:8080, from the node's own address
//! ```

mod ports;
mod problems;
mod sockets;
mod target;
mod tcp;
mod udp;

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};

pub use problems::RelayProblems;
pub(crate) use sockets::lacks_resources;

use crate::metrics::Metrics;
use crate::planner::desired::LocalhostChange;
use ports::RelayedPorts;

/// The interval between attempts to bind ports that are in use.
const RETRY: Duration = Duration::from_secs(3);

/// Starts the thread of the relay. It ends when the sender of the changes is dropped.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(
    runtime: Runtime,
    changes: UnboundedReceiver<LocalhostChange>,
    metrics: Metrics,
    problems: RelayProblems,
) -> io::Result<()> {
    let ports = RelayedPorts::new(metrics, problems);
    let thread = thread::Builder::new().name("relay".to_owned());
    thread
        .spawn(move || runtime.block_on(serve(changes, ports)))
        .map(drop)
}

/// Follows the changes, and retries ports that are in use.
async fn serve(mut changes: UnboundedReceiver<LocalhostChange>, mut ports: RelayedPorts) {
    let mut retry = interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => ports.handle_change(change),
                None => return,
            },
            _ = retry.tick(), if ports.has_failed() => ports.retry(),
        }
        ports.report_failed();
        // The runtime drops the sockets of aborted tasks before it continues here. The next change may
        // bind their ports for another Service.
        yield_now().await;
    }
}
