//! What is like something that is not there.

use std::collections::BTreeSet;

use super::{ServiceQuery, Target};
use crate::planner::model::Protocol;
use crate::planner::ruleset::service_and_port;

/// A frontend or node port that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFrontend {
    /// The protocol.
    pub protocol: Protocol,
    /// The address; `None`: a node port.
    pub address: Option<std::net::IpAddr>,
    /// The port.
    pub port: u16,
    /// `namespace/name:port-name`.
    pub service: String,
}

impl KnownFrontend {
    fn words(&self) -> String {
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

/// How many are named.
const SHOWN: usize = 5;

/// How alike two names are at least, from 0 to 1.
const ALIKE: f64 = 0.7;

/// What is like a frontend or a Service that is not there.
#[must_use]
pub fn near(
    frontend: Option<&Target>,
    service: Option<&ServiceQuery>,
    known: &[KnownFrontend],
) -> Vec<String> {
    match (frontend, service) {
        (Some(target), _) => near_frontend(target, known),
        (None, Some(wanted)) => near_service(wanted, known),
        (None, None) => Vec::new(),
    }
}

/// Of the same address, then of the same port.
fn near_frontend(target: &Target, known: &[KnownFrontend]) -> Vec<String> {
    let same_address = |known: &&KnownFrontend| known.address == Some(target.address);
    let same_port = |known: &&KnownFrontend| known.port == target.port;
    let first = known.iter().filter(same_address);
    let then = known
        .iter()
        .filter(same_port)
        .filter(|known| !same_address(known));
    first
        .chain(then)
        .take(SHOWN)
        .map(KnownFrontend::words)
        .collect()
}

/// The other ports of the Service; else Services with a similar name.
fn near_service(wanted: &ServiceQuery, known: &[KnownFrontend]) -> Vec<String> {
    let service = |known: &KnownFrontend| {
        let (service, _) = service_and_port(&known.service);
        service.to_owned()
    };
    let ports: Vec<_> = known
        .iter()
        .filter(|known| service(known) == wanted.service)
        .map(KnownFrontend::words)
        .collect();
    if !ports.is_empty() {
        return ports.into_iter().take(SHOWN).collect();
    }
    let names: BTreeSet<_> = known.iter().map(service).collect();
    let (_, own) = wanted.service.split_once('/').unwrap_or_default();
    let likeness = |name: &String| {
        let (_, other) = name.split_once('/').unwrap_or_default();
        let whole = strsim::normalized_damerau_levenshtein(&wanted.service, name);
        // The right name in another namespace.
        let own = strsim::normalized_damerau_levenshtein(own, other) - 0.05;
        whole.max(own)
    };
    let mut alike: Vec<_> = names
        .into_iter()
        .map(|name| (likeness(&name), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    alike.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    alike.truncate(SHOWN);
    alike.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<KnownFrontend> {
        let at = |address: &str, port, service: &str| KnownFrontend {
            protocol: Protocol::Tcp,
            address: address.parse().ok(),
            port,
            service: service.to_owned(),
        };
        vec![
            at("10.96.0.1", 80, "shop/cart:http"),
            at("10.96.0.1", 443, "shop/cart:https"),
            at("10.96.0.2", 80, "shop/till"),
            at("", 30080, "shop/till"),
        ]
    }

    #[test]
    fn frontends_of_the_same_address_come_first() {
        let target = Target {
            protocol: Protocol::Tcp,
            address: "10.96.0.2".parse().unwrap(),
            port: 443,
        };
        assert_eq!(
            near(Some(&target), None, &known()),
            [
                "10.96.0.2:80/tcp of shop/till",
                "10.96.0.1:443/tcp of shop/cart:https"
            ]
        );
    }

    #[test]
    fn services_of_a_similar_name() {
        let wanted = |service: &str| ServiceQuery {
            service: service.to_owned(),
            port: None,
        };
        let near = |service| near(None, Some(&wanted(service)), &known());
        assert_eq!(near("shop/crat"), ["shop/cart"]);
        assert_eq!(near("default/till"), ["shop/till"]);
        assert_eq!(near("kube-system/kube-dns"), [""; 0]);
        assert_eq!(near("shop/till").len(), 2);
    }
}
