//! Suggestions for a query that matches nothing.

use std::collections::BTreeSet;

use super::{ServiceQuery, Target};
use crate::planner::model::Protocol;
use crate::planner::ruleset::service_and_port;

/// A frontend or node port of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFrontend {
    /// The transport protocol of the frontend.
    pub protocol: Protocol,
    /// The address of the frontend; `None`: a node port.
    pub address: Option<std::net::IpAddr>,
    /// The port of the frontend.
    pub port: u16,
    /// The Service port of the frontend, as `namespace/name:port-name`.
    pub service: String,
}

impl KnownFrontend {
    /// Describes the frontend as `explain` prints it.
    fn description(&self) -> String {
        let Self {
            protocol,
            port,
            service,
            ..
        } = self;
        match self.address {
            Some(address) => format!(
                "{}/{protocol} of {service}",
                std::net::SocketAddr::new(address, *port)
            ),
            None => format!("node port {port}/{protocol} of {service}"),
        }
    }
}

/// The maximum number of suggestions.
const MAX_SUGGESTIONS: usize = 5;

/// The minimum similarity of a suggested name, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.7;

/// Suggests frontends or Services that are similar to a query without a match.
#[must_use]
pub fn suggest(
    frontend: Option<&Target>,
    service: Option<&ServiceQuery>,
    known: &[KnownFrontend],
) -> Vec<String> {
    match (frontend, service) {
        (Some(target), _) => similar_frontends(target, known),
        (None, Some(wanted)) => similar_services(wanted, known),
        (None, None) => Vec::new(),
    }
}

/// Returns the frontends with the same address, then those with the same port.
fn similar_frontends(target: &Target, known: &[KnownFrontend]) -> Vec<String> {
    let same_address = |known: &&KnownFrontend| known.address == Some(target.address);
    let same_port = |known: &&KnownFrontend| known.port == target.port;
    let by_address = known.iter().filter(same_address);
    let by_port = known
        .iter()
        .filter(|known| same_port(known) && !same_address(known));
    by_address
        .chain(by_port)
        .take(MAX_SUGGESTIONS)
        .map(KnownFrontend::description)
        .collect()
}

/// The maximum number of names that [`most_similar`] returns.
const MAX_NAMES: usize = 3;

/// Returns the names that are most similar to a name, the most similar one first.
#[must_use]
pub fn most_similar(wanted: &str, mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    let similarity = |name: &String| strsim::normalized_damerau_levenshtein(wanted, name);
    let mut similar: Vec<_> = names
        .into_iter()
        .map(|name| (similarity(&name), name))
        .collect();
    similar.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    similar.truncate(MAX_NAMES);
    similar.into_iter().map(|(_, name)| name).collect()
}

/// Returns the other ports of the Service, or the Services with similar names if it has none.
fn similar_services(wanted: &ServiceQuery, known: &[KnownFrontend]) -> Vec<String> {
    let service = |known: &KnownFrontend| {
        let (service, _) = service_and_port(&known.service);
        service.to_owned()
    };
    let whole_name = wanted.to_string();
    let is_wanted = |name: &str| {
        let (_, bare) = name.split_once('/').unwrap_or_default();
        name == whole_name || (wanted.namespace.is_none() && bare == wanted.name)
    };
    let ports: Vec<_> = known
        .iter()
        .filter(|known| is_wanted(&service(known)))
        .map(KnownFrontend::description)
        .collect();
    if !ports.is_empty() {
        return ports.into_iter().take(MAX_SUGGESTIONS).collect();
    }
    let names: BTreeSet<_> = known.iter().map(service).collect();
    let similarity = |name: &String| {
        let (_, other) = name.split_once('/').unwrap_or_default();
        let whole = strsim::normalized_damerau_levenshtein(&whole_name, name);
        // The right name in the wrong namespace is a good suggestion, too.
        let name_only = strsim::normalized_damerau_levenshtein(&wanted.name, other) - 0.05;
        whole.max(name_only)
    };
    let mut similar: Vec<_> = names
        .into_iter()
        .map(|name| (similarity(&name), name))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .collect();
    similar.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    similar.truncate(MAX_SUGGESTIONS);
    similar.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<KnownFrontend> {
        let frontend = |address: &str, port, service: &str| KnownFrontend {
            protocol: Protocol::Tcp,
            address: address.parse().ok(),
            port,
            service: service.to_owned(),
        };
        vec![
            frontend("10.96.0.1", 80, "shop/cart:http"),
            frontend("10.96.0.1", 443, "shop/cart:https"),
            frontend("10.96.0.2", 80, "shop/till"),
            frontend("", 30080, "shop/till"),
        ]
    }

    #[test]
    fn the_most_similar_names_come_first() {
        let names = ["node-3", "node-2", "other", "node-1"].map(str::to_owned);
        let similar = most_similar("nod-1", names.into());
        assert_eq!(similar, ["node-1", "node-2", "node-3"]);
        assert_eq!(most_similar("nod-1", Vec::new()), [""; 0]);
    }

    #[test]
    fn frontends_of_the_same_address_come_first() {
        let target = Target {
            protocol: Protocol::Tcp,
            address: "10.96.0.2".parse().unwrap(),
            port: 443,
        };
        assert_eq!(
            suggest(Some(&target), None, &known()),
            [
                "10.96.0.2:80/tcp of shop/till",
                "10.96.0.1:443/tcp of shop/cart:https"
            ]
        );
    }

    #[test]
    fn services_with_a_similar_name_are_suggested() {
        let wanted = |service: &str| -> ServiceQuery { service.parse().unwrap() };
        let suggested = |service| suggest(None, Some(&wanted(service)), &known());
        assert_eq!(suggested("shop/crat"), ["shop/cart"]);
        assert_eq!(suggested("default/till"), ["shop/till"]);
        assert_eq!(suggested("tlil"), ["shop/till"]);
        assert_eq!(suggested("till").len(), 2);
        assert_eq!(suggested("kube-system/kube-dns"), [""; 0]);
        assert_eq!(suggested("shop/till").len(), 2);
    }
}
