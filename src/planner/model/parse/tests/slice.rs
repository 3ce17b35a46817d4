use crate::planner::model::parse::{endpoints, slice};
use crate::planner::model::{
    Endpoint, EndpointSlice, Object, RejectReason, SliceEndpoints, Update,
};

use super::reasons;

fn slice_of(yaml: &str) -> Update {
    let metadata =
        "metadata: {name: cart-x7, namespace: shop, labels: {kubernetes.io/service-name: cart}}";
    slice(
        &yaml_serde::from_str(&format!("{metadata}\n{yaml}")).unwrap(),
        "n1",
    )
}

fn endpoints_of(yaml: &str) -> Update {
    let yaml = format!("metadata: {{name: cart, namespace: shop}}\n{yaml}");
    endpoints(&yaml_serde::from_str(&yaml).unwrap(), "n1")
}

pub(super) fn as_slices(update: &Update) -> &[EndpointSlice] {
    match &update.object {
        Some(Object::Slices(slices)) => slices,
        other => panic!("{other:?} are not slices"),
    }
}

fn slice_ports(update: &Update) -> Vec<String> {
    let text = |port: &crate::planner::model::SlicePort| {
        format!("{}/{}/{}", port.name, port.protocol, port.port)
    };
    as_slices(update)[0].ports.iter().map(text).collect()
}

/// Returns every endpoint as `address`, `+` if ready, `@` if local.
pub(super) fn addresses(addresses: &SliceEndpoints) -> Vec<String> {
    fn text<A: std::fmt::Display>(endpoint: &Endpoint<A>) -> String {
        let ready = if endpoint.ready { "+" } else { "" };
        let local = if endpoint.is_local() { "@" } else { "" };
        format!("{}{ready}{local}", endpoint.address)
    }
    match addresses {
        SliceEndpoints::Ipv4(endpoints) => endpoints.iter().map(text).collect(),
        SliceEndpoints::Ipv6(endpoints) => endpoints.iter().map(text).collect(),
    }
}

#[test]
fn an_endpoint_is_ready_by_default_and_local_if_it_names_this_node() {
    let update = slice_of(
        "addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.1], nodeName: n1}
- {addresses: [10.244.0.2], conditions: {ready: true}, nodeName: n2}
- {addresses: [10.244.0.3], conditions: {ready: false, serving: true}}
",
    );
    assert_eq!(update.key.to_string(), "EndpointSlice shop/cart-x7");
    assert_eq!(update.rejected, []);
    let slice = &as_slices(&update)[0];
    assert_eq!(
        (slice.service.as_str(), slice.mirrored),
        ("shop/cart", false)
    );
    assert_eq!(
        addresses(&slice.addresses),
        ["10.244.0.1+@", "10.244.0.2+", "10.244.0.3"]
    );
    assert_eq!(slice_ports(&update), ["http/tcp/8080"]);
}

#[test]
fn a_bad_endpoint_costs_only_itself() {
    for (family, given, kept) in [
        ("IPv4", "fd00::1", "10.244.0.1"),
        ("IPv4", "127.0.0.1", "10.244.0.1"),
        ("IPv4", "169.254.1.1", "10.244.0.1"),
        ("IPv4", "0.0.0.0", "10.244.0.1"),
        ("IPv4", "224.0.0.1", "10.244.0.1"),
        ("IPv4", "pod-7", "10.244.0.1"),
        ("IPv6", "10.244.0.1", "fd00::1"),
        ("IPv6", "fe80::1", "fd00::1"),
        ("IPv6", "::1", "fd00::1"),
    ] {
        let update = slice_of(&format!(
            "addressType: {family}\nendpoints: [{{addresses: ['{given}']}}, {{addresses: ['{kept}']}}]"
        ));
        assert_eq!(
            addresses(&as_slices(&update)[0].addresses),
            [format!("{kept}+")]
        );
        let reason = format!(
            "endpoints[0].addresses[0] \"{given}\" is not an {family} address of an endpoint"
        );
        assert_eq!(reasons(&update), [reason]);
    }
    let update =
        slice_of("addressType: IPv4\nendpoints: [{addresses: []}, {addresses: [10.244.0.1]}]");
    assert_eq!(addresses(&as_slices(&update)[0].addresses), ["10.244.0.1+"]);
    assert_eq!(reasons(&update), ["endpoints[0].addresses is empty"]);
    let update = slice_of("addressType: IPv4\nendpoints: [{addresses: [10.244.0.1, 10.244.0.2]}]");
    assert_eq!(addresses(&as_slices(&update)[0].addresses), ["10.244.0.1+"]);
    let reason = "endpoints[0].addresses has more than one address; only the first is used";
    assert_eq!(reasons(&update), [reason]);
}

#[test]
fn a_slice_port_without_a_number_is_ignored_and_an_absent_name_is_empty() {
    let update = slice_of(
        "addressType: IPv4
ports: [{name: a}, {name: b, port: 0}, {port: 8080}, {name: '', port: 53, protocol: UDP}, {name: c, port: 70000}, {name: d, port: 1, protocol: QUIC}]",
    );
    assert_eq!(slice_ports(&update), ["/tcp/8080", "/udp/53"]);
    assert_eq!(
        reasons(&update),
        [
            "ports[0] has no port number and is ignored",
            "ports[1] has no port number and is ignored",
            "ports[4].port 70000 is not a port number",
            "ports[5].protocol \"QUIC\" is not TCP, UDP or SCTP",
        ]
    );
}

#[test]
fn ignored_slices_have_no_object() {
    let headless = "labels: {kubernetes.io/service-name: a, service.kubernetes.io/headless: ''}";
    for (metadata, address_type, reason) in [
        (headless, "IPv4", None),
        (
            "labels: {kubernetes.io/service-name: a}",
            "FQDN",
            Some(RejectReason::Contradiction(
                "addressType FQDN: endpoints with host names are not supported".into(),
            )),
        ),
        ("labels: {}", "IPv4", Some(RejectReason::NoService)),
        (
            "labels: {kubernetes.io/service-name: ''}",
            "IPv4",
            Some(RejectReason::NoService),
        ),
        (
            "labels: {kubernetes.io/service-name: a}",
            "IPv5",
            Some(RejectReason::Contradiction(
                "addressType \"IPv5\" is not IPv4, IPv6 or FQDN".into(),
            )),
        ),
    ] {
        let yaml = format!("metadata: {{name: x, {metadata}}}\naddressType: {address_type}");
        let update = slice(&yaml_serde::from_str(&yaml).unwrap(), "n1");
        assert_eq!(update.object, None, "{yaml}");
        assert_eq!(update.rejected, Vec::from_iter(reason), "{yaml}");
    }
}

#[test]
fn endpoints_become_a_slice_for_each_subset_and_family() {
    let update = endpoints_of(
        "subsets:
- addresses: [{ip: 10.0.0.1, nodeName: n1}, {ip: 'fd00::1'}, {ip: 127.0.0.1}]
  notReadyAddresses: [{ip: 10.0.0.2}]
  ports: [{port: 5432}]
- addresses: [{ip: 10.0.0.3}]
  ports: [{name: b, port: 0}, {name: c, port: 53, protocol: UDP}]
- notReadyAddresses: null
",
    );
    assert_eq!(update.key.to_string(), "Endpoints shop/cart");
    let slices = as_slices(&update);
    let listed: Vec<_> = slices
        .iter()
        .map(|slice| addresses(&slice.addresses))
        .collect();
    assert_eq!(
        listed,
        [
            vec!["10.0.0.1+@", "10.0.0.2"],
            vec!["fd00::1+"],
            vec!["10.0.0.3+"]
        ]
    );
    assert!(
        slices
            .iter()
            .all(|slice| slice.mirrored && slice.service.as_str() == "shop/cart")
    );
    let ports: Vec<_> = slices.iter().map(|slice| slice.ports[0].port).collect();
    assert_eq!(ports, [5432, 5432, 53]);
    assert_eq!(
        reasons(&update),
        [
            "subsets[0].addresses[2].ip \"127.0.0.1\" is not an IP address of an endpoint",
            "subsets[1].ports[0] has no port number and is ignored",
        ]
    );
}

#[test]
fn endpoints_that_are_not_mirrored_have_no_object() {
    for (metadata, mirrored) in [
        (
            "labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}",
            false,
        ),
        (
            "labels: {endpointslice.kubernetes.io/skip-mirror: 'True'}",
            false,
        ),
        (
            "labels: {endpointslice.kubernetes.io/skip-mirror: 'false'}",
            true,
        ),
        (
            "annotations: {control-plane.alpha.kubernetes.io/leader: '{}'}",
            false,
        ),
        ("annotations: {other: '{}'}", true),
    ] {
        let yaml = format!(
            "metadata: {{name: x, {metadata}}}\nsubsets: [{{addresses: [{{ip: 10.0.0.1}}]}}]"
        );
        let update = endpoints(&yaml_serde::from_str(&yaml).unwrap(), "n1");
        assert_eq!(update.object.is_some(), mirrored, "{metadata}");
        assert_eq!(update.rejected, [], "{metadata}");
    }
}
