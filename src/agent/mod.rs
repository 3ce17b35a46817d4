//! The daemon: connects the object source, the sync thread, the HTTP servers and the signals.

mod service_manager;
mod settings;
mod source;
mod syncing;

use std::convert::Infallible;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedSender};
use tracing::{info, warn};

use crate::config::{Config, ConfigFile};
use crate::http;
use crate::http::admin::{AdminServer, BindAddresses, ConnectionMetrics, Services};
use crate::kube_proxy::TakeoverProgress;
use crate::logging::{self, LogEvent};
use crate::metrics::{Exposition, Metrics};
use crate::netlink::Kernel;
use crate::planner::desired::{LocalhostChange, NodeFacts, PodSource};
use crate::planner::model::addr::Family;
use crate::relay::{self, RelayProblems};
use crate::revision;
use crate::sync::{Sockets, State, SyncHealth, Syncer};
use crate::sysctl;
use crate::watch::addresses;
use source::OpenSource;
use syncing::{SyncThread, take_over_later};

pub use settings::init;
pub use source::ObjectSource;

/// The capacity of the queue for the sync thread, in messages of one or more events. A source waits
/// while the queue is full, and no event is dropped. A long queue keeps many decoded objects in memory.
const MESSAGES: usize = 64;

/// The settings that kube-proxy does not have.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether kube-dnat owns its tables, if the kernel supports it.
    pub table_owner: bool,
    /// Whether to remove kube-proxy's rules after the first sync.
    pub takeover: bool,
    /// The maximum number of Service ports with connection metrics. 0 disables these metrics.
    pub connection_metrics_limit: usize,
}

/// Runs the daemon until SIGTERM or SIGINT. The rules stay.
///
/// # Errors
/// If the daemon cannot start, or if the configuration file changes.
pub fn run(source: ObjectSource, config: Config, options: Options) -> anyhow::Result<()> {
    let families = sysctl::families();
    let runtime = runtime()?;
    // First, so that an invalid kubeconfig or a missing directory changes nothing on the node.
    let source = runtime.block_on(source.open())?;
    let mut sockets = Sockets::open(options.table_owner, families)?;
    runtime.block_on(async {
        settings::apply(&mut sockets.conntrack, &config)?;
        Box::pin(run_parts(source, sockets, config, options, families)).await
    })?;
    info!(event = %LogEvent::DaemonStopped, "stopped; the rules stay");
    Ok(())
}

/// Starts the parts of the daemon, and waits until one of them ends.
async fn run_parts(
    source: OpenSource,
    sockets: Sockets,
    config: Config,
    options: Options,
    families: &'static [Family],
) -> anyhow::Result<()> {
    let node_object = source.node_object();
    let sync_health = Arc::new(SyncHealth::new(config.sync_period * 2, node_object));
    let (metrics, exposition) = Metrics::new();
    let (recorder, event_writer) = source.event_recorder(&config.node, &metrics);
    let (debug_requests, received_requests) = mpsc::channel(1);
    let takeover = TakeoverProgress::default();
    let connections = connection_metrics(&config, options, families)?;
    let admin = AdminServer {
        node: config.node.as_str().into(),
        source: source.reporting(),
        takeover: takeover.clone(),
        sync_health: Arc::clone(&sync_health),
        families,
        metrics: metrics.clone(),
        exposition: Arc::new(with_connections(exposition, connections.as_ref())),
        configuration: serde_json::to_value(&config.written)?,
        connections,
        services: Services::new(debug_requests.clone()),
        debug_requests,
        recorder: recorder.clone(),
    };
    log_start(&config, families, &source);
    let node: Arc<str> = config.node.as_str().into();
    let state = initial_state(config.facts.clone(), families).await?;
    let state = state.named(Arc::clone(&node), node_object);
    let (events, received_events) = mpsc::channel(MESSAGES);
    let own_addresses = addresses::follow(events.clone());
    let (health_checks, changes) = mpsc::unbounded_channel();
    let reporting = (Arc::clone(&sync_health), metrics.clone(), recorder.clone());
    let runtimes = (runtime()?, runtime()?);
    let at = bind_addresses(&config);
    let (relay, problems) = start_relay(&config, metrics.clone())?;
    let http = http::serve(admin, at, runtimes, changes, reporting, problems)?;
    let following = service_manager::follow(Arc::clone(&sync_health));
    let takeover = options.takeover.then(|| take_over_later(takeover));
    let syncer = Syncer::new(sockets, state, health_checks, sync_health, metrics)
        .context("cannot start a thread")?
        .paced(config.min_sync_period, config.sync_period)
        .with_recorder(recorder)
        .with_relay(relay)
        .with_first_sync(takeover.transpose()?);
    let sync_thread = SyncThread::start(syncer, received_events, received_requests)?;
    tokio::select! {
        result = stop_signal() => result?,
        result = config_change(config.file) => match result? {},
        result = source.run(node, events) => result?,
        () = own_addresses => {}
        result = http => result?,
        () = event_writer => {}
        result = toggle_logging() => match result? {},
        never = following => match never {},
    }
    service_manager::stopping();
    sync_thread.stop()
}

/// Starts the relay for node ports at localhost, if it is enabled.
fn start_relay(
    config: &Config,
    metrics: Metrics,
) -> anyhow::Result<(Option<UnboundedSender<LocalhostChange>>, RelayProblems)> {
    let problems = RelayProblems::default();
    if !config.localhost_node_ports {
        return Ok((None, problems));
    }
    let (relay, changes) = mpsc::unbounded_channel();
    let started = relay::start(runtime()?, changes, metrics, problems.clone());
    started.context("cannot start a thread")?;
    Ok((Some(relay), problems))
}

/// The addresses of the servers for health and metrics.
fn bind_addresses(config: &Config) -> BindAddresses {
    BindAddresses {
        health: config.healthz_bind_address,
        metrics: config.metrics_bind_address,
        hard_fail: config.bind_address_hard_fail,
    }
}

/// Opens the connection metrics, if they are enabled and served.
fn connection_metrics(
    config: &Config,
    options: Options,
    families: &'static [Family],
) -> anyhow::Result<Option<ConnectionMetrics>> {
    let limit = options.connection_metrics_limit;
    if !config.facts.counters || limit == 0 || config.metrics_bind_address.is_none() {
        return Ok(None);
    }
    let kernel = Kernel::open()?;
    let metrics = ConnectionMetrics::new(kernel, families, limit);
    Ok(Some(metrics.context("cannot start a thread")?))
}

/// Adds the connection metrics to the exposition.
fn with_connections(
    mut exposition: Exposition,
    connections: Option<&ConnectionMetrics>,
) -> Exposition {
    if let Some(connections) = connections {
        exposition.add(connections.clone());
    }
    exposition
}

/// Logs the start of the daemon.
fn log_start(config: &Config, families: &[Family], source: &OpenSource) {
    info!(
        event = %LogEvent::DaemonStarting,
        version = revision::VERSION,
        revision = revision::REVISION,
        node = config.node,
        source = source.description(),
        ipv6 = families.contains(&Family::Ipv6),
        pods = config.facts.pods.to_string(),
        "starting"
    );
    if config.facts.pods == PodSource::ClusterCidr(Vec::new()) {
        warn!(
            event = %LogEvent::ClusterCidrMissing,
            "clusterCIDR is empty: connections from outside the cluster to ClusterIPs are not \
             masqueraded, and policy Local treats Pods as external clients"
        );
    }
}

/// Returns the state at the start: the settings, and the addresses of this node.
async fn initial_state(facts: NodeFacts, families: &[Family]) -> anyhow::Result<State> {
    let own = addresses::own().await;
    let own = own.context("cannot read this node's addresses")?;
    let state = State::new(NodeFacts {
        own_addresses: Some(own),
        tcp_pickup: sysctl::tcp_pickup(Path::new("/proc/sys")),
        ..facts
    });
    Ok(if families.contains(&Family::Ipv6) {
        state
    } else {
        state.ipv4_only()
    })
}

/// Creates a runtime for the calling thread.
///
/// # Errors
/// If the process has no file descriptors left.
pub fn runtime() -> anyhow::Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")
}

/// Waits for SIGTERM or SIGINT.
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

/// Toggles the verbosity of the log at each SIGUSR1.
async fn toggle_logging() -> anyhow::Result<Infallible> {
    let mut signals = signal(SignalKind::user_defined1()).context("cannot wait for SIGUSR1")?;
    loop {
        signals.recv().await;
        logging::toggle();
    }
}

/// Fails when the configuration file changes, so that the daemon is restarted.
async fn config_change(file: Option<ConfigFile>) -> anyhow::Result<Infallible> {
    match file {
        Some(file) => Err(file.changed().await.into()),
        None => pending().await,
    }
}
