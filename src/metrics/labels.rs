//! Labels, with kube-proxy's names and values where it has them.

use prometheus_client::encoding::EncodeLabelSet;

use crate::planner::model::addr::Family;
use crate::planner::model::{ObjectKind, RejectReason};
use crate::planner::ruleset::SetName;

/// Of one IP family: `IPv4` or `IPv6`.
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

/// Of a family and a traffic policy: `internal` or `external`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyLabel {
    ip_family: &'static str,
    traffic_policy: &'static str,
}

impl PolicyLabel {
    /// For connections to `ClusterIPs`.
    #[must_use]
    pub fn internal(family: Family) -> Self {
        Self {
            ip_family: family.as_str(),
            traffic_policy: "internal",
        }
    }

    /// For connections to other frontends.
    #[must_use]
    pub fn external(family: Family) -> Self {
        Self {
            ip_family: family.as_str(),
            traffic_policy: "external",
        }
    }
}

/// Of a family and a set of its table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SetLabel {
    ip_family: &'static str,
    set: &'static str,
}

impl SetLabel {
    /// Of this set.
    #[must_use]
    pub fn new(family: Family, set: SetName) -> Self {
        Self {
            ip_family: family.as_str(),
            set: set.as_str(),
        }
    }
}

/// An HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    code: u16,
}

impl CodeLabel {
    /// This one.
    #[must_use]
    pub fn new(code: u16) -> Self {
        Self { code }
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    outcome: &'static str,
}

impl OutcomeLabel {
    /// The kernel holds it.
    pub const COMMITTED: Self = Self {
        outcome: "committed",
    };
    /// The kernel refused a part of it, and did nothing.
    pub const REFUSED: Self = Self { outcome: "refused" };
    /// Anything else.
    pub const FAILED: Self = Self { outcome: "failed" };
}

/// Of a kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    kind: String,
}

impl From<ObjectKind> for KindLabel {
    fn from(kind: ObjectKind) -> Self {
        Self {
            kind: kind.to_string(),
        }
    }
}

/// Of objects that are not served as asked: the reason as Events have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

impl ReasonLabel {
    /// For this reason.
    #[must_use]
    pub fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

/// Of a kind of object, and why a part of it was left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectionLabel {
    kind: String,
    reason: &'static str,
}

impl RejectionLabel {
    /// For this reason.
    #[must_use]
    pub fn new(kind: ObjectKind, rejected: &RejectReason) -> Self {
        Self {
            kind: kind.to_string(),
            reason: rejected.label(),
        }
    }
}
