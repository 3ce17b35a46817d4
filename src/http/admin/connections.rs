//! The metrics of connections: the counters of the frontends of each Service, read at each scrape.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::Serialize;
use tracing::debug;

use super::shares::EndpointShares;
use crate::clock;
use crate::metrics::seconds_of;
use crate::netlink::{CountedElement, Kernel};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, Protocol};
use crate::planner::ruleset::{Denial, SetName, service_and_port};

/// The name and the help of the metric of connections.
pub const CONNECTIONS: (&str, &str) = (
    "kube_dnat_service_connections",
    "New connections to a port of a Service on this node",
);

/// The name and the help of the metric of ports without connection metrics.
pub const HIDDEN: (&str, &str) = (
    "kube_dnat_service_ports_hidden",
    "Service ports without connection metrics, because --connection-metrics-limit is reached",
);

/// The name and the help of the metric of denied connections.
pub const DENIED: (&str, &str) = (
    "kube_dnat_service_connections_denied",
    "New connections to a port of a Service on this node that were rejected or dropped",
);

/// The name and the help of the metric of the endpoints' shares.
pub const SAMPLED: (&str, &str) = (
    "kube_dnat_endpoint_connections_sampled",
    "New connections to an endpoint among those that were sampled from connection tracking",
);

/// The time for which the counters are not read again for `/debug/connections`.
const FRESH: Duration = Duration::from_secs(1);

/// Collects the counters from the kernel at each scrape.
#[derive(Clone)]
pub struct ConnectionMetrics {
    /// The counters, which `/debug/connections` reads, too.
    counters: Arc<ConnectionCounters>,
    /// The maximum number of series of each metric, busiest first.
    limit: usize,
}

/// Reads the counters of all frontends.
struct ConnectionCounters {
    /// The counters of the last reading.
    totals: Mutex<CountedTotals>,
    /// The IP families of the node.
    families: &'static [Family],
    /// The last answer to `/debug/connections`, and when the counters were read.
    last: Mutex<Option<(Instant, Arc<CountedConnections>)>>,
}

/// The connections of each Service port at a time, for `/debug/connections`.
#[derive(Serialize)]
pub(super) struct CountedConnections {
    /// The Unix time in seconds.
    now: f64,
    /// The new connections since the daemon started, by `namespace/name:port-name`; those without
    /// any are absent.
    connections: BTreeMap<String, u64>,
    /// Those of them that were rejected or dropped, by reason.
    denied: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// The sampled new connections of each endpoint.
    sampled: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The sums of a reading.
#[derive(Default)]
struct Totals {
    /// The new connections of each Service port, by `namespace/name:port-name`.
    connections: BTreeMap<String, u64>,
    /// The denied ones, without those that are zero.
    denied: BTreeMap<(String, Denial), u64>,
    /// The Service port of each frontend; a node port has no address.
    frontends: BTreeMap<(Protocol, Option<IpAddr>, u16), String>,
    /// The sampled connections of each endpoint.
    sampled: BTreeMap<(String, SocketAddr), u64>,
}

/// The counters of the last scrape, from which resets are detected.
struct CountedTotals {
    /// The socket that reads the counters.
    kernel: Kernel,
    /// The counter of each element that a frontend has.
    elements: BTreeMap<String, CountedFrontend>,
    /// The sampled connections.
    shares: EndpointShares,
}

/// The counter of one frontend.
///
/// The kernel's counter restarts at 0 when the element is recreated, usually because it gets
/// another chain.
#[derive(Clone, Default)]
struct CountedFrontend {
    /// The chain of the element.
    chain: Option<String>,
    /// The last value of the counter.
    last: u64,
    /// The sum of the counters of earlier elements.
    earlier: u64,
    /// The connections that were denied, by reason.
    denied: BTreeMap<Denial, u64>,
}

impl CountedFrontend {
    /// Adds a reading.
    fn add<A: Address>(&mut self, counted: CountedElement<A>) {
        let mut new = counted.packets.saturating_sub(self.last);
        if counted.packets < self.last || counted.chain != self.chain {
            self.earlier += self.last;
            new = counted.packets;
        }
        // An element that gets another verdict is recreated, so that all these have this one.
        if let Some(denial) = counted.denial {
            *self.denied.entry(denial).or_default() += new;
        }
        self.chain = counted.chain;
        self.last = counted.packets;
    }
}

/// The labels of a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct PortLabel {
    /// The namespace of the Service.
    namespace: String,
    /// The name of the Service.
    service: String,
    /// The name of the port.
    port_name: String,
}

impl PortLabel {
    /// Parses `namespace/name:port-name`.
    fn parse(name: &str) -> Self {
        let (service, port) = service_and_port(name);
        let (namespace, service) = service.split_once('/').unwrap_or(("", service));
        Self {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port_name: port.to_owned(),
        }
    }
}

/// The labels of a port of a Service and of a reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeniedLabel {
    namespace: String,
    service: String,
    port_name: String,
    reason: &'static str,
}

impl DeniedLabel {
    fn new(port: PortLabel, reason: &'static str) -> Self {
        Self {
            namespace: port.namespace,
            service: port.service,
            port_name: port.port_name,
            reason,
        }
    }
}

/// The labels of a port of a Service and of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabel {
    namespace: String,
    service: String,
    port_name: String,
    endpoint: String,
}

impl EndpointLabel {
    fn new(port: PortLabel, endpoint: String) -> Self {
        Self {
            namespace: port.namespace,
            service: port.service,
            port_name: port.port_name,
            endpoint,
        }
    }
}

impl fmt::Debug for ConnectionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionMetrics").finish_non_exhaustive()
    }
}

impl ConnectionMetrics {
    /// Builds the collector, which reads through `kernel`, and starts to sample connection tracking.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new(kernel: Kernel, families: &'static [Family], limit: usize) -> io::Result<Self> {
        Ok(Self {
            counters: Arc::new(ConnectionCounters {
                totals: Mutex::new(CountedTotals {
                    kernel,
                    elements: BTreeMap::new(),
                    shares: EndpointShares::start()?,
                }),
                families,
                last: Mutex::new(None),
            }),
            limit,
        })
    }

    /// Returns the connections of each port of about now; blocks while it reads them.
    pub(super) fn counted(&self) -> Arc<CountedConnections> {
        let last = &self.counters.last;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, counted)) = &*last
            && read.elapsed() < FRESH
        {
            return Arc::clone(counted);
        }
        let totals = self.counters.totals();
        let connections = totals.connections.into_iter();
        let mut denied: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for ((port, denial), count) in totals.denied {
            denied.entry(port).or_default().insert(denial.name(), count);
        }
        let mut sampled: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for ((port, endpoint), count) in totals.sampled {
            let of_port = sampled.entry(port).or_default();
            of_port.insert(endpoint.to_string(), count);
        }
        let counted = Arc::new(CountedConnections {
            now: seconds_of(clock::now()),
            connections: connections.filter(|(_, count)| *count > 0).collect(),
            denied,
            sampled,
        });
        *last = Some((Instant::now(), Arc::clone(&counted)));
        counted
    }
}

impl ConnectionCounters {
    /// Reads the counters and sums them for each port.
    fn totals(&self) -> Totals {
        let mut counted = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = Totals::default();
        let before = std::mem::take(&mut counted.elements);
        for family in self.families {
            match family {
                Family::Ipv4 => counted.read::<Ipv4Addr>(&before, &mut totals),
                Family::Ipv6 => counted.read::<Ipv6Addr>(&before, &mut totals),
            }
        }
        totals.sampled = counted.shares.read(&totals.frontends);
        totals
    }
}

impl CountedTotals {
    /// Reads the counters of a family, and adds them to the totals of their ports.
    fn read<A: Address>(
        &mut self,
        before: &BTreeMap<String, CountedFrontend>,
        totals: &mut Totals,
    ) {
        let counted = match self.kernel.connection_counters::<A>() {
            Ok(counted) => counted,
            Err(error) => {
                // Before the first commit the table does not exist.
                debug!(%error, family = %A::FAMILY, "cannot read the counters of connections");
                return;
            }
        };
        for (set, counted) in counted {
            let (Some(name), Some((protocol, address, port))) =
                (counted.comment.clone(), counted.key.frontend())
            else {
                continue;
            };
            let name = name.distinct(protocol, port);
            let key = format!("{} {} {} {name}", A::FAMILY, set.as_str(), counted.key);
            let mut element = before.get(&key).cloned().unwrap_or_default();
            element.add(counted);
            for (denial, count) in element.denied.iter().filter(|(_, count)| **count > 0) {
                let denied = totals.denied.entry((name.clone(), *denial));
                *denied.or_default() += count;
            }
            if SetName::OF_FRONTENDS.contains(&set) {
                let connections = totals.connections.entry(name.clone());
                *connections.or_default() += element.earlier + element.last;
                let frontend = (protocol, address.map(Into::into), port);
                totals.frontends.insert(frontend, name);
            }
            self.elements.insert(key, element);
        }
    }
}

/// Encodes the largest counters as samples of one metric; returns how many are left out.
fn encode_busiest<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    counters: impl IntoIterator<Item = (L, u64)>,
    limit: usize,
) -> Result<usize, fmt::Error> {
    let mut counters: Vec<_> = counters.into_iter().collect();
    counters.sort_by_key(|(_, count)| Reverse(*count));
    let hidden = counters.len().saturating_sub(limit);
    counters.truncate(limit);
    // Some parsers reject a family without samples.
    if !counters.is_empty() {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (label, count) in &counters {
            let encoder = family.encode_family(label)?;
            ConstCounter::new(*count).encode(encoder)?;
        }
    }
    Ok(hidden)
}

impl Collector for ConnectionMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let totals = self.counters.totals();
        let connections = totals.connections.iter();
        let connections = connections.map(|(port, count)| (PortLabel::parse(port), *count));
        let hidden = encode_busiest(&mut encoder, CONNECTIONS, connections, self.limit)?;
        let denied = totals.denied.iter().map(|((port, denial), count)| {
            let reason = denial.name();
            (DeniedLabel::new(PortLabel::parse(port), reason), *count)
        });
        encode_busiest(&mut encoder, DENIED, denied, self.limit)?;
        let sampled = totals.sampled.iter().map(|((port, endpoint), count)| {
            let endpoint = endpoint.to_string();
            (EndpointLabel::new(PortLabel::parse(port), endpoint), *count)
        });
        encode_busiest(&mut encoder, SAMPLED, sampled, self.limit)?;
        let (name, help) = HIDDEN;
        let hidden = i64::try_from(hidden).unwrap_or(i64::MAX);
        let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(hidden).encode(encoder)
    }
}
