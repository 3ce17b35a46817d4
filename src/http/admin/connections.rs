//! The metrics of connections: the counters of the frontends of each Service, read at each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::Serialize;
use tracing::debug;

use crate::clock;
use crate::metrics::seconds_of;
use crate::netlink::Kernel;
use crate::planner::model::Address;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::service_and_port;

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

/// The time for which the counters are not read again for `/debug/connections`.
const FRESH: Duration = Duration::from_secs(1);

/// Collects the counters from the kernel at each scrape.
#[derive(Clone)]
pub struct ConnectionMetrics {
    /// The counters, which `/debug/connections` reads, too.
    counters: Arc<ConnectionCounters>,
    /// The maximum number of ports with metrics, busiest first.
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
}

/// The counters of the last scrape, from which resets are detected.
struct CountedTotals {
    /// The socket that reads the counters.
    kernel: Kernel,
    /// The counter of each element that a frontend has.
    elements: BTreeMap<String, CountedFrontend>,
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

impl fmt::Debug for ConnectionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionMetrics").finish_non_exhaustive()
    }
}

impl ConnectionMetrics {
    /// Builds the collector, which reads through `kernel`.
    #[must_use]
    pub fn new(kernel: Kernel, families: &'static [Family], limit: usize) -> Self {
        Self {
            counters: Arc::new(ConnectionCounters {
                totals: Mutex::new(CountedTotals {
                    kernel,
                    elements: BTreeMap::new(),
                }),
                families,
                last: Mutex::new(None),
            }),
            limit,
        }
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
        let totals = self.counters.totals().into_iter();
        let counted = Arc::new(CountedConnections {
            now: seconds_of(clock::now()),
            connections: totals.filter(|(_, connections)| *connections > 0).collect(),
        });
        *last = Some((Instant::now(), Arc::clone(&counted)));
        counted
    }
}

impl ConnectionCounters {
    /// Reads the counters and sums them for each port.
    fn totals(&self) -> BTreeMap<String, u64> {
        let mut counted = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = BTreeMap::new();
        let before = std::mem::take(&mut counted.elements);
        for family in self.families {
            match family {
                Family::Ipv4 => counted.read::<Ipv4Addr>(&before, &mut totals),
                Family::Ipv6 => counted.read::<Ipv6Addr>(&before, &mut totals),
            }
        }
        totals
    }
}

impl CountedTotals {
    /// Reads the counters of a family, and adds them to the totals of their ports.
    fn read<A: Address>(
        &mut self,
        before: &BTreeMap<String, CountedFrontend>,
        totals: &mut BTreeMap<String, u64>,
    ) {
        let counted = match self.kernel.connection_counters::<A>() {
            Ok(counted) => counted,
            Err(error) => {
                // Before the first commit the table does not exist.
                debug!(%error, family = %A::FAMILY, "cannot read the counters of connections");
                return;
            }
        };
        for counted in counted {
            let (Some(name), Some((protocol, _, port))) = (counted.comment, counted.key.frontend())
            else {
                continue;
            };
            let name = name.distinct(protocol, port);
            let key = format!("{} {} {name}", A::FAMILY, counted.key);
            let mut element = before.get(&key).cloned().unwrap_or_default();
            if counted.packets < element.last || counted.chain != element.chain {
                element.earlier += element.last;
            }
            element.chain = counted.chain;
            element.last = counted.packets;
            *totals.entry(name).or_insert(0) += element.earlier + element.last;
            self.elements.insert(key, element);
        }
    }
}

impl Collector for ConnectionMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut totals: Vec<_> = self.counters.totals().into_iter().collect();
        totals.sort_by_key(|(_, connections)| std::cmp::Reverse(*connections));
        let hidden = totals.len().saturating_sub(self.limit);
        totals.truncate(self.limit);
        let (name, help) = CONNECTIONS;
        // Some parsers reject a family without samples.
        if !totals.is_empty() {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (port, connections) in &totals {
                let label = PortLabel::parse(port);
                let encoder = family.encode_family(&label)?;
                ConstCounter::new(*connections).encode(encoder)?;
            }
        }
        let (name, help) = HIDDEN;
        let hidden = i64::try_from(hidden).unwrap_or(i64::MAX);
        let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(hidden).encode(encoder)
    }
}
