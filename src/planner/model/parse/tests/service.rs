use serde_json::json;

use super::{decoded, reasons};
use crate::planner::model::parse::service;
use crate::planner::model::{Object, Service, Update};

/// Parses a Service from YAML with this `spec` and the fields after it.
fn service_of(rest: &str) -> Update {
    let yaml = format!("metadata: {{name: cart, namespace: shop}}\n{rest}");
    service(&yaml_serde::from_str(&yaml).unwrap())
}

pub(super) fn as_service(update: &Update) -> &Service {
    match &update.object {
        Some(Object::Service(service)) => service,
        other => panic!("{other:?} is not a Service"),
    }
}

/// Returns every port as `name/protocol/port/node port`.
pub(super) fn ports(update: &Update) -> Vec<String> {
    let text = |port: &crate::planner::model::ServicePort| {
        let node_port = port.node_port.unwrap_or(0);
        format!("{}/{}/{}/{node_port}", port.name, port.protocol, port.port)
    };
    as_service(update).ports.iter().map(text).collect()
}

#[test]
fn a_service_as_the_api_server_writes_it_is_read_in_full() {
    let update = service(&decoded(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "cart", "namespace": "shop", "creationTimestamp": "2024-02-29T12:00:00Z",
            "labels": {"app": "cart"}, "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {
            "type": "LoadBalancer", "selector": {"app": "cart"}, "sessionAffinity": "None",
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
            "externalIPs": ["192.0.2.9"],
            "ports": [
                {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web", "nodePort": 30080},
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353},
            ],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "VIP"},
            {"ip": "198.51.100.3", "ipMode": "Proxy"}, {"hostname": "lb.example"},
        ]}},
    })));
    assert_eq!(update.key.to_string(), "Service shop/cart");
    assert_eq!(reasons(&update), [""; 0]);
    assert_eq!(ports(&update), ["http/tcp/80/30080", "dns/udp/53/0"]);
    let service = as_service(&update);
    assert_eq!(service.name.as_str(), "shop/cart");
    assert_eq!(service.created, Some(1_709_208_000));
    assert!(service.has_selector);
    let texts = |ips: &[std::net::IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&service.cluster_ips), ["10.96.0.7", "fd00:96::7"]);
    assert_eq!(texts(&service.external_ips), ["192.0.2.9"]);
    assert_eq!(
        texts(&service.load_balancer_ips),
        ["198.51.100.1", "198.51.100.2"]
    );
}

#[test]
fn ignored_services_have_no_object_and_no_reason() {
    for rest in [
        "spec: {clusterIP: None, ports: [{port: 0}]}",
        "spec: {clusterIPs: [None]}",
        "spec: {clusterIP: '', ports: [{port: 80}]}",
        "spec: {type: ExternalName, externalName: example.com, clusterIP: 10.96.0.7}",
        "status: {}",
    ] {
        let update = service_of(rest);
        assert_eq!((update.object, update.rejected), (None, vec![]), "{rest}");
    }
    for value in ["\"\"", "other", "null"] {
        let labels = format!("{{service.kubernetes.io/service-proxy-name: {value}}}");
        let yaml =
            format!("metadata: {{name: a, labels: {labels}}}\nspec: {{clusterIP: 10.96.0.7}}");
        let update = service(&yaml_serde::from_str(&yaml).unwrap());
        assert_eq!((update.object, update.rejected), (None, vec![]), "{value}");
    }
}

struct Case {
    spec: &'static str,
    ports: &'static [&'static str],
    reasons: &'static [&'static str],
}

#[test]
fn a_bad_part_of_a_service_costs_only_itself() {
    for Case {
        spec,
        ports: expected,
        reasons: why,
    } in [
        Case {
            spec: "ports: [{name: a, port: 0}, {name: b, port: 65536}, {name: c}, {name: d, port: -1}, {name: e, port: 65535}]",
            ports: &["e/tcp/65535/0"],
            reasons: &[
                "spec.ports[0].port 0 is not a port number",
                "spec.ports[1].port 65536 is not a port number",
                "spec.ports[2].port 0 is not a port number",
                "spec.ports[3].port -1 is not a port number",
            ],
        },
        Case {
            spec: "ports: [{name: a, port: 1, protocol: tcp}, {name: b, port: 1, protocol: SCTP}]",
            ports: &["b/sctp/1/0"],
            reasons: &["spec.ports[0].protocol \"tcp\" is not TCP, UDP or SCTP"],
        },
        Case {
            spec: "ports: [{name: 'a\"', port: 1}, {name: b, port: 1}]",
            ports: &["b/tcp/1/0"],
            reasons: &["spec.ports[0].name \"a\\\"\" is not a valid Kubernetes name"],
        },
        Case {
            spec: "ports: [{name: a, port: 53}, {name: a, port: 53, protocol: UDP}, {name: b, port: 53}, {name: a, port: 54}]",
            ports: &["a/tcp/53/0", "a/udp/53/0"],
            reasons: &[
                "spec.ports[2] is a second tcp port 53",
                "spec.ports[3] is a second tcp port named \"a\"",
            ],
        },
        Case {
            spec: "type: NodePort, ports: [{name: a, port: 1, nodePort: 30001}, {name: b, port: 2, nodePort: 30001}, {name: c, port: 2, nodePort: 70000}]",
            ports: &["a/tcp/1/30001", "c/tcp/2/0"],
            reasons: &[
                "spec.ports[1] is a second tcp port with node port 30001",
                "spec.ports[2].nodePort 70000 is not a port number",
            ],
        },
        Case {
            spec: "type: ClusterIP, ports: [{name: a, port: 1, nodePort: 30001}, {name: b, port: 2, nodePort: 70000}]",
            ports: &["a/tcp/1/0", "b/tcp/2/0"],
            reasons: &[],
        },
        Case {
            spec: "externalIPs: [nonsense, 192.0.2.1, 192.0.2.001], ports: [{port: 1}]",
            ports: &["/tcp/1/0"],
            reasons: &["spec.externalIPs[0] \"nonsense\" is not an IP address"],
        },
    ] {
        let update = service_of(&format!("spec: {{clusterIP: 10.96.0.7, {spec}}}"));
        assert_eq!(ports(&update), expected, "{spec}");
        assert_eq!(reasons(&update), why, "{spec}");
    }
}

#[test]
fn a_service_without_a_valid_cluster_ip_is_ignored() {
    let update = service_of("spec: {clusterIPs: [10.96.0.x, fd00::g], ports: [{port: 80}]}");
    assert_eq!(update.object, None);
    assert_eq!(
        reasons(&update),
        [
            "spec.clusterIPs[0] \"10.96.0.x\" is not an IP address",
            "spec.clusterIPs[1] \"fd00::g\" is not an IP address",
        ]
    );
    let update = service_of("spec: {clusterIPs: [10.96.0.x, 'fd00::7'], ports: [{port: 80}]}");
    assert_eq!(
        as_service(&update).cluster_ips,
        ["fd00::7".parse::<std::net::IpAddr>().unwrap()].into()
    );
}

#[test]
fn a_bad_timestamp_costs_only_the_age() {
    for (text, created, faults) in [
        ("2024-02-29T12:00:00Z", Some(1_709_208_000), 0),
        ("2024-02-29T13:00:00+01:00", Some(1_709_208_000), 0),
        ("2024-02-30T12:00:00Z", None, 1),
        ("yesterday", None, 1),
    ] {
        let metadata = format!("{{name: a, creationTimestamp: '{text}'}}");
        let yaml = format!("metadata: {metadata}\nspec: {{clusterIP: 10.96.0.7}}");
        let update = service(&yaml_serde::from_str(&yaml).unwrap());
        assert_eq!(as_service(&update).created, created, "{text}");
        assert_eq!(update.rejected.len(), faults, "{text}");
    }
}
