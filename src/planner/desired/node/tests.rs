//! Which addresses a node has, and which of them are of its Pods or serve node ports.

use super::*;
use crate::planner::model::parse;

#[test]
fn a_configured_primary_address_applies_to_its_family_only() {
    let addresses = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
    let facts = NodeFacts {
        node_ip: "192.0.2.9".parse().ok(),
        own_addresses: Some(OwnAddresses {
            all: addresses.into(),
            of_default_route: addresses.to_vec(),
        }),
        ..NodeFacts::default()
    };
    let ipv4 = NodeElements::<Ipv4Addr>::new(&facts, &Store::default(), &Claims::default());
    assert_eq!(ipv4.primary_ip(), "192.0.2.9".parse().ok());
    assert_eq!(
        ipv4.node_ips().collect::<Vec<_>>(),
        ["192.0.2.9".parse::<Ipv4Addr>().unwrap()]
    );
    let ipv6 = NodeElements::<Ipv6Addr>::new(&facts, &Store::default(), &Claims::default());
    assert_eq!(ipv6.primary_ip(), "2001:db8::1".parse().ok());
}

/// Returns this node's Pod ranges, with podCIDR `10.244.1.0/24`, this address and this endpoint.
fn own_pods(cluster: &str, own_address: &str, endpoint: &str) -> Vec<String> {
    let mut store = Store::default();
    let node = "{metadata: {name: n1}, spec: {podCIDRs: [10.244.1.0/24]}, \
                status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}";
    let slice = format!(
        "{{metadata: {{namespace: shop, name: a, labels: {{kubernetes.io/service-name: cart}}}}, \
         addressType: IPv4, ports: [{{port: 80}}], \
         endpoints: [{{addresses: [{endpoint}], nodeName: n1}}]}}"
    );
    store.apply(parse::node(&yaml_serde::from_str(node).unwrap(), "n1"));
    store.apply(parse::slice(&yaml_serde::from_str(&slice).unwrap(), "n1"));
    let facts = NodeFacts {
        pods: PodSource::ClusterCidr(vec![cluster.parse().unwrap()]),
        own_addresses: Some(OwnAddresses {
            all: ["192.0.2.1", own_address]
                .map(|ip| ip.parse().unwrap())
                .into(),
            of_default_route: Vec::new(),
        }),
        ..NodeFacts::default()
    };
    let node = NodeElements::<Ipv4Addr>::new(&facts, &store, &Claims::default());
    node.own_pod_cidrs.iter().map(ToString::to_string).collect()
}

#[test]
fn an_endpoint_is_outside_the_pod_ranges_unless_it_is_the_node() {
    let mut store = Store::default();
    let node = "{metadata: {name: n1}, \
                status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}";
    store.apply(parse::node(&yaml_serde::from_str(node).unwrap(), "n1"));
    let outside = |pods: PodSource, address: &str| {
        let facts = NodeFacts {
            pods,
            own_addresses: Some(OwnAddresses {
                all: ["192.0.2.7".parse().unwrap()].into(),
                of_default_route: Vec::new(),
            }),
            ..NodeFacts::default()
        };
        let node = NodeElements::<Ipv4Addr>::new(&facts, &store, &Claims::default());
        node.is_outside_pod_ranges(address.parse().unwrap())
    };
    let range = || PodSource::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]);
    assert!(outside(range(), "10.32.0.1"));
    assert!(!outside(range(), "10.244.7.1"));
    for of_node in ["192.0.2.1", "192.0.2.7"] {
        assert!(!outside(range(), of_node), "{of_node}");
    }
    // Where no range of the family is known, none is outside.
    assert!(!outside(PodSource::default(), "10.32.0.1"));
    assert!(!outside(PodSource::NodeCidr, "10.32.0.1"));
}

#[test]
fn gaps_are_the_addresses_outside_of_the_subranges() {
    let nets =
        |nets: &[&str]| -> Vec<Ipv4Net> { nets.iter().map(|net| net.parse().unwrap()).collect() };
    let all: Ipv4Net = "10.0.0.0/28".parse().unwrap();
    for without in [
        nets(&["10.0.0.0/28"]),
        nets(&["10.0.0.0/32", "10.0.0.15/32"]),
        nets(&["10.0.0.4/30", "10.0.0.8/32", "10.0.0.12/31"]),
        nets(&["10.0.1.0/28"]),
    ] {
        let gaps = gaps::<Ipv4Addr>(all, &without);
        for last in 0..=255 {
            let address = Ipv4Addr::new(10, 0, 0, last);
            let is_left = all.contains(&address);
            let is_left = is_left && !without.iter().any(|net| net.contains(&address));
            let address = IpAddr::V4(address);
            let in_gap = gaps.iter().any(|gap| gap.contains(&address));
            assert_eq!(in_gap, is_left, "{address} without {without:?}");
        }
    }
}

#[test]
fn own_pods_are_in_the_podcidrs_unless_a_local_address_is_outside() {
    let (gateway, pod) = ("10.244.1.1", "10.244.1.9");
    assert_eq!(own_pods("10.244.0.0/16", gateway, pod), ["10.244.1.0/24"]);
    assert_eq!(own_pods("10.244.1.0/25", gateway, pod), ["10.244.1.0/25"]);
    assert_eq!(own_pods("10.32.0.0/16", gateway, pod), ["10.32.0.0/16"]);
    // The node's own address does not count.
    assert_eq!(own_pods("0.0.0.0/0", gateway, pod), ["10.244.1.0/24"]);
    assert_eq!(
        own_pods("10.244.0.0/16", gateway, "192.0.2.1"),
        ["10.244.1.0/24"]
    );
    // A network plugin that does not allocate from podCIDRs.
    let elsewhere = "10.244.7.65";
    assert_eq!(own_pods("10.244.0.0/16", elsewhere, pod), ["10.244.0.0/16"]);
    assert_eq!(
        own_pods("10.244.0.0/16", gateway, elsewhere),
        ["10.244.0.0/16"]
    );
}
