//! What this node tells of itself over HTTP: the health checks of load balancers.

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

/// How long after a port could not be had it is tried again.
const RETRY: Duration = Duration::from_secs(3);

/// The servers of every health check.
struct HealthCheckServers {
    sync_health: Arc<SyncHealth>,
    metrics: Metrics,
    server: Server,
    recorder: EventRecorder,
    addresses: BTreeMap<Family, Vec<IpAddr>>,
    services: BTreeMap<(Family, ServiceName), HealthCheckServer>,
}

/// One Service in one family.
struct HealthCheckServer {
    port: u16,
    /// Where it is served besides the node's addresses.
    load_balancer_ips: Vec<IpAddr>,
    health: Arc<ServiceHealth>,
    listeners: BTreeMap<IpAddr, CheckListener>,
}

enum CheckListener {
    Open(AbortHandle),
    /// The port cannot be had, which was said.
    Failed(String),
}

impl Drop for CheckListener {
    fn drop(&mut self) {
        if let Self::Open(task) = self {
            task.abort();
        }
    }
}

/// Serves the health checks as they change, until nobody reports any more. Users are told of those
/// that cannot be, and they are counted.
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
                Some(change) => servers.take_in(change),
                None => return,
            },
            () = sleep(RETRY), if servers.lacks_any() => servers.retry(),
        }
        servers.report_failed();
    }
}

impl HealthCheckServers {
    fn take_in(&mut self, change: HealthCheckChange) {
        match change {
            HealthCheckChange::Addresses(family, addresses) => {
                for ((of, name), served) in &mut self.services {
                    if *of == family {
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
                    .is_some_and(|had| had.port != check.port)
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

    fn lacks_any(&self) -> bool {
        self.services.values().any(HealthCheckServer::lacks_any)
    }

    /// Reports the Services that are not served as asked.
    fn report_failed(&self) {
        let mut failed: BTreeMap<ServiceName, BTreeSet<String>> = BTreeMap::new();
        for ((_, name), served) in &self.services {
            for why in served.failed() {
                let reasons = failed.entry(name.clone()).or_default();
                reasons.insert(why.to_owned());
            }
        }
        let reason = ReasonLabel::new(EventReason::FailedToStartServiceHealthcheck.name());
        let objects = &self.metrics.problem_objects;
        let count = i64::try_from(failed.len()).unwrap_or(i64::MAX);
        objects.get_or_create(&reason).set(count);
        self.server.failed.health_checks(failed);
    }

    fn retry(&mut self) {
        for ((family, name), served) in &mut self.services {
            let addresses = self.addresses.get(family);
            let addresses = addresses.map_or(&[][..], Vec::as_slice);
            served.open(name, addresses, &self.server, &self.recorder);
        }
    }
}

impl HealthCheckServer {
    fn lacks_any(&self) -> bool {
        self.failed().next().is_some()
    }

    /// Why it is not served where it should be.
    fn failed(&self) -> impl Iterator<Item = &str> {
        let listeners = self.listeners.values();
        listeners.filter_map(|listener| match listener {
            CheckListener::Open(_) => None,
            CheckListener::Failed(why) => Some(why.as_str()),
        })
    }

    /// Where it is to be served, on a node with these addresses.
    fn wanted(&self, addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
        let everywhere = addresses.iter().any(IpAddr::is_unspecified);
        let load_balancer_ips = self.load_balancer_ips.iter().filter(|_| !everywhere);
        addresses.iter().chain(load_balancer_ips).copied().collect()
    }

    /// Closes what is not to be open, and opens what is not open yet. What fails is said once, worded as kube-proxy's event.
    fn open(
        &mut self,
        service: &ServiceName,
        addresses: &[IpAddr],
        server: &Server,
        recorder: &EventRecorder,
    ) {
        let wanted = self.wanted(addresses);
        self.listeners.retain(|ip, _| wanted.contains(ip));
        for ip in &wanted {
            let had = self.listeners.get(ip);
            if matches!(had, Some(CheckListener::Open(_))) {
                continue;
            }
            let at = SocketAddr::new(*ip, self.port);
            match server.listen(at) {
                Ok(listeners) => {
                    if had.is_some() {
                        info!(event = %LogEvent::HealthCheckListening, %service, %at, "health check is served");
                    }
                    let answering =
                        answer::serve(listeners, server.clone(), Arc::clone(&self.health));
                    let task = tokio::spawn(answering);
                    let open = CheckListener::Open(task.abort_handle());
                    self.listeners.insert(*ip, open);
                }
                Err(error) => {
                    if had.is_none() {
                        cannot_be_served(service, at, &error, recorder);
                    }
                    let why = format!("its health check cannot be served at {at}: {error}");
                    self.listeners.insert(*ip, CheckListener::Failed(why));
                }
            }
        }
    }
}

fn cannot_be_served(
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
        note: format!(
            "the health check of the Service cannot be served at {at}, will try again: {error}"
        ),
    });
}
