//! The health checks of load balancers, at `healthCheckNodePort`.

mod answer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use super::Server;
use crate::events::{EventReason, EventRecorder, NewEvent};
use crate::logging::LogEvent;
use crate::metrics::{Metrics, ReasonLabel};
use crate::planner::desired::HealthCheckChange;
use crate::planner::model::addr::Family;
use crate::planner::model::{ObjectKey, ServiceName};
use crate::sync::SyncHealth;
use answer::ServiceHealth;

/// The interval between attempts to bind ports that are in use.
const RETRY: Duration = Duration::from_secs(3);

/// The servers of all health checks.
struct HealthCheckServers {
    /// The health of the sync loop.
    sync_health: Arc<SyncHealth>,
    /// The metrics that count failures.
    metrics: Metrics,
    /// The server that all ports share.
    server: Server,
    /// The recorder of failures.
    recorder: EventRecorder,
    /// The addresses of the node in each family.
    addresses: BTreeMap<Family, Vec<IpAddr>>,
    /// The server of each Service and family.
    services: BTreeMap<(Family, ServiceName), HealthCheckServer>,
}

/// The server of one Service in one family.
struct HealthCheckServer {
    /// The `healthCheckNodePort`.
    port: u16,
    /// The load-balancer IPs, which are served besides the addresses of the node.
    load_balancer_ips: Vec<IpAddr>,
    /// The health that the server answers.
    health: Arc<ServiceHealth>,
    /// The listener at each address.
    listeners: BTreeMap<IpAddr, CheckListener>,
}

/// The listener of a health check at one address.
enum CheckListener {
    /// The task that serves the health check.
    Open(AbortHandle),
    /// The error of an address that cannot be bound, which is in the log.
    Failed(String),
}

impl Drop for CheckListener {
    fn drop(&mut self) {
        if let Self::Open(task) = self {
            task.abort();
        }
    }
}

/// Serves the health checks and their changes until the sender is dropped.
///
/// Failures are logged, counted and recorded as Events.
pub async fn serve(
    mut changes: UnboundedReceiver<HealthCheckChange>,
    sync_health: Arc<SyncHealth>,
    server: Server,
    metrics: Metrics,
    recorder: EventRecorder,
) {
    let mut servers = HealthCheckServers {
        sync_health,
        server,
        metrics,
        recorder,
        addresses: BTreeMap::new(),
        services: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => servers.handle_change(change),
                None => return,
            },
            () = sleep(RETRY), if servers.has_failed() => servers.retry(),
        }
        servers.report_failed();
    }
}

impl HealthCheckServers {
    /// Handles a change of the addresses or of a health check.
    fn handle_change(&mut self, change: HealthCheckChange) {
        match change {
            HealthCheckChange::Addresses(family, addresses) => {
                for ((family_of_check, name), served) in &mut self.services {
                    if *family_of_check == family {
                        served.open(name, &addresses, &self.server, &self.recorder);
                    }
                }
                self.addresses.insert(family, addresses);
            }
            HealthCheckChange::Service(family, name, None) => {
                self.services.remove(&(family, name));
            }
            HealthCheckChange::Service(family, name, Some(check)) => {
                let key = (family, name);
                if self
                    .services
                    .get(&key)
                    .is_some_and(|server| server.port != check.port)
                {
                    self.services.remove(&key);
                }
                let name = key.1.clone();
                let sync_health = &self.sync_health;
                let served = self
                    .services
                    .entry(key)
                    .or_insert_with(|| HealthCheckServer {
                        port: check.port,
                        load_balancer_ips: Vec::new(),
                        health: Arc::new(ServiceHealth {
                            service: name.clone(),
                            local_endpoints: AtomicUsize::new(0),
                            sync_health: Arc::clone(sync_health),
                        }),
                        listeners: BTreeMap::new(),
                    });
                served.load_balancer_ips = check.load_balancer_ips;
                let count = &served.health.local_endpoints;
                count.store(check.local_endpoints, Ordering::Relaxed);
                let addresses = self.addresses.get(&family);
                let addresses = addresses.map_or(&[][..], Vec::as_slice);
                served.open(&name, addresses, &self.server, &self.recorder);
            }
        }
    }

    /// Returns whether any health check fails.
    fn has_failed(&self) -> bool {
        self.services.values().any(HealthCheckServer::has_failed)
    }

    /// Counts and publishes the Services whose health check is not served at all its addresses.
    fn report_failed(&self) {
        let mut failed: BTreeMap<ServiceName, BTreeSet<String>> = BTreeMap::new();
        for ((_, name), served) in &self.services {
            for error in served.errors() {
                let errors = failed.entry(name.clone()).or_default();
                errors.insert(error.to_owned());
            }
        }
        let reason = ReasonLabel::new(EventReason::FailedToStartServiceHealthcheck.name());
        let objects = &self.metrics.objects_not_served;
        let count = i64::try_from(failed.len()).unwrap_or(i64::MAX);
        objects.get_or_create(&reason).set(count);
        self.server.failed.set_health_checks(failed);
    }

    /// Retries the failed listeners.
    fn retry(&mut self) {
        for ((family, name), served) in &mut self.services {
            let addresses = self.addresses.get(family);
            let addresses = addresses.map_or(&[][..], Vec::as_slice);
            served.open(name, addresses, &self.server, &self.recorder);
        }
    }
}

impl HealthCheckServer {
    /// Returns whether any address fails.
    fn has_failed(&self) -> bool {
        self.errors().next().is_some()
    }

    /// Iterates over the errors of the addresses that are not served.
    fn errors(&self) -> impl Iterator<Item = &str> {
        self.listeners
            .values()
            .filter_map(|listener| match listener {
                CheckListener::Open(_) => None,
                CheckListener::Failed(error) => Some(error.as_str()),
            })
    }

    /// Returns the addresses to serve, on a node with the given addresses.
    fn wanted_addresses(&self, addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
        let everywhere = addresses.iter().any(IpAddr::is_unspecified);
        let load_balancer_ips = self.load_balancer_ips.iter().filter(|_| !everywhere);
        addresses.iter().chain(load_balancer_ips).copied().collect()
    }

    /// Closes unwanted listeners and opens missing ones; logs a failure once.
    fn open(
        &mut self,
        service: &ServiceName,
        addresses: &[IpAddr],
        server: &Server,
        recorder: &EventRecorder,
    ) {
        let wanted = self.wanted_addresses(addresses);
        self.listeners.retain(|ip, _| wanted.contains(ip));
        for ip in &wanted {
            let current = self.listeners.get(ip);
            if matches!(current, Some(CheckListener::Open(_))) {
                continue;
            }
            let at = SocketAddr::new(*ip, self.port);
            match server.listen(at) {
                Ok(listeners) => {
                    if current.is_some() {
                        info!(event = %LogEvent::HealthCheckListening, %service, %at, "health check is served");
                    }
                    let answering =
                        answer::serve(listeners, server.clone(), Arc::clone(&self.health));
                    let task = tokio::spawn(answering);
                    let open = CheckListener::Open(task.abort_handle());
                    self.listeners.insert(*ip, open);
                }
                Err(error) => {
                    if current.is_none() {
                        report_failure(service, at, &error, recorder);
                    }
                    let problem = format!("health check cannot be served at {at}: {error}");
                    self.listeners.insert(*ip, CheckListener::Failed(problem));
                }
            }
        }
    }
}

/// Logs a health check that cannot be served, and records an Event.
fn report_failure(
    service: &ServiceName,
    at: SocketAddr,
    error: &io::Error,
    recorder: &EventRecorder,
) {
    let reason = EventReason::FailedToStartServiceHealthcheck;
    warn!(
        event = %LogEvent::HealthCheckListenFailed,
        %service,
        %at,
        %error,
        reason = %reason.name(),
        "cannot serve the health check of a Service; retrying"
    );
    recorder.record(NewEvent {
        object: ObjectKey::service(service),
        reason,
        note: format!("cannot serve the health check at {at}; retrying: {error}"),
    });
}
