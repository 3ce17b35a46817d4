//! Wires the parts of the daemon: a source of objects, the crank on its own thread, and signals.

mod settings;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, anyhow};
use kube::Client;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use crate::config::{Config, ConfigFile};
use crate::events::{self, EventRecorder};
use crate::http;
use crate::http::admin::{AdminServer, BindAddresses, ConnectionMetrics};
use crate::kube_proxy;
use crate::logging::{self, LogEvent};
use crate::metrics::{Exposition, Metrics};
use crate::netlink::Kernel;
use crate::planner::desired::NodeFacts;
use crate::planner::model::Events;
use crate::planner::model::addr::Family;
use crate::sync::SyncHealth;
use crate::sync::{self, DebugRequest, State, Syncer};
use crate::sysctl;
use crate::watch::{addresses, apiserver, manifests};

/// Reports that may wait for the crank. A source that runs ahead of the kernel waits in its turn;
/// nothing is dropped.
const EVENTS: usize = 4096;

pub use settings::init;

/// Where the objects come from.
#[derive(Debug)]
pub enum ObjectSource {
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

/// What kube-proxy has no setting for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether the tables are to be ours alone, where the kernel can.
    pub table_owner: bool,
    /// Whether to remove what kube-proxy left once everything is committed.
    pub takeover: bool,
    /// Of how many ports of Services connections are shown; 0: of none, and nothing is read.
    pub connection_metrics_limit: usize,
}

/// The families that get a table.
fn families(ipv6: bool) -> &'static [Family] {
    if ipv6 {
        &[Family::Ipv4, Family::Ipv6]
    } else {
        &[Family::Ipv4]
    }
}

/// Runs the daemon until SIGTERM or SIGINT. The rules stay.
///
/// # Errors
/// What keeps it from starting.
pub fn run(source: ObjectSource, config: Config, options: Options) -> anyhow::Result<()> {
    let ipv6 = sysctl::has_ipv6();
    let mut kernel = sync::Sockets::open(options.table_owner, families(ipv6))?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let source = source.open().await?;
        // Later than the source: a kubeconfig that cannot be used changes nothing of the node.
        settings::make(&mut kernel.conntrack, &config)?;
        let needs_node = matches!(source, OpenSource::ApiServer(_));
        let sync_health = Arc::new(SyncHealth::new(config.sync_period * 2, needs_node));
        let (metrics, exposition) = Metrics::new();
        let (recorder, telling) = tell(&source, &config.node, &metrics);
        let counted = (metrics.clone(), exposition);
        let (admin, addresses, asked) = admin(
            &config,
            options,
            ipv6,
            &sync_health,
            counted,
            recorder.clone(),
        )?;
        let Config {
            file,
            node,
            facts,
            min_sync_period,
            sync_period,
            ..
        } = config;
        say_starting(&node, ipv6, &facts);
        let node: Arc<str> = node.into();
        let state = initial_state(facts, ipv6, (Arc::clone(&node), needs_node)).await?;
        let (events, reported) = mpsc::channel(EVENTS);
        let own_addresses = addresses::follow(events.clone());
        let (stop, stopped) = watch::channel(false);
        let (health, changes) = mpsc::unbounded_channel();
        let told = (Arc::clone(&sync_health), metrics.clone(), recorder.clone());
        let serving = http::serve(admin, addresses, http_runtimes()?, changes, told)?;
        let mut syncer = Syncer::new(kernel, state, health, sync_health, metrics)
            .context("cannot start a thread")?
            .paced(min_sync_period, sync_period)
            .with_recorder(recorder);
        if options.takeover {
            syncer = syncer.with_first_sync(take_over_later()?);
        }
        let syncer = start_syncer(syncer, reported, asked, stopped)?;
        let followed = follow(source, node, events);
        tokio::select! {
            result = stop_signal() => result?,
            result = unless_changed(file) => match result? {},
            result = followed => result?,
            () = own_addresses => {}
            result = serving => result?,
            () = telling => {}
            result = toggle_logging() => match result? {},
        }
        stop.send_replace(true);
        let joined = syncer.join();
        joined.map_err(|_panic| anyhow!("the thread that programs the kernel panicked"))
    })?;
    info!(event = %LogEvent::DaemonStopped, "stopped; the rules stay");
    Ok(())
}

/// The health and metrics endpoints with their addresses, and the inquiries that `/debug/state` sends.
fn admin(
    config: &Config,
    options: Options,
    ipv6: bool,
    sync_health: &Arc<SyncHealth>,
    (metrics, mut exposition): (Metrics, Exposition),
    recorder: EventRecorder,
) -> anyhow::Result<(AdminServer, BindAddresses, mpsc::Receiver<DebugRequest>)> {
    let addresses = BindAddresses {
        health: config.healthz_bind_address,
        metrics: config.metrics_bind_address,
        hard_fail: config.bind_address_hard_fail,
    };
    let counted = config.facts.counters && options.connection_metrics_limit > 0;
    if counted && config.metrics_bind_address.is_some() {
        let limit = options.connection_metrics_limit;
        exposition.add(ConnectionMetrics::new(Kernel::open()?, ipv6, limit));
    }
    let (debug_requests, asked) = mpsc::channel(1);
    let admin = AdminServer {
        sync_health: Arc::clone(sync_health),
        ipv6,
        metrics,
        exposition: Arc::new(exposition),
        configuration: serde_json::to_value(&config.written)?,
        debug_requests,
        recorder,
    };
    Ok((admin, addresses, asked))
}

/// Removes what kube-proxy left once the first sync is reported to the sender, on a thread of its
/// own: the sync loop does not wait for it.
fn take_over_later() -> anyhow::Result<oneshot::Sender<()>> {
    let runtime = runtime()?;
    let (first_sync, is_done) = oneshot::channel();
    let take_over = async {
        // The sender is dropped without a first sync when the daemon exits.
        if is_done.await.is_ok() {
            kube_proxy::remove_and_tell().await;
        }
    };
    thread::Builder::new()
        .name("takeover".to_owned())
        .spawn(move || runtime.block_on(take_over))
        .context("cannot start a thread")?;
    Ok(first_sync)
}

/// Tells users of what is wrong by Events, if there is an API server to take them.
fn tell(
    source: &OpenSource,
    node: &str,
    metrics: &Metrics,
) -> (EventRecorder, impl Future<Output = ()> + use<>) {
    let (recorder, writing) = match source {
        OpenSource::Manifests(_) => (EventRecorder::default(), None),
        OpenSource::ApiServer(client) => {
            let (recorder, writing) = events::recorder(client.clone(), node.into(), metrics);
            (recorder, Some(writing))
        }
    };
    let telling = async {
        match writing {
            Some(writing) => writing.await,
            None => std::future::pending().await,
        }
    };
    (recorder, telling)
}

fn say_starting(node: &str, ipv6: bool, facts: &NodeFacts) {
    info!(
        event = %LogEvent::DaemonStarting,
        version = env!("CARGO_PKG_VERSION"),
        node,
        ipv6,
        pods = ?facts.pods,
        "starting"
    );
}

/// The state at the start: the facts of the configuration, and the node's own addresses.
async fn initial_state(
    facts: NodeFacts,
    ipv6: bool,
    (name, needs_object): (Arc<str>, bool),
) -> anyhow::Result<State> {
    let own = addresses::own().await;
    let own = own.context("cannot read this node's addresses")?;
    let state = State::new(NodeFacts {
        own_addresses: Some(own),
        ..facts
    })
    .named(name, needs_object);
    Ok(if ipv6 { state } else { state.ipv4_only() })
}

/// SIGUSR1 makes the log verbose, and once more quiet.
async fn toggle_logging() -> anyhow::Result<Infallible> {
    let mut asked = signal(SignalKind::user_defined1()).context("cannot wait for SIGUSR1")?;
    loop {
        asked.recv().await;
        logging::toggle();
    }
}

/// Ends when the configuration file has changed.
async fn unless_changed(file: Option<ConfigFile>) -> anyhow::Result<Infallible> {
    match file {
        Some(file) => Err(file.changed().await.into()),
        None => std::future::pending().await,
    }
}

/// A runtime of the calling thread's own.
///
/// # Errors
/// If there can be none.
pub fn runtime() -> anyhow::Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")
}

/// The runtime that answers this node, and the one that answers everyone else.
fn http_runtimes() -> anyhow::Result<(Runtime, Runtime)> {
    Ok((runtime()?, runtime()?))
}

/// Starts the crank on its own thread: it blocks while the kernel commits.
fn start_syncer(
    syncer: Syncer,
    reported: mpsc::Receiver<Events>,
    asked: mpsc::Receiver<DebugRequest>,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let runtime = runtime()?;
    thread::Builder::new()
        .name("sync".to_owned())
        .spawn(move || runtime.block_on(syncer.run(reported, asked, stopped)))
        .context("cannot start a thread")
}

/// A source that is configured as it should be.
enum OpenSource {
    Manifests(PathBuf),
    ApiServer(Client),
}

impl ObjectSource {
    async fn open(self) -> anyhow::Result<OpenSource> {
        match self {
            Self::Manifests(dir) => Ok(OpenSource::Manifests(dir)),
            Self::ApiServer { kubeconfig, master } => {
                let client = apiserver::client(kubeconfig.as_deref(), master.as_deref());
                Ok(OpenSource::ApiServer(client.await?))
            }
        }
    }
}

/// Follows a source for as long as it lasts, which is for ever but for a directory that cannot be
/// followed at all.
async fn follow(
    source: OpenSource,
    node: Arc<str>,
    events: mpsc::Sender<Events>,
) -> anyhow::Result<()> {
    match source {
        OpenSource::Manifests(dir) => {
            let _following = manifests::watch(&dir, node, events)?;
            std::future::pending().await
        }
        OpenSource::ApiServer(client) => {
            let watching = apiserver::watch(client, node, events);
            Box::pin(watching).await;
            Ok(())
        }
    }
}

async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    info!(event = %LogEvent::SignalReceived, %signal, "stopping");
    Ok(())
}
