//! The listeners of all node ports at localhost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::problems::RelayProblems;
use super::sockets::SocketFailures;
use super::target::Target;
use super::tcp::{self, Clients};
use super::udp::{self, Flows};
use crate::logging::LogEvent;
use crate::metrics::{FamilyLabel, Metrics};
use crate::planner::desired::{LocalhostChange, LocalhostPort};
use crate::planner::model::addr::Family;
use crate::planner::model::{Protocol, ServiceName};

/// The node ports of all Services at localhost.
pub(super) struct RelayedPorts {
    /// The node ports by family, protocol and number. One Service has each.
    ports: BTreeMap<PortKey, RelayedPort>,
    /// The node ports of each Service and family.
    services: BTreeMap<(Family, ServiceName), BTreeSet<PortKey>>,
    /// The node ports that cannot be bound, each with its error, which is in the log.
    failed: BTreeMap<PortKey, String>,
    /// The number of listeners of each family.
    listeners: BTreeMap<Family, i64>,
    /// The slots of TCP connections.
    slots: Arc<Semaphore>,
    /// The flows of UDP.
    flows: Flows,
    failures: SocketFailures,
    metrics: Metrics,
    problems: RelayProblems,
}

/// A node port of one family.
type PortKey = (Family, Protocol, u16);

/// A node port with its listener.
struct RelayedPort {
    service: ServiceName,
    target: Arc<Target>,
    /// The task that accepts clients; `None` if the port cannot be bound.
    listener: Option<AbortHandle>,
}

impl Drop for RelayedPort {
    fn drop(&mut self) {
        if let Some(task) = &self.listener {
            task.abort();
        }
    }
}

impl RelayedPorts {
    /// Creates no node ports.
    pub(super) fn new(metrics: Metrics, problems: RelayProblems) -> Self {
        let failures = SocketFailures::new(metrics.clone());
        Self {
            ports: BTreeMap::new(),
            services: BTreeMap::new(),
            failed: BTreeMap::new(),
            listeners: BTreeMap::new(),
            slots: Arc::new(Semaphore::new(tcp::MAX_CONNECTIONS)),
            flows: Flows::new(metrics.clone(), failures.clone()),
            failures,
            metrics,
            problems,
        }
    }

    /// Replaces the node ports of a Service in one family. Takes time linear in both.
    pub(super) fn handle_change(&mut self, change: LocalhostChange) {
        let LocalhostChange {
            family,
            service,
            ports,
        } = change;
        let wanted: BTreeSet<_> = ports.iter().map(|port| key(family, port)).collect();
        let name = (family, service.clone());
        let before = if wanted.is_empty() {
            self.services.remove(&name)
        } else {
            self.services.insert(name, wanted.clone())
        };
        for key in &before.unwrap_or_default() - &wanted {
            self.close(key, &service);
        }
        for port in &ports {
            self.set(key(family, port), &service, port);
        }
    }

    /// Closes a node port, unless another Service has it now.
    fn close(&mut self, key: PortKey, service: &ServiceName) {
        let Some(relayed) = self.ports.remove(&key) else {
            return;
        };
        if relayed.service != *service {
            self.ports.insert(key, relayed);
            return;
        }
        self.failed.remove(&key);
        if relayed.listener.is_some() {
            self.count_listener(key.0, -1);
        }
        if key.1 == Protocol::Udp {
            self.flows.retain(address(key), |_| false);
        }
    }

    /// Sets the endpoints of a node port, and opens its listener.
    fn set(&mut self, key: PortKey, service: &ServiceName, port: &LocalhostPort) {
        if let Some(relayed) = self.ports.get_mut(&key) {
            relayed.target.update(port);
            relayed.service = service.clone();
            if key.1 == Protocol::Udp {
                let target = Arc::clone(&relayed.target);
                self.flows
                    .retain(address(key), |endpoint| target.has(endpoint));
            }
            return;
        }
        self.ports.insert(
            key,
            RelayedPort {
                service: service.clone(),
                target: Target::new(port),
                listener: None,
            },
        );
        self.open(key);
    }

    /// Opens the listener of a node port; logs a failure once.
    fn open(&mut self, key: PortKey) {
        let Some(relayed) = self.ports.get_mut(&key) else {
            return;
        };
        let (service, protocol, at) = (&relayed.service, key.1, address(key));
        let target = Arc::clone(&relayed.target);
        let clients = Clients {
            target,
            slots: Arc::clone(&self.slots),
            failures: self.failures.clone(),
            metrics: self.metrics.clone(),
        };
        match start(key, clients, &self.flows) {
            Ok(task) => {
                if self.failed.remove(&key).is_some() {
                    info!(event = %LogEvent::LocalhostPortListening, %service, %at, %protocol, "node port is served at localhost");
                }
                relayed.listener = Some(task);
                self.count_listener(key.0, 1);
            }
            Err(error) => {
                let problem = format!("node port cannot be served at {at}/{protocol}: {error}");
                if self.failed.insert(key, problem).is_none() {
                    warn!(
                        event = %LogEvent::LocalhostPortListenFailed,
                        %service, %at, %protocol, %error,
                        "cannot serve a node port at localhost; retrying"
                    );
                    let label = FamilyLabel::from(key.0);
                    self.metrics.localhost_failures.get_or_create(&label).inc();
                }
            }
        }
    }

    /// Counts a listener that was opened or closed.
    fn count_listener(&mut self, family: Family, change: i64) {
        let count = self.listeners.entry(family).or_default();
        *count += change;
        let label = FamilyLabel::from(family);
        let listeners = &self.metrics.localhost_listeners;
        listeners.get_or_create(&label).set(*count);
    }

    /// Returns whether any node port cannot be bound.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Retries the node ports that cannot be bound.
    pub(super) fn retry(&mut self) {
        for key in self.failed.keys().copied().collect::<Vec<_>>() {
            self.open(key);
        }
    }

    /// Publishes the node ports that cannot be bound.
    pub(super) fn report_failed(&self) {
        let mut problems: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
        for (key, problem) in &self.failed {
            if let Some(port) = self.ports.get(key) {
                let of_service = problems.entry(port.service.clone()).or_default();
                of_service.push(problem.clone());
            }
        }
        self.problems.set(problems);
    }
}

/// Returns the key of a node port.
fn key(family: Family, port: &LocalhostPort) -> PortKey {
    (family, port.protocol, port.port)
}

/// Returns the address of a node port at localhost.
fn address((family, _, port): PortKey) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::Ipv4 => Ipv4Addr::LOCALHOST.into(),
        Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, port)
}

/// Binds a node port, and starts the task that serves it.
fn start(key: PortKey, clients: Clients, flows: &Flows) -> io::Result<AbortHandle> {
    let at = address(key);
    let task = match key.1 {
        Protocol::Udp => {
            let forwarding = udp::forward(udp::bind(at)?, at, clients.target, flows.clone());
            tokio::spawn(forwarding)
        }
        Protocol::Tcp | Protocol::Sctp => tokio::spawn(clients.accept(tcp::listen(at)?, at)),
    };
    Ok(task.abort_handle())
}
