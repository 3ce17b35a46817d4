//! Why something is told: what users and their alerts look for.

use crate::planner::desired::UnservedReason;
use crate::planner::model::RejectReason;

/// Why an Event is made; where kube-proxy has one for it, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventReason {
    /// This program starts, of the Node.
    Starting,
    /// An older Service has what this one claims.
    FrontendConflict,
    /// A field that should be an address is none, or of the wrong family.
    InvalidAddress,
    /// Another part of the object makes no sense.
    InvalidObject,
    /// An endpoint is not one that can be used.
    InvalidEndpoint,
    /// A Service has more endpoints than can be used.
    TooManyEndpoints,
    /// An endpoint on this node is outside the ranges of Pods.
    EndpointOutsidePodRanges,
    /// Nothing is known of a Node of our name.
    UnknownNode,
    /// The kernel refuses what a Service wants.
    RefusedByKernel,
    /// A `healthCheckNodePort` cannot be had.
    FailedToStartServiceHealthcheck,
    /// The address where this node's own health is told cannot be had.
    FailedToStartProxierHealthcheck,
}

impl EventReason {
    /// Why an object is not served, or not as asked.
    pub const OF_OBJECTS: [Self; 9] = [
        Self::FrontendConflict,
        Self::InvalidAddress,
        Self::InvalidObject,
        Self::InvalidEndpoint,
        Self::TooManyEndpoints,
        Self::EndpointOutsidePodRanges,
        Self::UnknownNode,
        Self::RefusedByKernel,
        Self::FailedToStartServiceHealthcheck,
    ];

    /// As it stands in an Event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::FrontendConflict => "FrontendConflict",
            Self::InvalidAddress => "InvalidAddress",
            Self::InvalidObject => "InvalidObject",
            Self::InvalidEndpoint => "InvalidEndpoint",
            Self::TooManyEndpoints => "TooManyEndpoints",
            Self::EndpointOutsidePodRanges => "EndpointOutsidePodRanges",
            Self::UnknownNode => "UnknownNode",
            Self::RefusedByKernel => "RefusedByKernel",
            Self::FailedToStartServiceHealthcheck => "FailedToStartServiceHealthcheck",
            Self::FailedToStartProxierHealthcheck => "FailedToStartProxierHealthcheck",
        }
    }

    /// What was being done.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Starting | Self::FailedToStartProxierHealthcheck | Self::UnknownNode => {
                "StartKubeDnat"
            }
            Self::FrontendConflict => "ClaimFrontend",
            Self::InvalidAddress | Self::InvalidObject => "ReadObject",
            Self::InvalidEndpoint | Self::TooManyEndpoints | Self::EndpointOutsidePodRanges => {
                "GatherEndpoints"
            }
            Self::RefusedByKernel => "ProgramKernel",
            Self::FailedToStartServiceHealthcheck => "Listen",
        }
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn is_warning(self) -> bool {
        self != Self::Starting
    }

    /// Whether other nodes do not see the same.
    #[must_use]
    pub fn is_of_this_node(self) -> bool {
        match self {
            Self::Starting
            | Self::EndpointOutsidePodRanges
            | Self::UnknownNode
            | Self::RefusedByKernel
            | Self::FailedToStartServiceHealthcheck
            | Self::FailedToStartProxierHealthcheck => true,
            Self::FrontendConflict
            | Self::InvalidAddress
            | Self::InvalidObject
            | Self::InvalidEndpoint
            | Self::TooManyEndpoints => false,
        }
    }
}

impl From<&RejectReason> for EventReason {
    fn from(rejected: &RejectReason) -> Self {
        match rejected {
            RejectReason::Address { .. } => Self::InvalidAddress,
            RejectReason::FurtherAddresses(_) => Self::InvalidEndpoint,
            RejectReason::Port { .. }
            | RejectReason::Protocol { .. }
            | RejectReason::Name { .. }
            | RejectReason::Timestamp { .. }
            | RejectReason::NoService
            | RejectReason::Contradiction(_)
            | RejectReason::Malformed(_) => Self::InvalidObject,
        }
    }
}

impl From<&UnservedReason> for EventReason {
    fn from(not_served: &UnservedReason) -> Self {
        match not_served {
            UnservedReason::Contested { .. } => Self::FrontendConflict,
            UnservedReason::ClusterIpAsEndpoint { .. } => Self::InvalidEndpoint,
            UnservedReason::TooManyEndpoints => Self::TooManyEndpoints,
            UnservedReason::OutsidePodRanges { .. } => Self::EndpointOutsidePodRanges,
        }
    }
}
