//! Kubernetes' objects in our own types: what a Service, an `EndpointSlice`, a Node and a
//! `ServiceCIDR` mean to the rules, and nothing else of them.

use std::fmt;
use std::sync::Arc;

pub mod addr;
mod endpoint;
mod node;
pub mod parse;
mod rejected;
mod service;
mod store;
pub mod wire;

pub use addr::Address;
pub use endpoint::{Endpoint, EndpointSlice, Hints, SliceEndpoints, SlicePort};
pub use node::{Node, OwnAddresses, ServiceCidr};
pub use rejected::RejectReason;
pub use service::{Protocol, Service, ServicePort, TrafficPolicy};
pub use store::{Store, StoreChange};

/// The full name of a Service: `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The name of `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The name that stands in the key of a namespaced object, `namespace/name`.
    #[must_use]
    pub fn of(key: &Arc<str>) -> Self {
        Self(Arc::clone(key))
    }

    /// `namespace/name`.
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

/// The kinds of object that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` `EndpointSlice`.
    EndpointSlice,
    /// `v1` Endpoints, the old form of hand-made endpoints.
    Endpoints,
    /// `v1` Node; only our own counts.
    Node,
    /// `networking.k8s.io/v1` `ServiceCIDR`.
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

/// Which object: its kind, and `namespace/name` (or `name` for a cluster-wide kind).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The kind of the object.
    pub kind: ObjectKind,
    /// `namespace/name`, or `name` for a cluster-wide kind.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The Service of that name.
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

/// What an object says once it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service that has frontends.
    Service(Arc<Service>),
    /// Endpoints of one Service, of one or (for [`ObjectKind::Endpoints`]) of both families.
    Slices(Vec<EndpointSlice>),
    /// Our own Node.
    Node(Node),
    /// Address ranges of `ClusterIPs`.
    ServiceCidr(ServiceCidr),
}

/// The latest word on one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Which object.
    pub key: ObjectKey,
    /// What it says; `None` when it is gone or is not for us (headless, `ExternalName`, another
    /// proxy's, wholly invalid).
    pub object: Option<Object>,
    /// The parts of it that are left out, and why.
    pub rejected: Vec<RejectReason>,
    /// When what it says was brought about, in milliseconds since 1970: of a slice that says so
    /// (`endpoints.kubernetes.io/last-change-trigger-time`).
    pub triggered: Option<i64>,
}

/// What a source of objects reports: events that happened at once take effect together.
pub type Events = Vec<Event>;

/// One thing that a source of objects reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object appeared, changed or went.
    Update(Update),
    /// Every object of this kind that exists has been reported at least once.
    Listed(ObjectKind),
    /// A source had to begin anew with this kind: for a moment nothing was heard of it.
    Interrupted(ObjectKind),
    /// The addresses of this machine are now these.
    OwnAddresses(OwnAddresses),
}
