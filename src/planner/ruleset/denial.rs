//! Why an element denies connections, for the counters of the elements.

use super::{SetName, Verdict};

/// The reason why the verdict of an element denies new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// The Service has no endpoint on any node.
    NoEndpoints,
    /// The traffic policy is Local, and no endpoint is on this node.
    NoLocalEndpoints,
    /// `loadBalancerSourceRanges` do not include the source.
    SourceRanges,
}

impl Denial {
    /// Every reason.
    pub const ALL: [Self; 3] = [
        Self::NoEndpoints,
        Self::NoLocalEndpoints,
        Self::SourceRanges,
    ];

    /// The maps whose elements count what they deny.
    pub const MAPS: [SetName; 8] = [
        SetName::Services,
        SetName::Nodeports,
        SetName::Ranges,
        SetName::ServicesLocal,
        SetName::NodeportsLocal,
        SetName::RangesLocal,
        SetName::ServicesRestricted,
        SetName::ServicesDenied,
    ];

    /// Returns why an element of one of [`Self::MAPS`] denies connections; `None` if it does not.
    #[must_use]
    pub fn of(set: SetName, verdict: Verdict) -> Option<Self> {
        let is_local = matches!(
            set,
            SetName::ServicesLocal | SetName::NodeportsLocal | SetName::RangesLocal
        );
        if set == SetName::ServicesDenied {
            return Some(Self::SourceRanges);
        }
        match (verdict == Verdict::Refuse, verdict == Verdict::Drop) {
            (true, _) if !is_local => Some(Self::NoEndpoints),
            (false, false) => None,
            _ => Some(Self::NoLocalEndpoints),
        }
    }

    /// The reason in metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoEndpoints => "no_endpoints",
            Self::NoLocalEndpoints => "no_local_endpoints",
            Self::SourceRanges => "source_ranges",
        }
    }

    /// The reason in words.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::NoEndpoints => "denied: no endpoint",
            Self::NoLocalEndpoints => "denied: no endpoint on this node",
            Self::SourceRanges => "denied: source not in the ranges",
        }
    }
}
