//! The metrics of connections: the counters of the frontends of each Service, read at each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tracing::debug;

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

/// Collects the counters from the kernel at each scrape.
pub struct ConnectionMetrics {
    /// The counters of the last scrape.
    totals: Mutex<CountedTotals>,
    /// The IP families of the node.
    families: &'static [Family],
    /// The maximum number of ports with metrics, busiest first.
    limit: usize,
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
            totals: Mutex::new(CountedTotals {
                kernel,
                elements: BTreeMap::new(),
            }),
            families,
            limit,
        }
    }

    /// Reads the counters and sums them for each port.
    fn totals(&self) -> BTreeMap<PortLabel, u64> {
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
        totals: &mut BTreeMap<PortLabel, u64>,
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
            *totals.entry(PortLabel::parse(&name)).or_insert(0) += element.earlier + element.last;
            self.elements.insert(key, element);
        }
    }
}

impl Collector for ConnectionMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut totals: Vec<_> = self.totals().into_iter().collect();
        totals.sort_by_key(|(_, connections)| std::cmp::Reverse(*connections));
        let hidden = totals.len().saturating_sub(self.limit);
        totals.truncate(self.limit);
        let (name, help) = CONNECTIONS;
        // Some parsers reject a family without samples.
        if !totals.is_empty() {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (port, connections) in &totals {
                let encoder = family.encode_family(port)?;
                ConstCounter::new(*connections).encode(encoder)?;
            }
        }
        let (name, help) = HIDDEN;
        let hidden = i64::try_from(hidden).unwrap_or(i64::MAX);
        let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(hidden).encode(encoder)
    }
}
