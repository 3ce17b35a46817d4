//! Small random clusters, with so few names and addresses that objects conflict.

use arbitrary::{Arbitrary, Result, Unstructured};
use kube_dnat::planner::model::{Event, ObjectKey, ObjectKind, OwnAddresses, Update};
use serde_json::{Value, json};

use crate::{NODE, decoded, decoded_alike};

/// Events of a small cluster, and how many of them a sync takes at once.
#[derive(Debug)]
pub struct Cluster {
    /// The events, in order.
    pub events: Vec<Event>,
    /// The number of events per sync.
    pub every: usize,
}

const CLUSTER_IPS: &[&str] = &[
    "10.96.0.1",
    "10.96.0.2",
    "10.96.0.3",
    "fd00:10:96::1",
    "fd00:10:96::2",
    "10.244.1.1",
    "192.168.77.2",
    "0.0.0.0",
    "127.0.0.1",
    "::1",
    "224.0.0.1",
    "",
    "None",
    "10.96.0",
    "fe80::1%eth0",
];
const POD_IPS: &[&str] = &[
    "10.244.1.1",
    "10.244.1.2",
    "10.244.1.3",
    "10.244.2.1",
    "fd00:10:244::1",
    "fd00:10:244::2",
    "10.96.0.1",
    "::ffff:10.244.1.1",
    "127.0.0.1",
    "example.com",
];
const RANGES: &[&str] = &[
    "10.0.0.0/8",
    "192.168.77.0/24",
    "0.0.0.0/0",
    "fd00::/8",
    "192.0.2.1/24",
    "10.0.0.0/33",
    "::/0",
    " 10.0.0.0/8 ",
    "10.244.1.0/24",
    "fd00:10:244::/64",
    "10.96.0.0/12",
];
const PORTS: &[i64] = &[
    80,
    81,
    443,
    30000,
    30001,
    30002,
    1,
    65535,
    0,
    65536,
    -1,
    i64::MAX,
];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP", "", "tcp", "ICMP"];
const NAMES: &[&str] = &["", "a", "b", "http"];
const POLICIES: &[&str] = &["Cluster", "Local", "", "Global"];
const NODES: &[&str] = &[NODE, "node-2", ""];
const ZONES: &[&str] = &["zone-a", "zone-b", ""];
const TIMES: &[&str] = &[
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:01Z",
    "1969-12-31T23:59:59Z",
];

/// One of `all`: an early one is likelier, so that most objects are valid.
fn one<'a, T: ?Sized>(u: &mut Unstructured<'_>, all: &'a [&'a T]) -> Result<&'a T> {
    let near = u.int_in_range(0..=all.len() - 1)?;
    let far = u.int_in_range(0..=all.len() - 1)?;
    Ok(all[near.min(far)])
}

fn some<T>(
    u: &mut Unstructured<'_>,
    at_most: usize,
    mut each: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=at_most)?;
    (0..count).map(|_| each(u)).collect()
}

/// A name of another list, or rarely any text at all.
fn text(u: &mut Unstructured<'_>, all: &[&str]) -> Result<String> {
    if u.ratio(1, 64)? {
        return Ok(String::arbitrary(u)?.chars().take(300).collect());
    }
    Ok(one(u, all)?.to_owned())
}

fn texts(u: &mut Unstructured<'_>, all: &[&str], at_most: usize) -> Result<Vec<String>> {
    some(u, at_most, |u| text(u, all))
}

fn number(u: &mut Unstructured<'_>) -> Result<i64> {
    let (near, far) = (
        u.int_in_range(0..=PORTS.len() - 1)?,
        u.int_in_range(0..=PORTS.len() - 1)?,
    );
    Ok(PORTS[near.min(far)])
}

/// A value, or null.
fn maybe(u: &mut Unstructured<'_>, value: Value) -> Result<Value> {
    Ok(if u.arbitrary()? { value } else { Value::Null })
}

fn service(u: &mut Unstructured<'_>) -> Result<Value> {
    let ports = some(u, 3, |u| {
        let node_port = if u.arbitrary()? { number(u)? } else { 0 };
        Ok(
            json!({"name": text(u, NAMES)?, "protocol": text(u, PROTOCOLS)?, "port": number(u)?,
            "nodePort": node_port}),
        )
    })?;
    let ingress = some(u, 2, |u| {
        let mode = text(u, &["VIP", "Proxy"])?;
        Ok(json!({"ip": text(u, CLUSTER_IPS)?, "ipMode": maybe(u, mode.into())?}))
    })?;
    let cluster_ips = texts(u, CLUSTER_IPS, 2)?;
    let policies = [text(u, POLICIES)?, text(u, POLICIES)?];
    let timeout = number(u)?;
    let created = one(u, TIMES)?;
    let created = maybe(u, created.into())?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": format!("service-{}", u.int_in_range(0..=3)?),
            "creationTimestamp": created},
        "spec": {
            "type": text(u, &["ClusterIP", "NodePort", "LoadBalancer", "", "ExternalName"])?,
            "clusterIP": cluster_ips.first(),
            "clusterIPs": cluster_ips,
            "externalIPs": texts(u, CLUSTER_IPS, 2)?,
            "loadBalancerSourceRanges": texts(u, RANGES, 2)?,
            "ports": ports,
            "internalTrafficPolicy": maybe(u, policies[0].as_str().into())?,
            "externalTrafficPolicy": maybe(u, policies[1].as_str().into())?,
            "healthCheckNodePort": if u.arbitrary()? { number(u)? } else { 0 },
            "sessionAffinity": text(u, &["None", "ClientIP", ""])?,
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": maybe(u, timeout.into())?}},
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    }))
}

fn slice(u: &mut Unstructured<'_>) -> Result<Value> {
    let ports = some(u, 3, |u| {
        Ok(json!({"name": text(u, NAMES)?, "protocol": text(u, PROTOCOLS)?, "port": number(u)?}))
    })?;
    let endpoints = some(u, 5, |u| {
        let mut conditions = [(); 3].map(|()| Value::Null);
        for condition in &mut conditions {
            *condition = Option::<bool>::arbitrary(u)?.into();
        }
        let [ready, serving, terminating] = conditions;
        let node = text(u, NODES)?;
        let zones: Vec<_> = texts(u, ZONES, 2)?
            .into_iter()
            .map(|name| json!({"name": name}))
            .collect();
        let nodes: Vec<_> = texts(u, NODES, 1)?
            .into_iter()
            .map(|name| json!({"name": name}))
            .collect();
        Ok(json!({
            "addresses": texts(u, POD_IPS, 2)?,
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "nodeName": maybe(u, node.into())?,
            "hints": {"forZones": zones, "forNodes": nodes},
        }))
    })?;
    let service = format!("service-{}", u.int_in_range(0..=3)?);
    Ok(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": format!("slice-{}", u.int_in_range(0..=5)?),
            "labels": {"kubernetes.io/service-name": service},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": one(u, TIMES)?}},
        "addressType": text(u, &["IPv4", "IPv6", "FQDN", ""])?,
        "endpoints": endpoints,
        "ports": ports,
    }))
}

fn node(u: &mut Unstructured<'_>) -> Result<Value> {
    let addresses = some(u, 3, |u| {
        let kind = text(u, &["InternalIP", "ExternalIP", "Hostname"])?;
        Ok(json!({"type": kind, "address": text(u, CLUSTER_IPS)?}))
    })?;
    let taints = some(u, 1, |u| {
        Ok(json!({"key": text(u, &["ToBeDeletedByClusterAutoscaler", "a"])?}))
    })?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"topology.kubernetes.io/zone": text(u, ZONES)?}},
        "spec": {"podCIDRs": texts(u, RANGES, 2)?, "taints": taints},
        "status": {"addresses": addresses},
    }))
}

fn service_cidr(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": texts(u, &["10.96.0.0/12", "fd00:10:96::/112", "10.96.0.0/30", "10.96.0.0"], 2)?},
    }))
}

fn addresses(u: &mut Unstructured<'_>) -> Result<Event> {
    let (of_default_route, all) = (texts(u, CLUSTER_IPS, 2)?, texts(u, CLUSTER_IPS, 4)?);
    let parsed = |text: String| text.parse().ok();
    Ok(Event::OwnAddresses(OwnAddresses {
        of_default_route: of_default_route.into_iter().filter_map(parsed).collect(),
        all: all.into_iter().filter_map(parsed).collect(),
    }))
}

fn deletion(u: &mut Unstructured<'_>) -> Result<Event> {
    let (kind, name) = match u.int_in_range(0..=9)? {
        number @ 0..=3 => (ObjectKind::Service, format!("shop/service-{number}")),
        number => (
            ObjectKind::EndpointSlice,
            format!("shop/slice-{}", number - 4),
        ),
    };
    Ok(Event::Update(Update {
        key: ObjectKey {
            kind,
            name: name.into(),
        },
        object: None,
        rejected: Vec::new(),
        triggered: None,
    }))
}

fn event(u: &mut Unstructured<'_>) -> Result<Event> {
    let object = match u.int_in_range(0..=11)? {
        0..=3 => service(u)?,
        4..=7 => slice(u)?,
        8 => node(u)?,
        9 => service_cidr(u)?,
        10 => return addresses(u),
        _ => return deletion(u),
    };
    // The encodings take longer than the plan: few objects have all of them.
    Ok(Event::Update(if u.ratio(1, 8)? {
        decoded_alike(&object)
    } else {
        decoded(&object)
    }))
}

impl<'a> Arbitrary<'a> for Cluster {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let every = u.int_in_range(1..=5)?;
        let mut events = Vec::new();
        while !u.is_empty() && events.len() < 16 {
            events.push(event(u)?);
        }
        Ok(Self { events, every })
    }
}
