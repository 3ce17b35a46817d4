//! The comparison of what nodes hold. Pure.
//!
//! A frontend with policy Local has other endpoints on each node, and topology hints select others in
//! each zone. So only the existence of the first is compared, and endpoints are compared within a zone
//! if the zones differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::planner::model::TrafficPolicy;

/// A frontend, as `services -o json` reports it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct HeldFrontend {
    /// The Service port, as `namespace/name:port`.
    pub(super) service: String,
    /// The frontend as `protocol://address:port`.
    address: String,
    /// The traffic policy.
    policy: Option<String>,
    /// The endpoints that connections are sent to.
    endpoints: Vec<HeldEndpoint>,
}

/// An endpoint, as `services -o json` reports it.
#[derive(Clone, Debug, Deserialize)]
struct HeldEndpoint {
    /// The address and port.
    address: String,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) struct NodeFrontends {
    /// The name of the node.
    pub(super) node: String,
    /// The zone of the node.
    pub(super) zone: Option<String>,
    /// The frontends.
    pub(super) frontends: Vec<HeldFrontend>,
}

/// A difference of one node for one Service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Difference {
    /// The Service port, as `namespace/name:port`.
    service: String,
    /// The node that differs.
    node: String,
    /// How it differs from most of the others.
    kind: DifferenceKind,
    /// The frontends that differ in this way.
    addresses: BTreeSet<String>,
}

/// How a node differs from most of the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum DifferenceKind {
    /// It lacks the frontend.
    Lacks,
    /// It has a frontend that the others do not have.
    OnlyHere,
    /// It has other endpoints.
    Endpoints {
        /// The endpoints that it lacks.
        fewer: BTreeSet<String>,
        /// The endpoints that only it has.
        more: BTreeSet<String>,
    },
}

/// The endpoints of a frontend by node.
type ByNode<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Compares the nodes. Returns the differences, by Service and node.
pub(super) fn compare(nodes: &[NodeFrontends]) -> BTreeSet<Difference> {
    let mut frontends: BTreeMap<(&str, &str), (bool, ByNode<'_>)> = BTreeMap::new();
    for NodeFrontends {
        node,
        frontends: of,
        ..
    } in nodes
    {
        for frontend in of {
            let key = (frontend.service.as_str(), frontend.address.as_str());
            let (is_local, by_node) = frontends.entry(key).or_default();
            let local = TrafficPolicy::Local.to_string();
            *is_local |= frontend.policy.as_deref() == Some(local.as_str());
            let endpoints = frontend.endpoints.iter();
            let endpoints = endpoints.map(|endpoint| endpoint.address.as_str());
            by_node.entry(node.as_str()).or_default().extend(endpoints);
        }
    }
    let zones: BTreeMap<&str, Option<&str>> = nodes
        .iter()
        .map(|node| (node.node.as_str(), node.zone.as_deref()))
        .collect();
    let mut found: BTreeMap<(String, String, DifferenceKind), BTreeSet<String>> = BTreeMap::new();
    for ((service, address), (is_local, by_node)) in &frontends {
        let mut differ = existence(by_node, &zones);
        if !is_local {
            differ.extend(endpoints(by_node, &zones));
        }
        for (node, kind) in differ {
            let key = ((*service).to_owned(), node.to_owned(), kind);
            let addresses = found.entry(key).or_default();
            addresses.insert((*address).to_owned());
        }
    }
    let difference = |((service, node, kind), addresses)| Difference {
        service,
        node,
        kind,
        addresses,
    };
    found.into_iter().map(difference).collect()
}

/// Returns the nodes that lack a frontend which most have, or have one that most lack.
fn existence<'a>(
    by_node: &ByNode<'a>,
    zones: &BTreeMap<&'a str, Option<&str>>,
) -> Vec<(&'a str, DifferenceKind)> {
    if by_node.len() * 2 >= zones.len() {
        let lacking = zones.keys().filter(|node| !by_node.contains_key(*node));
        lacking.map(|node| (*node, DifferenceKind::Lacks)).collect()
    } else {
        let having = by_node.keys();
        having
            .map(|node| (*node, DifferenceKind::OnlyHere))
            .collect()
    }
}

/// Returns the nodes whose endpoints differ from those of most comparable nodes.
fn endpoints<'a>(
    by_node: &ByNode<'a>,
    zones: &BTreeMap<&'a str, Option<&str>>,
) -> Vec<(&'a str, DifferenceKind)> {
    let mut in_zones: BTreeMap<Option<&str>, Vec<&'a str>> = BTreeMap::new();
    for node in by_node.keys() {
        let zone = zones.get(node).copied().flatten();
        in_zones.entry(zone).or_default().push(node);
    }
    let all: Vec<_> = by_node.keys().copied().collect();
    let of_all = most_common(by_node, &all);
    // Hints select other endpoints in each zone: a zone of one node can be compared with the others only
    // if two zones hold the same.
    let holds_majority = |nodes: &&Vec<&str>| nodes.iter().any(|node| by_node.get(node) == of_all);
    let zones_agree = in_zones.values().filter(holds_majority).count() > 1;
    let mut differ = Vec::new();
    for nodes in in_zones.values() {
        let reference = if nodes.len() > 1 {
            most_common(by_node, nodes)
        } else if zones_agree {
            of_all
        } else {
            None
        };
        let Some(reference) = reference else {
            continue;
        };
        for node in nodes {
            let own = &by_node[node];
            if own != reference {
                let less = |one: &BTreeSet<&str>, other: &BTreeSet<&str>| {
                    let rest = one.difference(other);
                    rest.map(|endpoint| (*endpoint).to_owned()).collect()
                };
                let fewer = less(reference, own);
                let more = less(own, reference);
                differ.push((*node, DifferenceKind::Endpoints { fewer, more }));
            }
        }
    }
    differ
}

/// Returns the endpoints that most of the nodes have; `None` if there is no majority. Of two nodes
/// that differ, the one with more endpoints counts: a node that is behind usually lacks some.
fn most_common<'m, 'a>(by_node: &'m ByNode<'a>, nodes: &[&str]) -> Option<&'m BTreeSet<&'a str>> {
    let mut counts: BTreeMap<&BTreeSet<&str>, usize> = BTreeMap::new();
    for endpoints in nodes.iter().filter_map(|node| by_node.get(node)) {
        *counts.entry(endpoints).or_default() += 1;
    }
    let most = counts
        .iter()
        .max_by_key(|(endpoints, count)| (**count, endpoints.len()));
    let (most, count) = most.map(|(most, count)| (*most, *count))?;
    let is_majority = count * 2 > nodes.len() || (nodes.len() == 2 && count == 1);
    by_node
        .values()
        .find(|endpoints| is_majority && *endpoints == most)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            node,
            kind,
            addresses,
        } = self;
        let count = |endpoints: &BTreeSet<String>, word: &str| match endpoints.len() {
            1 => format!("1 endpoint {word}"),
            count => format!("{count} endpoints {word}"),
        };
        let list = |endpoints: &BTreeSet<String>| {
            let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
            endpoints.join(", ")
        };
        match kind {
            DifferenceKind::Lacks => write!(f, "{node} lacks {service}")?,
            DifferenceKind::OnlyHere => {
                write!(
                    f,
                    "{node} holds {service}, which most other nodes do not hold"
                )?;
            }
            DifferenceKind::Endpoints { fewer, more } => {
                match (fewer.is_empty(), more.is_empty()) {
                    (_, true) => write!(
                        f,
                        "{node} has {} for {service}: {}",
                        count(fewer, "fewer"),
                        list(fewer)
                    )?,
                    (true, false) => write!(
                        f,
                        "{node} has {} for {service}: {}",
                        count(more, "more"),
                        list(more)
                    )?,
                    (false, false) => write!(
                        f,
                        "{node} has {} and {} for {service}: without {}, with {}",
                        count(fewer, "fewer"),
                        count(more, "more"),
                        list(fewer),
                        list(more)
                    )?,
                }
            }
        }
        write!(f, " ({})", list(addresses))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    /// A node of a zone with one frontend and these endpoints; without endpoints it lacks the frontend.
    fn node(name: &str, zone: &str, policy: &str, endpoints: &[&str]) -> NodeFrontends {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|address| json!({"address": address, "local": false}))
            .collect();
        let frontends = if endpoints.is_empty() {
            json!([])
        } else {
            json!([{
                "service": "shop/web:http", "address": "tcp://10.96.0.1:80", "policy": policy,
                "endpoints": endpoints,
            }])
        };
        NodeFrontends {
            node: name.to_owned(),
            zone: Some(zone.to_owned()).filter(|zone| !zone.is_empty()),
            frontends: from_value(frontends).unwrap(),
        }
    }

    fn texts(nodes: &[NodeFrontends]) -> Vec<String> {
        let differences = compare(nodes);
        differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_node_with_other_endpoints_than_most_differs() {
        let three = ["10.244.1.9:80", "10.244.2.9:80", "10.244.3.9:80"];
        let nodes = [
            node("a", "", "Cluster", &three),
            node("b", "", "Cluster", &three[..1]),
            node("c", "", "Cluster", &three),
        ];
        assert_eq!(
            texts(&nodes),
            [
                "b has 2 endpoints fewer for shop/web:http: 10.244.2.9:80, 10.244.3.9:80 (tcp://10.96.0.1:80)"
            ]
        );
        let nodes = [
            node("a", "", "Cluster", &three[..1]),
            node("b", "", "Cluster", &three[..2]),
            node("c", "", "Cluster", &three[..1]),
            node("d", "", "Cluster", &three[1..2]),
        ];
        assert_eq!(texts(&nodes), [""; 0], "no majority");
        let nodes = [&nodes[..3], &[node("e", "", "Cluster", &three[..1])]].concat();
        assert_eq!(
            texts(&nodes),
            ["b has 1 endpoint more for shop/web:http: 10.244.2.9:80 (tcp://10.96.0.1:80)"]
        );
    }

    #[test]
    fn of_two_nodes_the_one_with_fewer_endpoints_differs() {
        let nodes = [
            node("a", "", "Cluster", &["10.244.1.9:80"]),
            node("b", "", "Cluster", &["10.244.1.9:80", "10.244.2.9:80"]),
        ];
        let [text] = texts(&nodes).try_into().unwrap();
        assert!(text.starts_with("a has 1 endpoint fewer"), "{text}");
    }

    #[test]
    fn a_frontend_that_one_node_lacks_or_has_alone_differs() {
        let one = ["10.244.1.9:80"];
        let nodes = [
            node("a", "", "Local", &one),
            node("b", "", "Local", &one),
            node("c", "", "Local", &[]),
        ];
        assert_eq!(
            texts(&nodes),
            ["c lacks shop/web:http (tcp://10.96.0.1:80)"]
        );
        let nodes = [
            node("a", "", "Cluster", &one),
            node("b", "", "Cluster", &[]),
            node("c", "", "Cluster", &[]),
        ];
        assert_eq!(
            texts(&nodes),
            ["a holds shop/web:http, which most other nodes do not hold (tcp://10.96.0.1:80)"]
        );
    }

    #[test]
    fn endpoints_that_differ_by_design_are_not_compared() {
        // Policy Local.
        let nodes = [
            node("a", "", "Local", &["10.244.1.9:80"]),
            node("b", "", "Local", &["10.244.2.9:80"]),
            node("c", "", "Local", &["10.244.3.9:80"]),
        ];
        assert_eq!(texts(&nodes), [""; 0]);
        // Topology hints: each zone has its own endpoints, whatever its number of nodes.
        let nodes = [
            node("a", "west", "Cluster", &["10.244.1.9:80"]),
            node("b", "west", "Cluster", &["10.244.1.9:80"]),
            node("c", "east", "Cluster", &["10.244.3.9:80"]),
        ];
        assert_eq!(texts(&nodes), [""; 0]);
        // Without hints, zones of one node are comparable.
        let nodes = [
            node("a", "west", "Cluster", &["10.244.1.9:80"]),
            node("b", "north", "Cluster", &["10.244.1.9:80"]),
            node("c", "east", "Cluster", &["10.244.1.9:80", "10.244.3.9:80"]),
        ];
        let [text] = texts(&nodes).try_into().unwrap();
        assert!(text.starts_with("c has 1 endpoint more"), "{text}");
    }
}
