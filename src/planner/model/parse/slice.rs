//! The conversion of `EndpointSlices`, and of Endpoints to slices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::planner::model::addr::Family;
use crate::planner::model::{
    Address, Endpoint, EndpointSlice, Hints, Object, ObjectKind, Placement, RejectReason,
    ServiceName, SliceEndpoints, SlicePort, Topology, Update, wire,
};

use super::{ip, namespace, port_number, protocol, service_name, triggered, update};

/// Converts an `EndpointSlice`.
///
/// Slices of headless Services (label `service.kubernetes.io/headless`) are ignored.
#[must_use]
pub fn slice(slice: &wire::WireEndpointSlice, our_node: &str) -> Update {
    update(ObjectKind::EndpointSlice, &slice.metadata, |rejected| {
        if slice.metadata.labels.headless.is_some() {
            return None;
        }
        let Some(service) = slice_service(slice) else {
            rejected.push(RejectReason::NoService);
            return None;
        };
        let addresses = match slice.address_type.as_str() {
            "IPv4" => SliceEndpoints::Ipv4(slice_endpoints(slice, our_node, rejected)),
            "IPv6" => SliceEndpoints::Ipv6(slice_endpoints(slice, our_node, rejected)),
            "FQDN" => {
                let text = "addressType FQDN: endpoints with host names are not supported";
                rejected.push(RejectReason::Contradiction(text.into()));
                return None;
            }
            other => {
                let text = format!("addressType \"{other}\" is not IPv4, IPv6 or FQDN");
                rejected.push(RejectReason::Contradiction(text.into()));
                return None;
            }
        };
        Some(Object::Slices(Box::new([EndpointSlice {
            service,
            mirrored: false,
            triggered: triggered(&slice.metadata),
            ports: ports("ports", &slice.ports, rejected),
            addresses,
        }])))
    })
}

/// Converts Endpoints to a slice for each subset and family, like the mirroring controller.
///
/// Endpoints with label `endpointslice.kubernetes.io/skip-mirror: "true"` and leader-election locks
/// are ignored.
#[must_use]
pub fn endpoints(endpoints: &wire::WireEndpoints, our_node: &str) -> Update {
    let metadata = &endpoints.metadata;
    update(ObjectKind::Endpoints, metadata, |rejected| {
        let skip = metadata.labels.skip_mirror.as_deref();
        if skip.is_some_and(|skip| skip.eq_ignore_ascii_case("true"))
            || metadata.annotations.leader.is_some()
        {
            return None;
        }
        let service = service_name(metadata);
        let mut slices = Vec::new();
        for (index, subset) in endpoints.subsets.iter().enumerate() {
            let field = format!("subsets[{index}]");
            let ports = ports(&format!("{field}.ports"), &subset.ports, rejected);
            let (ipv4, ipv6) = subset_endpoints(&field, subset, our_node, rejected);
            let families = [
                (!ipv4.is_empty()).then_some(SliceEndpoints::Ipv4(ipv4.into())),
                (!ipv6.is_empty()).then_some(SliceEndpoints::Ipv6(ipv6.into())),
            ];
            slices.extend(
                families
                    .into_iter()
                    .flatten()
                    .map(|addresses| EndpointSlice {
                        service: service.clone(),
                        mirrored: true,
                        triggered: triggered(metadata),
                        ports: ports.clone(),
                        addresses,
                    }),
            );
        }
        Some(Object::Slices(slices.into()))
    })
}

/// Returns the Service of a slice.
fn slice_service(slice: &wire::WireEndpointSlice) -> Option<ServiceName> {
    let name = slice.metadata.labels.service_name.as_deref()?;
    (!name.is_empty()).then(|| ServiceName::new(namespace(&slice.metadata), name))
}

/// Converts the endpoints of a slice, sorted by address.
fn slice_endpoints<A: Address>(
    slice: &wire::WireEndpointSlice,
    our_node: &str,
    rejected: &mut Vec<RejectReason>,
) -> Box<[Endpoint<A>]> {
    let mut endpoints = Vec::with_capacity(slice.endpoints.len());
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        let Some(text) = endpoint.addresses.first() else {
            let text = format!("endpoints[{index}].addresses is empty");
            rejected.push(RejectReason::Contradiction(text.into()));
            continue;
        };
        if endpoint.addresses.len() > 1 {
            let field = format!("endpoints[{index}].addresses");
            rejected.push(RejectReason::FurtherAddresses(field.into()));
        }
        let field = || format!("endpoints[{index}].addresses[0]");
        let expected = match A::FAMILY {
            Family::Ipv4 => "IPv4 address of an endpoint",
            Family::Ipv6 => "IPv6 address of an endpoint",
        };
        match endpoint_address(field, text, expected, A::from_ip) {
            Ok(address) => endpoints.push(Endpoint {
                address,
                ready: endpoint.conditions.ready.unwrap_or(true),
                serving: endpoint.conditions.serving.unwrap_or(true),
                terminating: endpoint.conditions.terminating.unwrap_or(false),
                placement: placement(endpoint.node_name.as_deref(), our_node),
                topology: topology(endpoint, our_node),
            }),
            Err(reason) => rejected.push(reason),
        }
    }
    // Sorted once here, and not with all slices of the Service at each change of one.
    endpoints.sort_by_key(|endpoint| endpoint.address.bits());
    endpoints.into()
}

/// Returns the placement of an endpoint with this node name.
fn placement(node_name: Option<&str>, our_node: &str) -> Placement {
    match node_name {
        None => Placement::Unknown,
        Some(name) if name == our_node => Placement::Local,
        Some(_) => Placement::Remote,
    }
}

/// Converts the place of an endpoint; `None` if nothing of it is known.
fn topology(endpoint: &wire::WireEndpoint, our_node: &str) -> Option<Arc<Topology>> {
    let topology = Topology {
        hints: hints(&endpoint.hints, our_node),
        node: named(endpoint.node_name.as_deref()),
        zone: named(endpoint.zone.as_deref()),
    };
    (topology != Topology::default()).then(|| Arc::new(topology))
}

/// Converts a name; an empty one counts as absent.
fn named(name: Option<&str>) -> Option<Arc<str>> {
    name.filter(|name| !name.is_empty()).map(Arc::from)
}

/// Converts the hints of an endpoint; `None` if it has none.
fn hints(hints: &wire::WireEndpointHints, our_node: &str) -> Option<Hints> {
    let (zones, nodes) = (&hints.for_zones, &hints.for_nodes);
    if zones.is_empty() && nodes.is_empty() {
        return None;
    }
    Some(Hints {
        zones: zones.iter().map(|zone| zone.name.as_str().into()).collect(),
        has_nodes: !nodes.is_empty(),
        has_this_node: nodes.iter().any(|node| node.name == our_node),
    })
}

/// Endpoints by family.
type ByFamily = (Vec<Endpoint<Ipv4Addr>>, Vec<Endpoint<Ipv6Addr>>);

/// Converts the addresses of a subset.
fn subset_endpoints(
    field: &str,
    subset: &wire::WireEndpointSubset,
    our_node: &str,
    rejected: &mut Vec<RejectReason>,
) -> ByFamily {
    let mut by_family = ByFamily::default();
    for (list, addresses, ready) in [
        ("addresses", &subset.addresses, true),
        ("notReadyAddresses", &subset.not_ready_addresses, false),
    ] {
        for (index, wire) in addresses.iter().enumerate() {
            let field = || format!("{field}.{list}[{index}].ip");
            let node = wire.node_name.as_deref();
            let place = (placement(node, our_node), node);
            match endpoint_address(field, &wire.ip, "IP address of an endpoint", Some) {
                Ok(IpAddr::V4(address)) => by_family.0.push(mirrored(address, ready, place)),
                Ok(IpAddr::V6(address)) => by_family.1.push(mirrored(address, ready, place)),
                Err(reason) => rejected.push(reason),
            }
        }
    }
    by_family
}

/// Returns the endpoint that the mirroring controller derives from an address.
fn mirrored<A>(
    address: A,
    ready: bool,
    (placement, node): (Placement, Option<&str>),
) -> Endpoint<A> {
    let topology = named(node).map(|node| Topology {
        node: Some(node),
        ..Topology::default()
    });
    Endpoint {
        address,
        ready,
        serving: true,
        terminating: false,
        placement,
        topology: topology.map(Arc::new),
    }
}

/// Parses the address of an endpoint.
fn endpoint_address<A>(
    field: impl FnOnce() -> String,
    text: &str,
    expected: &'static str,
    of_family: impl FnOnce(IpAddr) -> Option<A>,
) -> Result<A, RejectReason> {
    ip::address(text)
        .filter(|address| ip::is_valid_endpoint(*address))
        .and_then(of_family)
        .ok_or_else(|| RejectReason::Address {
            field: field().into(),
            value: text.into(),
            expected,
        })
}

/// Converts the ports of a slice.
///
/// An absent name is "", as in the API server's defaults. A port without a number stands for all
/// ports, which only network policies support: it is ignored.
fn ports(
    field: &str,
    wire: &[wire::WireEndpointPort],
    rejected: &mut Vec<RejectReason>,
) -> Box<[SlicePort]> {
    let mut ports = Vec::with_capacity(wire.len());
    for (index, wire) in wire.iter().enumerate() {
        if wire.port == 0 {
            let text = format!("{field}[{index}] has no port number and is ignored");
            rejected.push(RejectReason::Contradiction(text.into()));
            continue;
        }
        match port(field, index, wire) {
            Ok(port) => ports.push(port),
            Err(reason) => rejected.push(reason),
        }
    }
    ports.into()
}

/// Converts a port of a slice.
fn port(
    field: &str,
    index: usize,
    wire: &wire::WireEndpointPort,
) -> Result<SlicePort, RejectReason> {
    Ok(SlicePort {
        name: wire.name.as_str().into(),
        protocol: protocol(|| format!("{field}[{index}].protocol"), &wire.protocol)?,
        port: port_number(|| format!("{field}[{index}].port"), wire.port)?,
    })
}
