//! Labels, with kube-proxy's names and values where it has them.

use prometheus_client::encoding::EncodeLabelSet;

use crate::planner::model::addr::Family;
use crate::planner::model::{Kind, Rejected};
use crate::planner::ruleset::SetName;

/// Of one IP family: `IPv4` or `IPv6`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfFamily {
    ip_family: &'static str,
}

impl From<Family> for OfFamily {
    fn from(family: Family) -> Self {
        Self {
            ip_family: family.as_str(),
        }
    }
}

/// Of a family and a traffic policy: `internal` or `external`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfPolicy {
    ip_family: &'static str,
    traffic_policy: &'static str,
}

impl OfPolicy {
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
pub struct OfSet {
    ip_family: &'static str,
    set: &'static str,
}

impl OfSet {
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
pub struct Code {
    code: u16,
}

impl Code {
    /// This one.
    #[must_use]
    pub fn new(code: u16) -> Self {
        Self { code }
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    outcome: &'static str,
}

impl Outcome {
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
pub struct OfKind {
    kind: String,
}

impl From<Kind> for OfKind {
    fn from(kind: Kind) -> Self {
        Self {
            kind: kind.to_string(),
        }
    }
}

/// Of objects that are not served as asked: the reason as Events have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfReason {
    reason: &'static str,
}

impl OfReason {
    /// For this reason.
    #[must_use]
    pub fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

/// Of a kind of object, and why a part of it was left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectedAs {
    kind: String,
    reason: &'static str,
}

impl RejectedAs {
    /// For this reason.
    #[must_use]
    pub fn new(kind: Kind, rejected: &Rejected) -> Self {
        Self {
            kind: kind.to_string(),
            reason: rejected.label(),
        }
    }
}
