//! Why a part of an object is left out.

use std::sync::Arc;

/// Why a part of an object, or all of it, is not programmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// A port number that is not 1..=65535.
    #[error("{field} {value} is not a port number")]
    Port {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The number it holds.
        value: i64,
    },
    /// A protocol other than TCP, UDP or SCTP.
    #[error("{field} \"{value}\" is not TCP, UDP or SCTP")]
    Protocol {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The text it holds.
        value: Arc<str>,
    },
    /// Text that is not an IP address, or not one of the family that the field is for.
    #[error("{field} \"{value}\" is not an {expected}")]
    Address {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The text it holds.
        value: Arc<str>,
        /// What it should be: `IP address`, `IPv4 address of an endpoint` or the like.
        expected: &'static str,
    },
    /// Text that is not a name as Kubernetes takes them.
    #[error("{field} {value:?} is not a name of Kubernetes")]
    Name {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The text it holds.
        value: Arc<str>,
    },
    /// Text that is not a point in time.
    #[error("{field} \"{value}\" is not a time as of RFC 3339")]
    Timestamp {
        /// The path of the field in the object.
        field: Arc<str>,
        /// The text it holds.
        value: Arc<str>,
    },
    /// An endpoint with more than one address (`addresses` is a list of the same endpoint's).
    #[error("{0} has more than one address: only the first is used")]
    FurtherAddresses(Arc<str>),
    /// An `EndpointSlice` without label `kubernetes.io/service-name`.
    #[error("no label kubernetes.io/service-name says which Service it belongs to")]
    NoService,
    /// A field that is needed is not there, or two contradict each other.
    #[error("{0}")]
    Contradiction(Arc<str>),
    /// The object cannot be decoded at all.
    #[error("{0}")]
    Malformed(Arc<str>),
}

impl RejectReason {
    /// The reason as a metric's label: one word out of a closed list.
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
            Self::Contradiction(_) => "contradiction",
            Self::Malformed(_) => "malformed",
        }
    }
}
