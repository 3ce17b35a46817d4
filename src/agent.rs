//! Wires the parts of the daemon: a source of objects, the crank on its own thread, and signals.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use kube::Client;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::desired::{NodeFacts, NodePortAddresses};
use crate::health::{self, Lag};
use crate::model::Event;
use crate::sync::{self, Crank, State};
use crate::watch::{addresses, apiserver, manifests};

/// Reports that may wait for the crank. A source that runs ahead of the kernel waits in its turn;
/// nothing is dropped.
const EVENTS: usize = 4096;

/// Where the objects come from.
#[derive(Debug)]
pub enum Source {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// An API server.
    ApiServer {
        /// A kubeconfig file.
        kubeconfig: Option<PathBuf>,
        /// The URL of the API server.
        master: Option<String>,
    },
}

/// Runs the daemon until SIGTERM or SIGINT. The rules stay.
///
/// # Errors
/// What keeps it from starting.
pub fn run(
    source: Source,
    node: String,
    facts: NodeFacts,
    table_owner: bool,
) -> anyhow::Result<()> {
    let kernel = sync::Opened::open(table_owner)?;
    let ipv6 = Path::new("/proc/net/if_inet6").exists();
    let runtime = runtime()?;
    runtime.block_on(async {
        let source = source.open().await?;
        let counts = match source {
            Opened::Manifests(_) => true,
            // The Node object names the primary ones.
            Opened::ApiServer(_) => facts.node_port_addresses != NodePortAddresses::Primary,
        };
        let own_addresses = if counts {
            Some(
                addresses::own()
                    .await
                    .context("cannot read this node's addresses")?,
            )
        } else {
            None
        };
        info!(
            version = env!("CARGO_PKG_VERSION"),
            node,
            ipv6,
            pods = ?facts.pods,
            "starting"
        );
        let state = State::new(NodeFacts {
            own_addresses,
            ..facts
        });
        let (events, reported) = mpsc::channel(EVENTS);
        let addresses = follow_addresses(counts, events.clone());
        let (stop, stopped) = watch::channel(false);
        let (health, changes) = mpsc::unbounded_channel();
        let lag = Arc::new(Lag::default());
        let crank = start_crank(
            Crank::new(kernel, state, ipv6, health, Arc::clone(&lag))
                .context("cannot start a thread")?,
            reported,
            stopped,
        )?;
        let followed = follow(source, node.into(), events);
        tokio::select! {
            result = stop_signal() => result?,
            result = followed => result?,
            () = addresses => {}
            () = health::serve(changes, lag) => {}
        }
        stop.send_replace(true);
        let ended = crank.join().is_ok();
        anyhow::ensure!(ended, "the thread that programs the kernel panicked");
        Ok(())
    })?;
    info!("stopped, the rules stay");
    Ok(())
}

fn runtime() -> anyhow::Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")
}

/// Starts the crank on its own thread: it blocks while the kernel commits.
fn start_crank(
    crank: Crank,
    reported: mpsc::Receiver<Event>,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let runtime = runtime()?;
    thread::Builder::new()
        .name("sync".to_owned())
        .spawn(move || runtime.block_on(crank.run(reported, stopped)))
        .context("cannot start a thread")
}

/// A source that is configured as it should be.
enum Opened {
    Manifests(PathBuf),
    ApiServer(Client),
}

impl Source {
    async fn open(self) -> anyhow::Result<Opened> {
        match self {
            Self::Manifests(dir) => Ok(Opened::Manifests(dir)),
            Self::ApiServer { kubeconfig, master } => {
                let client = apiserver::client(kubeconfig.as_deref(), master.as_deref());
                Ok(Opened::ApiServer(client.await?))
            }
        }
    }
}

/// Follows a source for as long as it lasts, which is for ever but for a directory that cannot be
/// followed at all.
async fn follow(source: Opened, node: Arc<str>, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    match source {
        Opened::Manifests(dir) => {
            let _following = manifests::watch(&dir, node, events)?;
            std::future::pending().await
        }
        Opened::ApiServer(client) => {
            let watching = apiserver::watch(client, node, events);
            Box::pin(watching).await;
            Ok(())
        }
    }
}

/// Follows the node's addresses if they count.
async fn follow_addresses(counts: bool, events: mpsc::Sender<Event>) {
    if counts {
        addresses::follow(events).await;
    } else {
        std::future::pending::<()>().await;
    }
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM"),
        _ = interrupt.recv() => info!("SIGINT"),
    }
    Ok(())
}
