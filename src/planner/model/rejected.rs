//! The reasons why parts of an object are rejected.

use std::sync::Arc;

/// The reason why a part of an object, or the whole object, is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// A port number that is not 1..=65535.
    #[error("{field} {value} is not a port number")]
    Port {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The value of the field.
        value: i64,
    },
    /// A protocol other than TCP, UDP or SCTP.
    #[error("{field} \"{value}\" is not TCP, UDP or SCTP")]
    Protocol {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The value of the field.
        value: Arc<str>,
    },
    /// Text that is not an IP address, or not one of the family that the field is for.
    #[error("{field} \"{value}\" is not an {expected}")]
    Address {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The value of the field.
        value: Arc<str>,
        /// The expected type, such as `IP address` or `IPv4 address of an endpoint`.
        expected: &'static str,
    },
    /// Text that is not a valid Kubernetes name.
    #[error("{field} {value:?} is not a valid Kubernetes name")]
    Name {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The value of the field.
        value: Arc<str>,
    },
    /// Text that is not a timestamp.
    #[error("{field} \"{value}\" is not an RFC 3339 timestamp")]
    Timestamp {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The value of the field.
        value: Arc<str>,
    },
    /// An endpoint with more than one address.
    #[error("{0} has more than one address; only the first is used")]
    FurtherAddresses(Arc<str>),
    /// An `EndpointSlice` without label `kubernetes.io/service-name`.
    #[error("label kubernetes.io/service-name is missing: the slice belongs to no Service")]
    NoService,
    /// An annotation of kube-dnat with a value that is invalid, or contradicts the object.
    #[error("annotation {annotation} has no effect: {problem}")]
    Annotation {
        /// The name of the annotation.
        annotation: &'static str,
        /// The problem of its value.
        problem: Arc<str>,
    },
    /// A required field is missing, or two fields contradict each other.
    #[error("{0}")]
    Contradiction(Arc<str>),
    /// An object that cannot be decoded.
    #[error("{0}")]
    Malformed(Arc<str>),
}

impl RejectReason {
    /// The value of [`Self::label`] of every reason.
    pub const LABELS: [&'static str; 10] = [
        "port",
        "protocol",
        "address",
        "name",
        "timestamp",
        "further_addresses",
        "no_service",
        "annotation",
        "contradiction",
        "malformed",
    ];

    /// Returns the reason as the value of a metric's label, from a fixed list.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Port { .. } => "port",
            Self::Protocol { .. } => "protocol",
            Self::Address { .. } => "address",
            Self::Name { .. } => "name",
            Self::Timestamp { .. } => "timestamp",
            Self::FurtherAddresses(_) => "further_addresses",
            Self::NoService => "no_service",
            Self::Annotation { .. } => "annotation",
            Self::Contradiction(_) => "contradiction",
            Self::Malformed(_) => "malformed",
        }
    }
}
