//! The conversion of decoded API objects to the model.
//!
//! An invalid part is rejected and reported; the rest of the object is used.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;

use super::wire::{self, WireMetadata, WireTime};
use super::{
    Node, Object, ObjectKey, ObjectKind, Protocol, RejectReason, ServiceCidr, ServiceName, Update,
};

mod features;
mod ip;
mod service;
mod slice;

pub use features::name as annotation;
pub use ip::{address, range};
pub use service::service;
pub use slice::{endpoints, slice};

#[cfg(test)]
mod tests;

/// Returns the key of an object; an absent namespace is `default`, as in `kubectl`.
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
const DELETION_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Converts a Node; nodes other than `our_node` are ignored.
#[must_use]
pub fn node(node: &wire::WireNode, our_node: &str) -> Update {
    update(ObjectKind::Node, &node.metadata, |rejected| {
        if node.metadata.name != our_node {
            return None;
        }
        let of_type = |kind: &'static str| {
            node.status
                .addresses
                .iter()
                .enumerate()
                .filter(move |(_, address)| address.address_type == kind)
                .map(|(index, address)| {
                    let field = move || format!("status.addresses[{index}].address");
                    (field, address.address.as_str())
                })
        };
        let addresses = of_type("InternalIP").chain(of_type("ExternalIP"));
        let zone = node.metadata.labels.zone.as_deref();
        Some(Object::Node(Node {
            addresses: ip::addresses(addresses, rejected).into_vec(),
            zone: zone.filter(|zone| !zone.is_empty()).map(Arc::from),
            pod_cidrs: ranges("spec.podCIDRs", &node.spec.pod_cidrs, rejected),
            is_leaving: node.metadata.deletion_timestamp.is_some()
                || node
                    .spec
                    .taints
                    .iter()
                    .any(|taint| taint.key == DELETION_TAINT),
        }))
    })
}

/// Parses the address ranges of a field, and rejects invalid ones.
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

/// Converts a `ServiceCIDR`.
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

/// Returns the update for an object; `object` is called only if the name is valid.
fn update(
    kind: ObjectKind,
    metadata: &WireMetadata,
    object: impl FnOnce(&mut Vec<RejectReason>) -> Option<Object>,
) -> Update {
    let mut rejected = Vec::new();
    let object = match invalid_name(kind, metadata) {
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

/// Returns the time of the change that caused an object's state, in milliseconds since 1970.
fn triggered(metadata: &WireMetadata) -> Option<i64> {
    let text = metadata.annotations.last_change_trigger_time.as_deref()?;
    let time = text.parse::<Timestamp>().ok()?;
    Some(time.as_millisecond())
}

/// Returns the namespace of an object, `default` if absent.
fn namespace(metadata: &WireMetadata) -> &str {
    match metadata.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    }
}

/// Returns the Service with the object's namespace and name.
fn service_name(metadata: &WireMetadata) -> ServiceName {
    ServiceName::new(namespace(metadata), &metadata.name)
}

/// Returns the reason why the name or namespace of an object is invalid.
///
/// Names are part of the ruleset's comments, where a quote would end the comment.
fn invalid_name(kind: ObjectKind, metadata: &WireMetadata) -> Option<RejectReason> {
    if metadata.name.is_empty() {
        let text = "metadata.name is missing";
        return Some(RejectReason::Contradiction(text.into()));
    }
    let max_len = match kind {
        ObjectKind::Service => 63,
        ObjectKind::EndpointSlice
        | ObjectKind::Endpoints
        | ObjectKind::Node
        | ObjectKind::ServiceCidr => 253,
    };
    [
        ("metadata.name", metadata.name.as_str(), max_len),
        ("metadata.namespace", namespace(metadata), 63),
    ]
    .into_iter()
    .find(|(_, value, max_len)| !is_name(value, *max_len))
    .map(|(field, value, _)| RejectReason::Name {
        field: field.into(),
        value: value.into(),
    })
}

/// Returns whether a text is an RFC 1123 subdomain, the most general name in Kubernetes.
fn is_name(text: &str, max_len: usize) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= max_len
        && bytes.first().is_some_and(is_alphanumeric)
        && bytes.last().is_some_and(is_alphanumeric)
        && bytes
            .iter()
            .all(|byte| is_alphanumeric(byte) || matches!(byte, b'-' | b'.'))
}

/// Parses `metadata.creationTimestamp`, in seconds since 1970.
fn created(metadata: &WireMetadata, rejected: &mut Vec<RejectReason>) -> Option<i64> {
    match metadata.creation_timestamp.as_ref()? {
        WireTime::Seconds(seconds) => Some(*seconds),
        WireTime::Text(text) => match text.parse::<Timestamp>() {
            Ok(timestamp) => Some(timestamp.as_second()),
            Err(_not_a_time) => {
                rejected.push(RejectReason::Timestamp {
                    field: "metadata.creationTimestamp".into(),
                    value: text.as_str().into(),
                });
                None
            }
        },
    }
}

/// Parses a protocol; an empty text is TCP, the API server's default.
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

/// Converts a port number.
fn port_number(field: impl FnOnce() -> String, value: i64) -> Result<u16, RejectReason> {
    match u16::try_from(value) {
        Ok(port @ 1..) => Ok(port),
        _ => Err(RejectReason::Port {
            field: field().into(),
            value,
        }),
    }
}
