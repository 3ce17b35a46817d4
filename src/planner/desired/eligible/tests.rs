//! The rows of kube-proxy's `TestCategorizeEndpoints`, in a short notation.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::planner::model::{
    Placement, Protocol, ServiceName, SliceEndpoints, SlicePort, Topology,
};

/// Parses an endpoint: `1rL` is 10.0.0.1, ready, on this node.
///
/// Conditions: `r` ready, `t` serving while it terminates, `x` terminating only, `s` serving but
/// not ready, `n` none. Places: `L` this node, `R` another node, `U` no node name. Hints: `@zone`
/// for a zone, `#` for this node, `%` for another node.
fn endpoint(text: &str) -> model::Endpoint<Ipv4Addr> {
    let (base, zones) = match text.split_once('@') {
        Some((base, zones)) => (base, zones.split('+').map(Arc::from).collect()),
        None => (text, Vec::new()),
    };
    let mut letters = base.chars();
    let last = letters.next().unwrap().to_digit(10).unwrap();
    let condition = letters.next().unwrap();
    let rest: String = letters.collect();
    let (this_node, other_node) = (rest.contains('#'), rest.contains('%'));
    let hints = Hints {
        zones: zones.into(),
        has_nodes: this_node || other_node,
        has_this_node: this_node,
    };
    let hinted = hints != Hints::default();
    model::Endpoint {
        address: Ipv4Addr::from(0x0a00_0000 + last),
        ready: condition == 'r',
        serving: "rts".contains(condition),
        terminating: "tx".contains(condition),
        placement: match rest.chars().next() {
            Some('L') => Placement::Local,
            Some('U') => Placement::Unknown,
            _ => Placement::Remote,
        },
        topology: hinted.then(|| {
            Arc::new(Topology {
                hints: Some(hints),
                ..Topology::default()
            })
        }),
    }
}

fn slice(endpoints: &str) -> EndpointSlice {
    EndpointSlice {
        service: ServiceName::new("shop", "cart"),
        mirrored: false,
        triggered: None,
        ports: [SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }]
        .into(),
        addresses: SliceEndpoints::Ipv4(endpoints.split_whitespace().map(endpoint).collect()),
    }
}

fn http() -> ServicePort {
    ServicePort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
    }
}

fn sorted(texts: &[&str], zone: Option<&str>) -> EligibleEndpoints<Ipv4Addr> {
    let slices: Vec<_> = texts.iter().map(|text| slice(text)).collect();
    eligible(
        PortOfSlices::Of(&http()),
        &slices.iter().collect::<Vec<_>>(),
        zone,
        |_| true,
    )
}

/// Returns the last digits of the addresses.
fn digits<'a>(endpoints: impl IntoIterator<Item = &'a EndpointAddr<Ipv4Addr>>) -> String {
    let last = |(address, _): &EndpointAddr<Ipv4Addr>| address.octets()[3].to_string();
    endpoints.into_iter().map(last).collect()
}

type Row = (
    &'static str,
    &'static str,
    Option<&'static str>,
    &'static str,
    &'static str,
);

/// Case, endpoints, this node's zone, list of policy Cluster, list of policy Local.
const ROWS: &[Row] = &[
    (
        "hints are ignored without any",
        "1rR 2rL",
        Some("a"),
        "12",
        "2",
    ),
    (
        "zone hints",
        "1rR@a 2rL@b 3rR@b 4rR@a",
        Some("a"),
        "14",
        "2",
    ),
    (
        "zone hints, local endpoint of the zone",
        "1rL@a 2rR@b",
        Some("a"),
        "1",
        "1",
    ),
    (
        "one endpoint for two zones",
        "1rR@a+b 2rR@b 3rR@c",
        Some("b"),
        "12",
        "",
    ),
    (
        "a zone with no endpoint",
        "1rR@a 2rR@b",
        Some("c"),
        "12",
        "",
    ),
    (
        "one ready endpoint without a hint",
        "1rR@a 2rR",
        Some("a"),
        "12",
        "",
    ),
    ("no zone label", "1rR@a 2rR@b", None, "12", ""),
    ("an empty zone", "1rR@a 2rR@b", Some(""), "12", ""),
    (
        "an unready one without a hint does not count",
        "1rR@a 2nR 3rR@b",
        Some("a"),
        "1",
        "",
    ),
    (
        "an unready one with our hint is not used",
        "1nR@a 2rR@b",
        Some("a"),
        "2",
        "",
    ),
    ("node hints", "1rL# 2rR% 3rR%", Some("a"), "1", "1"),
    (
        "node hints win over zones",
        "1rL#@a 2rR%@a",
        Some("a"),
        "1",
        "1",
    ),
    (
        "no node hint for us, but a zone",
        "1rR%@a 2rR%@b",
        Some("a"),
        "1",
        "",
    ),
    (
        "no node hint for us and no zone",
        "1rR% 2rR%",
        Some("a"),
        "12",
        "",
    ),
    (
        "one ready endpoint without a node hint",
        "1rL#@a 2rR@b",
        Some("a"),
        "1",
        "1",
    ),
    (
        "node hint for us on another node",
        "1rR# 2rL%",
        Some("a"),
        "1",
        "2",
    ),
    ("no endpoint", "", Some("a"), "", ""),
    ("none that may be used", "1nR 2xL 3sL", None, "", ""),
    (
        "serving but neither ready nor terminating",
        "1sL 2sR 3rR",
        None,
        "3",
        "",
    ),
    (
        "terminating ones are not used if others are ready",
        "1rR 2tL 3tR",
        None,
        "1",
        "2",
    ),
    ("only terminating ones", "1tL 2tR 3xR", None, "12", "1"),
    (
        "only terminating ones, hints ignored",
        "1tL@b 2tR@a",
        Some("a"),
        "12",
        "1",
    ),
    (
        "local ready before local terminating",
        "1rL 2tL 3rR",
        None,
        "13",
        "1",
    ),
    ("local falls back alone", "1tL 2rR", None, "2", "1"),
    ("local has none", "1rR 2tR", None, "1", ""),
    ("local terminating does not serve", "1xL 2rR", None, "2", ""),
    ("all local", "1rL 2rL", None, "12", "12"),
    (
        "hints never touch the local list",
        "1rL@b 2rR@a",
        Some("a"),
        "2",
        "1",
    ),
    (
        "zone fall-back keeps all ready ones only",
        "1rR@b 2tL@a",
        Some("a"),
        "1",
        "2",
    ),
    (
        "no endpoint is ready in the zone, hints ignored",
        "1rR@b 2nR@a",
        Some("a"),
        "1",
        "",
    ),
    (
        "ready counts even while terminating",
        "1rL 2rR",
        None,
        "12",
        "1",
    ),
    ("one remote terminating one", "1tR", None, "1", ""),
];

#[test]
fn endpoints_are_sorted_as_kube_proxy_sorts_them() {
    for (what, endpoints, zone, cluster, local) in ROWS {
        let sorted = sorted(&[endpoints], *zone);
        assert_eq!(digits(&sorted.cluster), *cluster, "cluster: {what}");
        assert_eq!(digits(&sorted.local), *local, "local: {what}");
        assert_eq!(sorted.has_any(), !cluster.is_empty(), "any: {what}");
    }
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_the_running_one_wins() {
    let rows: [(&[&str], &str); 6] = [
        (&["1rL 2rR", "1rL 3rR"], "123"),
        (&["1tL", "1rL"], "1"),
        (&["1rL", "1tL"], "1"),
        (&["1xL", "1rL 2tR"], "1"),
        (&["1rL", "1nL"], "1"),
        (&["1nL", "1rL"], "1"),
    ];
    for (slices, cluster) in rows {
        assert_eq!(digits(&sorted(slices, None).cluster), cluster, "{slices:?}");
    }
}

/// Two slices with their times, and the local endpoints of both in either order.
type Disagreeing = ([(&'static str, Option<i64>); 2], &'static str);

#[test]
fn slices_that_disagree_are_decided_by_conditions_then_by_time() {
    let rows: [Disagreeing; 6] = [
        ([("1rL", Some(1)), ("1rR", Some(2))], ""),
        ([("1rL", Some(2)), ("1rR", Some(1))], "1"),
        ([("1rL", None), ("1rR", Some(1))], ""),
        ([("1rL", Some(1)), ("1rR", Some(1))], "1"),
        ([("1nR", Some(2)), ("1rL", Some(1))], "1"),
        ([("1tL", Some(2)), ("1rR", Some(1))], ""),
    ];
    for (slices, local) in rows {
        let slices = slices.map(|(endpoints, triggered)| EndpointSlice {
            triggered,
            ..slice(endpoints)
        });
        let [one, other] = &slices;
        for order in [[one, other], [other, one]] {
            let sorted = eligible(PortOfSlices::Of(&http()), &order, None, |_| true);
            assert_eq!(digits(&sorted.local), local, "{order:?}");
            assert_eq!(digits(&sorted.cluster), "1", "{order:?}");
        }
    }
}

#[test]
fn used_endpoints_that_may_be_on_this_node_can_hairpin() {
    let sorted = sorted(&["1rL 2rR 3tL 4xL 5rU"], None);
    let hairpin: Vec<_> = sorted
        .hairpin
        .iter()
        .map(|address| address.octets()[3])
        .collect();
    assert_eq!(hairpin, [1, 5]);
}
