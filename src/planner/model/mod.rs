//! The parts of Kubernetes objects that the rules depend on.

use std::fmt;
use std::sync::Arc;

pub mod addr;
mod endpoint;
mod features;
mod node;
pub mod parse;
mod port_range;
mod rejected;
mod service;
mod shared;
mod slow_start;
mod store;
pub mod wire;

pub use addr::Address;
pub use endpoint::{
    Endpoint, EndpointSlice, Hints, Placement, SliceEndpoints, SlicePort, Topology,
};
pub use features::{Balance, ServiceFeatures, WeightTarget, Weights};
pub use node::{Node, OwnAddresses, ServiceCidr};
pub use port_range::{OverlappingRanges, PortRange, PortRanges};
pub use rejected::RejectReason;
pub use service::{NoLocalEndpoint, Protocol, Service, ServicePort, TrafficPolicy};
pub use slow_start::NewEndpoints;
pub use store::{Store, StoreChange};

/// The namespace and name of a Service, as `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Joins a namespace and a name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// Returns the name from the key of a Service, which is `namespace/name`, too.
    #[must_use]
    pub fn from_key(key: &Arc<str>) -> Self {
        Self(Arc::clone(key))
    }

    /// Returns the name as `namespace/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kinds of objects that kube-dnat watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A Service of API version `v1`.
    Service,
    /// An `EndpointSlice` of API version `discovery.k8s.io/v1`.
    EndpointSlice,
    /// Endpoints of API version `v1`, the old form of manually created endpoints.
    Endpoints,
    /// A Node of API version `v1`; only this node's is used.
    Node,
    /// A `ServiceCIDR` of API version `networking.k8s.io/v1`.
    ServiceCidr,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Endpoints,
        Self::Node,
        Self::ServiceCidr,
    ];
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        })
    }
}

/// The kind and name of an object, which identify it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The kind of the object.
    pub kind: ObjectKind,
    /// The name, as `namespace/name` or, for a cluster-scoped kind, `name`.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// Returns the key of a Service.
    #[must_use]
    pub fn service(name: &ServiceName) -> Self {
        Self {
            kind: ObjectKind::Service,
            name: Arc::clone(&name.0),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A parsed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service with frontends.
    Service(Arc<Service>),
    /// The endpoints of one Service; [`ObjectKind::Endpoints`] may have both families.
    Slices(Box<[EndpointSlice]>),
    /// The Node object of this node.
    Node(Node),
    /// The address ranges of `ClusterIPs`.
    ServiceCidr(ServiceCidr),
}

/// The latest state of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The object's kind and name.
    pub key: ObjectKey,
    /// The parsed object; `None` if it is deleted or ignored.
    ///
    /// Headless and `ExternalName` Services, those of other proxies and invalid objects are
    /// ignored.
    pub object: Option<Object>,
    /// The reasons why parts of the object are rejected.
    pub rejected: Vec<RejectReason>,
    /// The time of the change that caused this state, in milliseconds since 1970.
    ///
    /// It is the slice's annotation `endpoints.kubernetes.io/last-change-trigger-time`.
    pub triggered: Option<i64>,
}

/// Events that a source of objects reports together, and that take effect together.
pub type Events = Vec<Event>;

/// The reason why a source lost its watch on a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterruptReason {
    /// The connection could not be opened, or it closed.
    Closed,
    /// The API server answered with an error.
    Rejected,
    /// The answer could not be decoded.
    Malformed,
    /// The API server did not answer in time.
    Silent,
    /// The list was older than what was seen before.
    Older,
}

impl InterruptReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::Closed,
        Self::Rejected,
        Self::Malformed,
        Self::Silent,
        Self::Older,
    ];

    /// Returns the name, for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Rejected => "rejected",
            Self::Malformed => "malformed",
            Self::Silent => "silent",
            Self::Older => "older",
        }
    }
}

/// An event from a source of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object was added, changed or deleted.
    Update(Update),
    /// All existing objects of this kind have been reported.
    Listed(ObjectKind),
    /// A source lost its watch on this kind and lists it again.
    Interrupted(ObjectKind, InterruptReason),
    /// No Node has the name of this node; the Nodes with the most similar names.
    NodeMissing(Vec<String>),
    /// The addresses of this machine have changed.
    OwnAddresses(OwnAddresses),
}
