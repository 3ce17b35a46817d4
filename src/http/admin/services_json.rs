//! The JSON of all Services in short: one object for each Service port, of both families together.

use std::net::IpAddr;

use serde::Serialize;

use crate::planner::desired::{PortSummary, Route};
use crate::planner::model::addr::Family;
use crate::planner::model::{Balance, Protocol};
use crate::planner::ruleset::Comment;

/// A Service port with its frontends of both families.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortJson {
    /// The name as `namespace/name:port-name`, as the metrics of connections have it.
    name: String,
    /// The transport protocol.
    protocol: &'static str,
    /// The port number at the Service's addresses.
    port: u16,
    #[serde(rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    /// The `ClusterIPs`.
    cluster_ips: Vec<IpAddr>,
    #[serde(rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
    /// The external IPs.
    external_ips: Vec<IpAddr>,
    #[serde(rename = "loadBalancerIPs", skip_serializing_if = "Vec::is_empty")]
    /// The load-balancer IPs.
    load_balancer_ips: Vec<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The node port.
    node_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The session affinity timeout.
    affinity_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The hash that selects the endpoint of a connection.
    balance: Option<Balance>,
    /// The routes and endpoints of each family.
    families: Vec<FamilyJson>,
}

/// The routes and endpoints of a Service port in one family.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyJson {
    /// The family.
    family: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The route of connections to the `ClusterIPs`.
    internal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The route of connections to the other frontends.
    external: Option<&'static str>,
    /// The endpoints that connections go to.
    used: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The slots that these endpoints share, if one of them has several.
    slots: Option<usize>,
    /// The ready endpoints.
    ready: usize,
    /// The ready endpoints on this node.
    local: usize,
    /// All endpoints.
    total: usize,
}

/// Joins the families of each Service port, in the order of names.
pub(super) fn ports_json(mut summaries: Vec<PortSummary>) -> Vec<PortJson> {
    summaries.sort_by(|one, other| key(one).cmp(&key(other)));
    summaries
        .chunk_by(|one, other| key(one).0 == key(other).0)
        .filter_map(join)
        .collect()
}

/// Returns what identifies a Service port, and its family.
fn key(port: &PortSummary) -> ((&str, &str, Protocol, u16), Family) {
    let service = port.service.as_str();
    (
        (service, &port.port_name, port.protocol, port.port),
        port.family,
    )
}

/// Joins the families of one Service port; `None` if there are none.
fn join(families: &[PortSummary]) -> Option<PortJson> {
    let first = families.first()?;
    let name = Comment::new(&first.service, &first.port_name);
    let addresses =
        |of: fn(&PortSummary) -> &Vec<IpAddr>| families.iter().flat_map(of).copied().collect();
    Some(PortJson {
        name: name.distinct(first.protocol, first.port),
        protocol: match first.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        },
        port: first.port,
        cluster_ips: addresses(|port| &port.cluster_ips),
        external_ips: addresses(|port| &port.external_ips),
        load_balancer_ips: addresses(|port| &port.load_balancer_ips),
        node_port: families.iter().find_map(|port| port.node_port),
        affinity_seconds: first.affinity,
        balance: first.balance,
        families: families.iter().map(of_family).collect(),
    })
}

/// Returns the routes and endpoints of one family.
fn of_family(port: &PortSummary) -> FamilyJson {
    let has_external = port.node_port.is_some()
        || !port.external_ips.is_empty()
        || !port.load_balancer_ips.is_empty();
    FamilyJson {
        family: port.family.as_str(),
        internal: (!port.cluster_ips.is_empty()).then(|| route(port.internal)),
        external: has_external.then(|| route(port.external)),
        used: port.used,
        slots: Some(port.slots).filter(|slots| *slots > port.used),
        ready: port.endpoints.ready,
        local: port.endpoints.local,
        total: port.endpoints.total,
    }
}

/// Returns the name of a route.
fn route(route: Route) -> &'static str {
    match route {
        Route::Cluster => "cluster",
        Route::Local => "local",
        Route::LocalPolicy => "localPolicy",
        Route::Drop => "drop",
        Route::Reject => "reject",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::planner::desired::SliceCounts;
    use crate::planner::model::ServiceName;

    fn summary(name: &str, family: Family, cluster_ip: &str) -> PortSummary {
        PortSummary {
            service: ServiceName::new("shop", name),
            port_name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            affinity: None,
            balance: None,
            family,
            cluster_ips: vec![cluster_ip.parse().unwrap()],
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            internal: Route::Reject,
            external: Route::Reject,
            used: 0,
            slots: 0,
            endpoints: SliceCounts::default(),
        }
    }

    #[test]
    fn the_families_of_a_service_port_are_joined() {
        let ports = ports_json(vec![
            summary("web", Family::Ipv4, "10.96.0.8"),
            summary("cart", Family::Ipv6, "fd00:96::7"),
            PortSummary {
                node_port: Some(30080),
                external: Route::LocalPolicy,
                ..summary("cart", Family::Ipv4, "10.96.0.7")
            },
        ]);
        let none = json!({"internal": "reject", "used": 0, "ready": 0, "local": 0, "total": 0});
        let with = |more: serde_json::Value| {
            let mut all = none.as_object().cloned().unwrap();
            all.extend(more.as_object().cloned().unwrap());
            all
        };
        let expected = json!([
            {"name": "shop/cart:http", "protocol": "TCP", "port": 80, "nodePort": 30080,
             "clusterIPs": ["10.96.0.7", "fd00:96::7"], "families": [
                with(json!({"family": "IPv4", "external": "localPolicy"})),
                with(json!({"family": "IPv6"}))]},
            {"name": "shop/web:http", "protocol": "TCP", "port": 80,
             "clusterIPs": ["10.96.0.8"], "families": [with(json!({"family": "IPv4"}))]},
        ]);
        assert_eq!(serde_json::to_value(ports).unwrap(), expected);
    }
}
