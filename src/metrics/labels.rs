//! The labels of the metrics, with kube-proxy's names and values for kube-proxy's metrics.

use prometheus_client::encoding::EncodeLabelSet;

use crate::planner::model::addr::Family;
use crate::planner::model::{InterruptReason, ObjectKind, Protocol, RejectReason};
use crate::planner::ruleset::SetName;

/// The label `ip_family`: `IPv4` or `IPv6`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FamilyLabel {
    ip_family: &'static str,
}

impl From<Family> for FamilyLabel {
    fn from(family: Family) -> Self {
        Self {
            ip_family: family.as_str(),
        }
    }
}

/// The labels `ip_family` and `traffic_policy`: `internal` or `external`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyLabel {
    ip_family: &'static str,
    traffic_policy: &'static str,
}

impl PolicyLabel {
    /// The internal traffic policy, for connections to `ClusterIPs`.
    #[must_use]
    pub fn internal(family: Family) -> Self {
        Self {
            ip_family: family.as_str(),
            traffic_policy: "internal",
        }
    }

    /// The external traffic policy, for connections to other frontends.
    #[must_use]
    pub fn external(family: Family) -> Self {
        Self {
            ip_family: family.as_str(),
            traffic_policy: "external",
        }
    }
}

/// The labels `ip_family` and `set`, the name of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SetLabel {
    ip_family: &'static str,
    set: &'static str,
}

impl SetLabel {
    /// The label of a set or map of a family.
    #[must_use]
    pub fn new(family: Family, set: SetName) -> Self {
        Self {
            ip_family: family.as_str(),
            set: set.as_str(),
        }
    }
}

/// The label `code`, an HTTP status code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    code: u16,
}

impl CodeLabel {
    /// The label of a status code.
    #[must_use]
    pub fn new(code: u16) -> Self {
        Self { code }
    }
}

/// The label `outcome` of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    outcome: &'static str,
}

impl OutcomeLabel {
    /// The kernel committed the transaction.
    pub const COMMITTED: Self = Self {
        outcome: "committed",
    };
    /// The kernel rejected an operation, and so the whole transaction.
    pub const REJECTED: Self = Self {
        outcome: "rejected",
    };
    /// The transaction failed for another reason.
    pub const FAILED: Self = Self { outcome: "failed" };

    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::COMMITTED, Self::REJECTED, Self::FAILED];
}

/// The label `protocol`: `tcp` or `udp`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProtocolLabel {
    protocol: String,
}

impl ProtocolLabel {
    /// The label of a protocol.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol: protocol.to_string(),
        }
    }
}

/// The labels `protocol` of a client at localhost and `reason` why it is not served.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabel {
    protocol: String,
    reason: &'static str,
}

impl RefusalLabel {
    /// There are too many connections or flows.
    #[must_use]
    pub fn limit(protocol: Protocol) -> Self {
        Self {
            protocol: protocol.to_string(),
            reason: "limit",
        }
    }

    /// No endpoint accepts the connection.
    #[must_use]
    pub fn no_endpoint(protocol: Protocol) -> Self {
        Self {
            protocol: protocol.to_string(),
            reason: "endpoint",
        }
    }

    /// Every reason.
    #[must_use]
    pub fn all(protocol: Protocol) -> [Self; 2] {
        [Self::limit(protocol), Self::no_endpoint(protocol)]
    }
}

/// The labels `kind` of a watch and `reason` of its interruption.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InterruptLabel {
    kind: String,
    reason: &'static str,
}

impl InterruptLabel {
    /// The labels of an interruption.
    #[must_use]
    pub fn new(kind: ObjectKind, reason: InterruptReason) -> Self {
        Self {
            kind: kind.to_string(),
            reason: reason.name(),
        }
    }
}

/// The label `reason` of an Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

impl ReasonLabel {
    /// The label of a reason.
    #[must_use]
    pub fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

/// The labels `kind` of an object and `reason` why a part of it was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectionLabel {
    kind: String,
    reason: &'static str,
}

impl RejectionLabel {
    /// The labels of every kind and reason.
    pub fn all() -> impl Iterator<Item = Self> {
        ObjectKind::ALL.into_iter().flat_map(|kind| {
            RejectReason::LABELS.map(|reason| Self {
                kind: kind.to_string(),
                reason,
            })
        })
    }

    /// The labels of a rejected part of an object.
    #[must_use]
    pub fn new(kind: ObjectKind, rejected: &RejectReason) -> Self {
        Self {
            kind: kind.to_string(),
            reason: rejected.label(),
        }
    }
}
