//! From an API object as it is decoded to what it means to the rules. A part that makes no sense
//! is left out and reported; the rest of the object counts.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;

use super::wire::{self, WireMetadata};
use super::{
    Node, Object, ObjectKey, ObjectKind, Protocol, RejectReason, ServiceCidr, ServiceName, Update,
};

mod ip;
mod service;
mod slice;

pub use ip::{address, range};
pub use service::service;
pub use slice::{endpoints, slice};

#[cfg(test)]
mod tests;

/// Which object `metadata` names. A namespace that is absent is `default`, as `kubectl` has it.
#[must_use]
pub fn key(kind: ObjectKind, metadata: &WireMetadata) -> ObjectKey {
    let name = match kind {
        ObjectKind::Service | ObjectKind::EndpointSlice | ObjectKind::Endpoints => {
            format!("{}/{}", namespace(metadata), metadata.name).into()
        }
        ObjectKind::Node | ObjectKind::ServiceCidr => Arc::from(metadata.name.as_str()),
    };
    ObjectKey { kind, name }
}

/// The taint of a Node that the cluster autoscaler is about to delete (KEP-3836).
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// What a Node says: its internal addresses, if it is `our_node`.
#[must_use]
pub fn node(node: &wire::WireNode, our_node: &str) -> Update {
    update(ObjectKind::Node, &node.metadata, |rejected| {
        if node.metadata.name != our_node {
            return None;
        }
        let of_type = |kind: &'static str| {
            let addresses = node.status.addresses.iter().enumerate();
            let addresses = addresses.filter(move |(_, address)| address.address_type == kind);
            addresses.map(|(index, address)| {
                let field = move || format!("status.addresses[{index}].address");
                (field, address.address.as_str())
            })
        };
        let addresses = of_type("InternalIP").chain(of_type("ExternalIP"));
        let zone = node.metadata.labels.zone.as_deref();
        Some(Object::Node(Node {
            addresses: ip::addresses(addresses, rejected),
            zone: zone.filter(|zone| !zone.is_empty()).map(Arc::from),
            pod_cidrs: ranges("spec.podCIDRs", &node.spec.pod_cidrs, rejected),
            is_leaving: node.metadata.deletion_timestamp.is_some()
                || node.spec.taints.iter().any(|taint| taint.key == LEAVING),
        }))
    })
}

fn ranges(field: &str, texts: &[String], rejected: &mut Vec<RejectReason>) -> Vec<IpNet> {
    let mut ranges = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match range(text) {
            Some(range) => ranges.push(range),
            None => rejected.push(RejectReason::Address {
                field: format!("{field}[{index}]").into(),
                value: text.as_str().into(),
                expected: "address range",
            }),
        }
    }
    ranges
}

/// What a `ServiceCIDR` says: its ranges.
#[must_use]
pub fn service_cidr(service_cidr: &wire::WireServiceCidr) -> Update {
    update(
        ObjectKind::ServiceCidr,
        &service_cidr.metadata,
        |rejected| {
            let cidrs = ranges("spec.cidrs", &service_cidr.spec.cidrs, rejected);
            Some(Object::ServiceCidr(ServiceCidr { cidrs }))
        },
    )
}

/// The update on an object of `kind`; `object` is asked only if the object has a proper name.
fn update(
    kind: ObjectKind,
    metadata: &WireMetadata,
    object: impl FnOnce(&mut Vec<RejectReason>) -> Option<Object>,
) -> Update {
    let mut rejected = Vec::new();
    let object = match misnamed(kind, metadata) {
        Some(fault) => {
            rejected.push(fault);
            None
        }
        None => object(&mut rejected),
    };
    Update {
        key: key(kind, metadata),
        object,
        rejected,
        triggered: triggered(metadata),
    }
}

/// When what an object says was brought about, in milliseconds since 1970, if it says so.
fn triggered(metadata: &WireMetadata) -> Option<i64> {
    let text = metadata.annotations.last_change_trigger_time.as_deref()?;
    let time = text.parse::<Timestamp>().ok()?;
    Some(time.as_millisecond())
}

fn namespace(metadata: &WireMetadata) -> &str {
    match metadata.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    }
}

/// The Service that is named as the object itself.
fn service_name(metadata: &WireMetadata) -> ServiceName {
    ServiceName::new(namespace(metadata), &metadata.name)
}

/// Names stand in comments of the ruleset and in its text, where a quote would end them.
fn misnamed(kind: ObjectKind, metadata: &WireMetadata) -> Option<RejectReason> {
    if metadata.name.is_empty() {
        let text = "metadata.name is missing";
        return Some(RejectReason::Contradiction(text.into()));
    }
    let longest = match kind {
        ObjectKind::Service => 63,
        ObjectKind::EndpointSlice
        | ObjectKind::Endpoints
        | ObjectKind::Node
        | ObjectKind::ServiceCidr => 253,
    };
    [
        ("metadata.name", metadata.name.as_str(), longest),
        ("metadata.namespace", namespace(metadata), 63),
    ]
    .into_iter()
    .find(|(_, value, longest)| !is_name(value, *longest))
    .map(|(field, value, _)| RejectReason::Name {
        field: field.into(),
        value: value.into(),
    })
}

/// Whether `text` is a subdomain as of RFC 1123, the widest form of a name in Kubernetes.
fn is_name(text: &str, longest: usize) -> bool {
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= longest
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes
            .iter()
            .all(|byte| edge(byte) || matches!(byte, b'-' | b'.'))
}

/// Seconds since 1970 of `metadata.creationTimestamp`.
fn created(metadata: &WireMetadata, rejected: &mut Vec<RejectReason>) -> Option<i64> {
    let text = metadata.creation_timestamp.as_deref()?;
    let timestamp = text.parse::<Timestamp>().ok();
    if timestamp.is_none() {
        rejected.push(RejectReason::Timestamp {
            field: "metadata.creationTimestamp".into(),
            value: text.into(),
        });
    }
    timestamp.map(Timestamp::as_second)
}

/// The protocol named `text`; none named is TCP, the API server's default.
fn protocol(field: impl FnOnce() -> String, text: &str) -> Result<Protocol, RejectReason> {
    match text {
        "" | "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(RejectReason::Protocol {
            field: field().into(),
            value: other.into(),
        }),
    }
}

fn port_number(field: impl FnOnce() -> String, value: i64) -> Result<u16, RejectReason> {
    match u16::try_from(value) {
        Ok(port @ 1..) => Ok(port),
        _ => Err(RejectReason::Port {
            field: field().into(),
            value,
        }),
    }
}
