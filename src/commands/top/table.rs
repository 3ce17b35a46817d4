//! What is counted, as rates. Pure: samples and the time between them are arguments.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use serde::Serialize;

use crate::planner::model::Protocol;

/// A frontend, or a node port if it has no address.
pub(super) type FrontendId = (Protocol, Option<IpAddr>, u16);

/// What one frontend has counted since its element was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrontendCounter {
    /// `namespace/name:port-name`.
    pub(super) service: String,
    /// The chain that it goes to: an element with another was made anew.
    pub(super) chain: Option<String>,
    pub(super) connections: u64,
}

/// The counters of all frontends at one time.
pub(super) type Sample = BTreeMap<FrontendId, FrontendCounter>;

/// New connections of each Service to each endpoint in an interval.
pub(super) type ToEndpoints = BTreeMap<(String, SocketAddr), u64>;

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

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceRow {
    pub(super) service: String,
    pub(super) connections_per_second: f64,
    /// Since its elements were made.
    pub(super) connections: u64,
    pub(super) endpoints: Vec<EndpointRow>,
}

/// An endpoint that had new connections in the interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointRow {
    pub(super) endpoint: String,
    pub(super) connections_per_second: f64,
}

/// Rates of an interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rates {
    /// How long it was.
    pub(super) seconds: f64,
    /// Whether there were too many connections to hear of all: those of endpoints are too few.
    pub(super) missed: bool,
    pub(super) services: Vec<ServiceRow>,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of connections in an interval"
)]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(f64::MIN_POSITIVE)
}

impl Rates {
    /// From the samples at both ends, and what was heard in between.
    pub(super) fn new(
        before: &Sample,
        after: &Sample,
        heard: &ToEndpoints,
        missed: bool,
        seconds: f64,
    ) -> Self {
        let mut counted: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (at, counter) in after {
            let last = before.get(at);
            let last = last.filter(|last| {
                last.chain == counter.chain && last.connections <= counter.connections
            });
            let new = counter.connections - last.map_or(0, |last| last.connections);
            // What was there before it was looked at the first time is not of this interval.
            let new = if before.contains_key(at) { new } else { 0 };
            let (rate, total) = counted.entry(&counter.service).or_default();
            *rate += new;
            *total += counter.connections;
        }
        let mut endpoints: BTreeMap<&str, Vec<(SocketAddr, u64)>> = BTreeMap::new();
        for ((service, endpoint), count) in heard {
            let of_service = endpoints.entry(service).or_default();
            of_service.push((*endpoint, *count));
            counted.entry(service).or_default();
        }
        let row = |(service, (new, connections)): (&str, (u64, u64))| {
            let heard = endpoints.get(service).map_or(&[][..], Vec::as_slice);
            // Without counters (--connection-counters=false) what was heard is all there is.
            let new = new.max(heard.iter().map(|(_, count)| count).sum());
            let endpoints = heard.iter().map(|(endpoint, count)| EndpointRow {
                endpoint: endpoint.to_string(),
                connections_per_second: per_second(*count, seconds),
            });
            ServiceRow {
                service: service.to_owned(),
                connections_per_second: per_second(new, seconds),
                connections,
                endpoints: endpoints.collect(),
            }
        };
        Self {
            seconds,
            missed,
            services: counted.into_iter().map(row).collect(),
        }
    }

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
            endpoints.chain([row.service.len()])
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
                endpoints,
            } = row;
            writeln!(
                f,
                "{service:<width$}  {connections_per_second:>8.1}  {connections:>12}"
            )?;
            for row in endpoints {
                let name = format!("  {}", row.endpoint);
                writeln!(f, "{name:<width$}  {:>8.1}", row.connections_per_second)?;
            }
        }
        if self.missed {
            writeln!(
                f,
                "too many connections to hear of each: endpoints had more"
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

    fn at(port: u16) -> FrontendId {
        (Protocol::Tcp, "10.96.0.1".parse().ok(), port)
    }

    fn rates(
        before: &[(u16, FrontendCounter)],
        after: &[(u16, FrontendCounter)],
        heard: &[(&str, u64)],
    ) -> Rates {
        let sample = |list: &[(u16, FrontendCounter)]| {
            let list = list.iter().cloned();
            list.map(|(port, counter)| (at(port), counter)).collect()
        };
        let endpoint = |port| SocketAddr::new("10.244.1.9".parse().unwrap(), port);
        let heard = (8080..)
            .zip(heard)
            .map(|(port, (service, count))| (((*service).to_owned(), endpoint(port)), *count))
            .collect();
        let mut rates = Rates::new(&sample(before), &sample(after), &heard, false, 2.0);
        rates.sort(SortOrder::Rate);
        rates
    }

    #[test]
    fn frontends_of_a_service_count_together() {
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
    fn an_element_that_was_made_anew_counts_from_zero() {
        let rates = rates(
            &[(80, counter("shop/cart", "pick-2", 100))],
            &[(80, counter("shop/cart", "pick-3", 6))],
            &[],
        );
        assert!((rates.services[0].connections_per_second - 3.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_seen_the_first_time_has_no_rate() {
        let rates = rates(&[], &[(80, counter("shop/cart", "pick-2", 100))], &[]);
        assert!(rates.services[0].connections_per_second.abs() < 1e-9);
        assert_eq!(rates.services[0].connections, 100);
    }

    #[test]
    fn without_counters_what_was_heard_counts() {
        let rates = rates(&[], &[], &[("shop/cart", 4)]);
        assert!((rates.services[0].connections_per_second - 2.0).abs() < 1e-9);
    }
}
