//! Computes rates from samples and the time between them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use serde::Serialize;

use crate::planner::model::Protocol;
use crate::planner::ruleset::Denial;

/// The key of a frontend. A node port has no address.
pub(super) type FrontendId = (Protocol, Option<IpAddr>, u16);

/// The counter of a frontend since its element was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrontendCounter {
    /// The Service port, as `namespace/name:port-name`.
    pub(super) service: String,
    /// The chain of the element. An element with another chain was recreated.
    pub(super) chain: Option<String>,
    /// The number of connections.
    pub(super) connections: u64,
}

/// The counters of all frontends at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// All connections of each frontend.
    pub(super) frontends: BTreeMap<FrontendId, FrontendCounter>,
    /// Those of elements that deny them, by reason.
    pub(super) denied: BTreeMap<(FrontendId, Denial), FrontendCounter>,
}

/// The new connections of an interval, from conntrack events.
#[derive(Debug, Default)]
pub(super) struct NewByEndpoint {
    /// The number of connections, by Service and endpoint.
    pub(super) connections: BTreeMap<(String, SocketAddr), u64>,
    /// Whether events were lost, so that the numbers are too low.
    pub(super) events_lost: bool,
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SortOrder {
    /// Highest rate of connections first.
    #[default]
    Rate,
    /// Most connections first.
    Total,
    /// By name of the Service.
    Service,
}

/// The rows to show, and their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// The order of the rows.
    pub(super) order: SortOrder,
    /// The namespace of the Services; `None`: all.
    pub(super) namespace: Option<String>,
    /// The maximum number of Service ports; `None`: all.
    pub(super) limit: Option<usize>,
}

/// The rates of a Service port.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceRow {
    /// The Service port, as `namespace/name:port-name`.
    pub(super) service: String,
    /// The rate of new connections.
    pub(super) connections_per_second: f64,
    /// The number of connections since its elements were created.
    pub(super) connections: u64,
    /// The connections that were rejected or dropped, by reason; without reasons that had none.
    pub(super) denied: Vec<DeniedRow>,
    /// Its endpoints that had new connections.
    pub(super) endpoints: Vec<EndpointRow>,
}

/// The connections of a Service port that were rejected or dropped for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeniedRow {
    /// The reason, as [`Denial::name`] has it.
    pub(super) reason: &'static str,
    /// The reason in words.
    #[serde(skip)]
    pub(super) description: &'static str,
    /// The rate of these connections.
    pub(super) connections_per_second: f64,
    /// Their number since the elements were created.
    pub(super) connections: u64,
}

/// An endpoint that had new connections in the interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointRow {
    /// The address and port of the endpoint.
    pub(super) endpoint: String,
    /// The rate of new connections.
    pub(super) connections_per_second: f64,
    /// The share of the Service port's new connections that have an endpoint, 0 to 1.
    pub(super) share: f64,
}

/// The rates of an interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rates {
    /// The length of the interval.
    pub(super) seconds: f64,
    /// Whether conntrack events were lost, so that the rates of endpoints are too low.
    pub(super) events_lost: bool,
    /// The Service ports.
    pub(super) services: Vec<ServiceRow>,
}

/// Computes a rate.
#[expect(
    clippy::cast_precision_loss,
    reason = "the number of connections of an interval is far below 2^52"
)]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(f64::MIN_POSITIVE)
}

/// Computes the share of an endpoint.
#[expect(
    clippy::cast_precision_loss,
    reason = "the number of connections of an interval is far below 2^52"
)]
fn share(count: u64, all: u64) -> f64 {
    count as f64 / all.max(1) as f64
}

/// Computes the rows of denied connections of each Service port.
fn denied_rows<'a>(
    before: &Sample,
    after: &'a Sample,
    seconds: f64,
) -> BTreeMap<&'a str, Vec<DeniedRow>> {
    let mut counted: BTreeMap<(&str, Denial), (u64, u64)> = BTreeMap::new();
    for (key, counter) in &after.denied {
        let (new, total) = counted.entry((&counter.service, key.1)).or_default();
        // An element that began to deny has counted only denied connections.
        let earlier = before.denied.get(key);
        *new += earlier.map_or(counter.connections, |before| {
            new_connections(before, counter)
        });
        *total += counter.connections;
    }
    let mut rows: BTreeMap<&str, Vec<DeniedRow>> = BTreeMap::new();
    for ((service, denial), (new, connections)) in counted {
        if connections > 0 {
            rows.entry(service).or_default().push(DeniedRow {
                reason: denial.name(),
                description: denial.description(),
                connections_per_second: per_second(new, seconds),
                connections,
            });
        }
    }
    rows
}

/// Returns the increase of a counter. A recreated element counts from zero.
fn new_connections(before: &FrontendCounter, after: &FrontendCounter) -> u64 {
    if before.chain == after.chain && before.connections <= after.connections {
        after.connections - before.connections
    } else {
        after.connections
    }
}

impl Rates {
    /// Computes the rates between two samples, with the connections received in between.
    pub(super) fn new(
        before: &Sample,
        after: &Sample,
        received: &NewByEndpoint,
        seconds: f64,
    ) -> Self {
        let mut counted: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (frontend, counter) in &after.frontends {
            let (new, total) = counted.entry(&counter.service).or_default();
            *new += before
                .frontends
                .get(frontend)
                .map_or(0, |before| new_connections(before, counter));
            *total += counter.connections;
        }
        let mut denied = denied_rows(before, after, seconds);
        let mut endpoints: BTreeMap<&str, Vec<(SocketAddr, u64)>> = BTreeMap::new();
        for ((service, endpoint), count) in &received.connections {
            let of_service = endpoints.entry(service).or_default();
            of_service.push((*endpoint, *count));
            counted.entry(service).or_default();
        }
        let mut row = |(service, (new, connections)): (&str, (u64, u64))| {
            let received = endpoints.get(service).map_or(&[][..], Vec::as_slice);
            let all = received.iter().map(|(_, count)| count).sum();
            // Without counters (--connection-counters=false), only the events are known.
            let new = new.max(all);
            let endpoints = received.iter().map(|(endpoint, count)| EndpointRow {
                endpoint: endpoint.to_string(),
                connections_per_second: per_second(*count, seconds),
                share: share(*count, all),
            });
            ServiceRow {
                service: service.to_owned(),
                connections_per_second: per_second(new, seconds),
                connections,
                denied: denied.remove(service).unwrap_or_default(),
                endpoints: endpoints.collect(),
            }
        };
        Self {
            seconds,
            events_lost: received.events_lost,
            services: counted.into_iter().map(&mut row).collect(),
        }
    }

    /// Drops the Service ports that are not selected, and sorts the others.
    pub(super) fn select(&mut self, selection: &Selection) {
        if let Some(namespace) = &selection.namespace {
            self.services.retain(|row| {
                let (of_row, _) = row.service.split_once('/').unwrap_or_default();
                of_row == namespace
            });
        }
        self.sort(selection.order);
        self.services
            .truncate(selection.limit.unwrap_or(usize::MAX));
    }

    /// Sorts the Service ports, and their endpoints by rate.
    pub(super) fn sort(&mut self, order: SortOrder) {
        self.services.sort_by(|one, other| {
            let by_name = one.service.cmp(&other.service);
            let by_rate = other
                .connections_per_second
                .total_cmp(&one.connections_per_second);
            let by_total = Reverse(one.connections).cmp(&Reverse(other.connections));
            match order {
                SortOrder::Rate => by_rate.then(by_total).then(by_name),
                SortOrder::Total => by_total.then(by_name),
                SortOrder::Service => by_name,
            }
        });
        for row in &mut self.services {
            row.endpoints.sort_by(|one, other| {
                let by_rate = other
                    .connections_per_second
                    .total_cmp(&one.connections_per_second);
                by_rate.then_with(|| one.endpoint.cmp(&other.endpoint))
            });
        }
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.services.iter().flat_map(|row| {
            let endpoints = row.endpoints.iter().map(|row| row.endpoint.len() + 2);
            let denied = row.denied.iter().map(|row| row.description.len() + 2);
            endpoints.chain(denied).chain([row.service.len()])
        });
        let width = names.max().unwrap_or_default().max("SERVICE".len());
        writeln!(
            f,
            "{:<width$}  {:>8}  {:>12}",
            "SERVICE", "NEW/S", "CONNECTIONS"
        )?;
        for row in &self.services {
            let ServiceRow {
                service,
                connections_per_second,
                connections,
                denied,
                endpoints,
            } = row;
            writeln!(
                f,
                "{service:<width$}  {connections_per_second:>8.1}  {connections:>12}"
            )?;
            for row in denied {
                let (name, rate) = (format!("  {}", row.description), row.connections_per_second);
                writeln!(f, "{name:<width$}  {rate:>8.1}  {:>12}", row.connections)?;
            }
            for row in endpoints {
                let (name, rate) = (format!("  {}", row.endpoint), row.connections_per_second);
                writeln!(
                    f,
                    "{name:<width$}  {rate:>8.1}  {:>10.0} %",
                    row.share * 100.0
                )?;
            }
        }
        if self.events_lost {
            writeln!(
                f,
                "conntrack events were lost: the rates of endpoints are too low"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(service: &str, chain: &str, connections: u64) -> FrontendCounter {
        FrontendCounter {
            service: service.to_owned(),
            chain: Some(chain.to_owned()),
            connections,
        }
    }

    fn frontend(port: u16) -> FrontendId {
        (Protocol::Tcp, "10.96.0.1".parse().ok(), port)
    }

    fn rates(
        before: &[(u16, FrontendCounter)],
        after: &[(u16, FrontendCounter)],
        received: &[(&str, u64)],
    ) -> Rates {
        let sample = |counters: &[(u16, FrontendCounter)]| {
            let counters = counters.iter().cloned();
            Sample {
                frontends: counters
                    .map(|(port, counter)| (frontend(port), counter))
                    .collect(),
                ..Sample::default()
            }
        };
        let endpoint = |port| SocketAddr::new("10.244.1.9".parse().unwrap(), port);
        let connections = (8080..)
            .zip(received)
            .map(|(port, (service, count))| (((*service).to_owned(), endpoint(port)), *count))
            .collect();
        let received = NewByEndpoint {
            connections,
            events_lost: false,
        };
        let mut rates = Rates::new(&sample(before), &sample(after), &received, 2.0);
        rates.sort(SortOrder::Rate);
        rates
    }

    #[test]
    fn the_frontends_of_a_service_are_added() {
        let rates = rates(
            &[
                (80, counter("shop/cart:http", "pick-2", 10)),
                (81, counter("shop/cart:http", "pick-2", 0)),
            ],
            &[
                (80, counter("shop/cart:http", "pick-2", 20)),
                (81, counter("shop/cart:http", "pick-2", 4)),
            ],
            &[("shop/cart:http", 8), ("shop/cart:http", 6)],
        );
        let row = &rates.services[0];
        assert!((row.connections_per_second - 7.0).abs() < 1e-9, "{rates:?}");
        assert_eq!(row.connections, 24);
        let endpoints: Vec<_> = row
            .endpoints
            .iter()
            .map(|row| row.endpoint.as_str())
            .collect();
        assert_eq!(endpoints, ["10.244.1.9:8080", "10.244.1.9:8081"]);
    }

    #[test]
    fn a_selection_has_the_first_ports_of_a_namespace() {
        let all = [
            (80, counter("shop/cart", "pick-2", 1)),
            (81, counter("shop/till", "pick-2", 3)),
            (82, counter("other/cart", "pick-2", 9)),
        ];
        let selected = |namespace: Option<&str>, limit| {
            let mut rates = rates(&[], &all, &[]);
            rates.select(&Selection {
                order: SortOrder::Total,
                namespace: namespace.map(str::to_owned),
                limit,
            });
            let names = rates.services.into_iter().map(|row| row.service);
            names.collect::<Vec<_>>()
        };
        assert_eq!(
            selected(None, None),
            ["other/cart", "shop/till", "shop/cart"]
        );
        assert_eq!(selected(Some("shop"), Some(1)), ["shop/till"]);
        assert_eq!(selected(Some("sho"), None), [""; 0]);
    }

    #[test]
    fn a_recreated_element_counts_from_zero() {
        let rates = rates(
            &[(80, counter("shop/cart", "pick-2", 100))],
            &[(80, counter("shop/cart", "pick-3", 6))],
            &[],
        );
        assert!((rates.services[0].connections_per_second - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_new_frontend_has_no_rate() {
        let rates = rates(&[], &[(80, counter("shop/cart", "pick-2", 100))], &[]);
        assert!(rates.services[0].connections_per_second.abs() < 1e-9);
        assert_eq!(rates.services[0].connections, 100);
    }

    #[test]
    fn without_counters_the_events_are_counted() {
        let rates = rates(&[], &[], &[("shop/cart", 4)]);
        assert!((rates.services[0].connections_per_second - 2.0).abs() < 1e-9);
    }

    #[test]
    fn denied_connections_have_their_reason_and_endpoints_their_share() {
        let sample = |connections| Sample {
            denied: [(
                (frontend(80), Denial::NoEndpoints),
                counter("shop/cart", "refuse", connections),
            )]
            .into(),
            frontends: [(frontend(80), counter("shop/cart", "refuse", connections))].into(),
        };
        let received = NewByEndpoint {
            connections: [("10.244.1.9:8080", 3), ("10.244.1.10:8080", 1)]
                .map(|(at, count)| (("shop/cart".to_owned(), at.parse().unwrap()), count))
                .into(),
            events_lost: false,
        };
        let rates = Rates::new(&sample(4), &sample(10), &received, 2.0);
        let row = &rates.services[0];
        assert_eq!(
            row.denied,
            [DeniedRow {
                reason: "no_endpoints",
                description: "denied: no endpoint",
                connections_per_second: 3.0,
                connections: 10,
            }]
        );
        let shown = rates.to_string();
        for line in [
            "  denied: no endpoint       3.0            10",
            "  10.244.1.9:8080           1.5          75 %",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
    }
}
