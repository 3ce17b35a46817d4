//! The reasons of Events, by which users and their alerts find them.

use crate::planner::desired::UnservedReason;
use crate::planner::model::RejectReason;

/// The reason of an Event: kube-proxy's name where kube-proxy has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventReason {
    /// The daemon starts on the Node.
    Starting,
    /// An older Service has a frontend that this one claims.
    FrontendConflict,
    /// A field holds no address, or one of the wrong family.
    InvalidAddress,
    /// An annotation of kube-dnat is invalid, or contradicts the object.
    InvalidAnnotation,
    /// Another part of the object is invalid.
    InvalidObject,
    /// An endpoint cannot be used.
    InvalidEndpoint,
    /// A Service has more endpoints than a map can number.
    TooManyEndpoints,
    /// An endpoint on this node is outside the Pod CIDRs.
    EndpointOutsidePodRanges,
    /// No Node object has the name of this node.
    UnknownNode,
    /// The kernel rejects the elements of a Service.
    RejectedByKernel,
    /// A `healthCheckNodePort` is in use.
    FailedToStartServiceHealthcheck,
    /// The address that serves the health of this node is in use.
    FailedToStartProxierHealthcheck,
}

impl EventReason {
    /// The reasons why an object is skipped or only partly programmed.
    pub const OF_OBJECTS: [Self; 10] = [
        Self::FrontendConflict,
        Self::InvalidAddress,
        Self::InvalidAnnotation,
        Self::InvalidObject,
        Self::InvalidEndpoint,
        Self::TooManyEndpoints,
        Self::EndpointOutsidePodRanges,
        Self::UnknownNode,
        Self::RejectedByKernel,
        Self::FailedToStartServiceHealthcheck,
    ];

    /// Returns the reason as an Event, a metric and the log show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::FrontendConflict => "FrontendConflict",
            Self::InvalidAddress => "InvalidAddress",
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::InvalidObject => "InvalidObject",
            Self::InvalidEndpoint => "InvalidEndpoint",
            Self::TooManyEndpoints => "TooManyEndpoints",
            Self::EndpointOutsidePodRanges => "EndpointOutsidePodRanges",
            Self::UnknownNode => "UnknownNode",
            Self::RejectedByKernel => "RejectedByKernel",
            Self::FailedToStartServiceHealthcheck => "FailedToStartServiceHealthcheck",
            Self::FailedToStartProxierHealthcheck => "FailedToStartProxierHealthcheck",
        }
    }

    /// Returns the action of the Event: what the daemon was doing.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Starting | Self::FailedToStartProxierHealthcheck | Self::UnknownNode => {
                "StartKubeDnat"
            }
            Self::FrontendConflict => "ClaimFrontend",
            Self::InvalidAddress | Self::InvalidAnnotation | Self::InvalidObject => "ReadObject",
            Self::InvalidEndpoint | Self::TooManyEndpoints | Self::EndpointOutsidePodRanges => {
                "GatherEndpoints"
            }
            Self::RejectedByKernel => "ProgramKernel",
            Self::FailedToStartServiceHealthcheck => "Listen",
        }
    }

    /// Returns whether an Event with this reason has type `Warning`.
    #[must_use]
    pub fn is_warning(self) -> bool {
        self != Self::Starting
    }

    /// Returns whether only this node sees the reason, not every node at the same moment.
    #[must_use]
    pub fn is_local(self) -> bool {
        match self {
            Self::Starting
            | Self::EndpointOutsidePodRanges
            | Self::UnknownNode
            | Self::RejectedByKernel
            | Self::FailedToStartServiceHealthcheck
            | Self::FailedToStartProxierHealthcheck => true,
            Self::FrontendConflict
            | Self::InvalidAddress
            | Self::InvalidAnnotation
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
            RejectReason::Annotation { .. } => Self::InvalidAnnotation,
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
            UnservedReason::NoEffect { .. } | UnservedReason::NoRanges { .. } => {
                Self::InvalidAnnotation
            }
            UnservedReason::TooManyEndpoints => Self::TooManyEndpoints,
            UnservedReason::OutsidePodRanges { .. } => Self::EndpointOutsidePodRanges,
        }
    }
}
