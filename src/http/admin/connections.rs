//! Connections of each Service, as the elements of its frontends count them; read when scraped.

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
use crate::planner::model::addr::Family;
use crate::planner::model::Address;
use crate::planner::ruleset::service_and_port;

/// The name and the help of what is counted.
pub const CONNECTIONS: (&str, &str) = (
    "kube_dnat_service_connections",
    "New connections to a port of a Service on this node",
);

/// And of how many ports are not shown.
pub const HIDDEN: (&str, &str) = (
    "kube_dnat_service_ports_hidden",
    "Service ports without connection metrics, because --connection-metrics-limit is reached",
);

/// Reads the kernel whenever it is asked.
pub struct ConnectionMetrics {
    seen: Mutex<CountedTotals>,
    families: &'static [Family],
    /// At most so many ports are shown: those with the most connections.
    limit: usize,
}

struct CountedTotals {
    kernel: Kernel,
    elements: BTreeMap<String, CountedFrontend>,
}

/// One frontend. Its counter begins anew when its element is made anew, mostly since it goes to
/// another chain then.
#[derive(Clone, Default)]
struct CountedFrontend {
    chain: Option<String>,
    last: u64,
    before: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct PortLabel {
    namespace: String,
    service: String,
    port_name: String,
}

impl PortLabel {
    /// From `namespace/name:port-name`.
    fn of(name: &str) -> Self {
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
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl ConnectionMetrics {
    /// Read by this kernel.
    #[must_use]
    pub fn new(kernel: Kernel, families: &'static [Family], limit: usize) -> Self {
        Self {
            seen: Mutex::new(CountedTotals {
                kernel,
                elements: BTreeMap::new(),
            }),
            families,
            limit,
        }
    }

    fn totals(&self) -> BTreeMap<PortLabel, u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = BTreeMap::new();
        let before = std::mem::take(&mut seen.elements);
        for family in self.families {
            match family {
                Family::Ipv4 => seen.read::<Ipv4Addr>(&before, &mut totals),
                Family::Ipv6 => seen.read::<Ipv6Addr>(&before, &mut totals),
            }
        }
        totals
    }
}

impl CountedTotals {
    fn read<A: Address>(
        &mut self,
        before: &BTreeMap<String, CountedFrontend>,
        totals: &mut BTreeMap<PortLabel, u64>,
    ) {
        let counted = match self.kernel.connections::<A>() {
            Ok(counted) => counted,
            Err(error) => {
                // Before the first commit there is no table.
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
                element.before += element.last;
            }
            element.chain = counted.chain;
            element.last = counted.packets;
            *totals.entry(PortLabel::of(&name)).or_insert(0) += element.before + element.last;
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
        // Some parsers take no family without a sample.
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
