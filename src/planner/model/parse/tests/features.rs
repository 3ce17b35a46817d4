use std::time::Duration;

use prost::Message;

use super::{reasons, service::as_service};
use crate::planner::model::parse::service;
use crate::planner::model::wire::WireService;
use crate::planner::model::{
    Balance, NoLocalEndpoint, PortRange, Protocol, ServiceFeatures, Update, WeightTarget, Weights,
};

#[test]
fn annotations_are_the_same_in_protobuf() {
    let names = [
        "balance",
        "weights",
        "slow-start",
        "close-removed",
        "port-ranges",
        "external-local-without-endpoints",
    ];
    let annotations = names.map(|name| format!("kube-dnat.io/{name}: {name}-value"));
    let yaml = format!(
        "metadata: {{annotations: {{{}, other: x}}}}",
        annotations.join(", ")
    );
    let service: WireService = yaml_serde::from_str(&yaml).unwrap();
    assert_eq!(
        service.metadata.annotations.weights.as_deref(),
        Some("weights-value")
    );
    let decoded = WireService::decode(&service.encode_to_vec()[..]);
    assert_eq!(decoded.unwrap(), service);
}

/// Parses a Service with these annotations and fields of `spec`.
fn service_with(annotations: &str, spec: &str) -> Update {
    let yaml = format!(
        "metadata: {{name: cart, namespace: shop, annotations: {{{annotations}}}}}\n\
         spec: {{clusterIP: 10.96.0.7, ports: [{{port: 80}}]{spec}}}"
    );
    service(&yaml_serde::from_str(&yaml).unwrap())
}

/// The fields of a Service with external policy Local.
const LOCAL: &str = ", type: NodePort, externalTrafficPolicy: Local";

fn features(annotations: &str) -> Option<ServiceFeatures> {
    let update = service_with(annotations, LOCAL);
    assert_eq!(reasons(&update), [""; 0], "{annotations}");
    as_service(&update).features.as_deref().cloned()
}

#[test]
fn annotations_switch_features_on() {
    assert_eq!(features("kube-dnat.io/other: x"), None);
    for (text, balance) in [("maglev", Balance::Maglev), ("source", Balance::Source)] {
        let expected = ServiceFeatures {
            balance: Some(balance),
            ..ServiceFeatures::default()
        };
        let found = features(&format!("kube-dnat.io/balance: {text}"));
        assert_eq!(found, Some(expected));
    }
    for (text, answer) in [
        ("drop", NoLocalEndpoint::Drop),
        ("reject", NoLocalEndpoint::Reject),
    ] {
        let annotation = format!("kube-dnat.io/external-local-without-endpoints: {text}");
        assert_eq!(
            features(&annotation).unwrap().no_local_endpoint,
            Some(answer)
        );
    }
    let closing = features("kube-dnat.io/close-removed: 'true'");
    assert!(closing.unwrap().close_removed);
    assert_eq!(features("kube-dnat.io/close-removed: 'false'"), None);
    let starting = features("kube-dnat.io/slow-start: 1m30s").unwrap();
    assert_eq!(starting.slow_start, Some(Duration::from_secs(90)));
    let weights = "zone-a=3, node:worker-1=2,10.244.1.9=0,fd00::9=100";
    let targets = [
        (WeightTarget::Zone("zone-a".into()), 3),
        (WeightTarget::Node("worker-1".into()), 2),
        (WeightTarget::Address("10.244.1.9".parse().unwrap()), 0),
        (WeightTarget::Address("fd00::9".parse().unwrap()), 100),
    ];
    let found = features(&format!("kube-dnat.io/weights: '{weights}'"));
    assert_eq!(found.unwrap().weights, Some(Weights::new(targets)));
}

#[test]
fn port_ranges_are_sorted_by_protocol_and_port() {
    let found = features("kube-dnat.io/port-ranges: '5060/udp, 30000-30999/udp,1-65535/tcp'");
    let ranges = found.unwrap().port_ranges.unwrap();
    assert!(ranges.protocols().eq([Protocol::Tcp, Protocol::Udp]));
    let texts: Vec<_> = ranges
        .of(Protocol::Udp)
        .map(|range| range.to_string())
        .collect();
    assert_eq!(texts, ["5060", "30000-30999"]);
    let all = PortRange::new(1, 65535).unwrap();
    assert!(ranges.of(Protocol::Tcp).eq([all]));
    assert!(all.contains(65535) && !all.contains(0));
}

#[test]
fn bad_port_ranges_have_no_effect_and_are_reported_once() {
    let expected = "is not of the form FIRST-LAST/PROTOCOL with ports from 1 to 65535 and tcp, udp \
                    or sctp";
    let too_many = vec!["1/tcp"; 65].join(",");
    for (text, problem) in [
        ("", format!("\"\" {expected}")),
        ("80", format!("\"80\" {expected}")),
        ("80/icmp", format!("\"80/icmp\" {expected}")),
        ("0-9/tcp", format!("\"0-9/tcp\" {expected}")),
        ("9-8/tcp", format!("\"9-8/tcp\" {expected}")),
        ("1-65536/tcp", format!("\"1-65536/tcp\" {expected}")),
        ("+1-2/tcp", format!("\"+1-2/tcp\" {expected}")),
        ("1-2-3/tcp", format!("\"1-2-3/tcp\" {expected}")),
        (
            "9/tcp,10-20/udp,1-10/udp",
            "1-10/udp and 10-20/udp overlap".to_owned(),
        ),
        (&too_many, "there are more than 64 ranges".to_owned()),
    ] {
        let update = service_with(&format!("kube-dnat.io/port-ranges: '{text}'"), "");
        let reason = format!("annotation kube-dnat.io/port-ranges has no effect: {problem}");
        assert_eq!(reasons(&update), [reason]);
        assert_eq!(as_service(&update).features, None, "{text}");
    }
}

#[test]
fn port_ranges_of_a_headless_service_are_reported() {
    let yaml = "metadata: {name: a, namespace: b, annotations: {kube-dnat.io/port-ranges: 1/tcp}}\n\
                spec: {clusterIP: None}";
    let update = service(&yaml_serde::from_str(yaml).unwrap());
    let reason =
        "annotation kube-dnat.io/port-ranges has no effect: a headless Service has no address";
    assert_eq!(reasons(&update), [reason]);
    assert_eq!(update.object, None);
}

#[test]
fn a_bad_value_has_no_effect_and_is_reported_once() {
    for (annotations, spec, reason) in [
        (
            "kube-dnat.io/balance: rr",
            "",
            "annotation kube-dnat.io/balance has no effect: \"rr\" is neither maglev nor source",
        ),
        (
            "kube-dnat.io/external-local-without-endpoints: refuse",
            "",
            "annotation kube-dnat.io/external-local-without-endpoints has no effect: \"refuse\" \
             is neither drop nor reject",
        ),
        (
            "kube-dnat.io/close-removed: 'yes'",
            "",
            "annotation kube-dnat.io/close-removed has no effect: \"yes\" is neither true nor \
             false",
        ),
        (
            "kube-dnat.io/weights: a",
            "",
            "annotation kube-dnat.io/weights has no effect: \"a\" is not of the form \
             TARGET=WEIGHT",
        ),
        (
            "kube-dnat.io/weights: 'a=1,b=101'",
            "",
            "annotation kube-dnat.io/weights has no effect: \"101\" is not a weight from 0 to 100",
        ),
        (
            "kube-dnat.io/weights: 'a=1,a=2'",
            "",
            "annotation kube-dnat.io/weights has no effect: \"a\" has two weights",
        ),
        (
            "kube-dnat.io/weights: 'node:=1'",
            "",
            "annotation kube-dnat.io/weights has no effect: \"\" is not the name of a node",
        ),
        (
            "kube-dnat.io/weights: 'nod:a=1'",
            "",
            "annotation kube-dnat.io/weights has no effect: \"nod:a\" is not an IP address, \
             node:NAME or the name of a zone",
        ),
    ] {
        let update = service_with(annotations, spec);
        assert_eq!(reasons(&update), [reason]);
        assert_eq!(as_service(&update).features, None, "{annotations}");
    }
}

#[test]
fn a_bad_time_of_a_slow_start_is_reported() {
    for (time, problem) in [
        ("60", "\"60\" is not a duration such as 30s or 1h30m"),
        ("999ms", "\"999ms\" is not from 1s to 1h"),
        ("1h1s", "\"1h1s\" is not from 1s to 1h"),
        ("-60s", "\"-60s\" is not from 1s to 1h"),
    ] {
        let update = service_with(&format!("kube-dnat.io/slow-start: '{time}'"), "");
        let reason = format!("annotation kube-dnat.io/slow-start has no effect: {problem}");
        assert_eq!(reasons(&update), [reason]);
        assert_eq!(as_service(&update).features, None, "{time}");
    }
}

#[test]
fn an_annotation_that_contradicts_the_service_has_no_effect() {
    for (annotations, spec, reason) in [
        (
            "kube-dnat.io/balance: maglev",
            ", sessionAffinity: ClientIP",
            "annotation kube-dnat.io/balance has no effect: the Service has sessionAffinity \
             ClientIP, which selects the endpoint, too",
        ),
        (
            "kube-dnat.io/external-local-without-endpoints: reject",
            ", type: LoadBalancer, externalTrafficPolicy: Cluster",
            "annotation kube-dnat.io/external-local-without-endpoints has no effect: \
             externalTrafficPolicy Local does not apply to the Service",
        ),
        (
            "kube-dnat.io/external-local-without-endpoints: drop",
            ", type: ClusterIP, externalTrafficPolicy: Local",
            "annotation kube-dnat.io/external-local-without-endpoints has no effect: \
             externalTrafficPolicy Local does not apply to the Service",
        ),
    ] {
        let update = service_with(annotations, spec);
        assert_eq!(reasons(&update), [reason]);
        assert_eq!(as_service(&update).features, None, "{annotations}");
    }
}

#[test]
fn connections_are_closed_at_tcp_ports_only() {
    for (protocol, has_effect) in [("TCP", true), ("UDP", false), ("SCTP", false)] {
        let yaml = format!(
            "metadata: {{name: cart, namespace: shop, annotations: \
             {{kube-dnat.io/close-removed: 'true'}}}}\n\
             spec: {{clusterIP: 10.96.0.7, ports: [{{port: 80, protocol: {protocol}}}]}}"
        );
        let update = service(&yaml_serde::from_str(&yaml).unwrap());
        let reason =
            "annotation kube-dnat.io/close-removed has no effect: the Service has no TCP port";
        let expected: &[&str] = if has_effect { &[] } else { &[reason] };
        assert_eq!(reasons(&update), expected, "{protocol}");
    }
}
