//! The Node object of this node, the machine's addresses, and the ranges of `ClusterIPs`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// The Node object of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The addresses of type `InternalIP` in `status.addresses`, then those of type `ExternalIP`.
    ///
    /// The first address of a family is the node's primary address.
    pub addresses: Vec<IpAddr>,
    /// The value of label `topology.kubernetes.io/zone`, if it is not empty.
    pub zone: Option<Arc<str>>,
    /// The ranges in `spec.podCIDRs`, of both families.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether the node is being deleted or about to be, so that health checks fail (KEP-3836).
    pub is_leaving: bool,
}

/// The addresses of this machine, as the kernel reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// The addresses of the interfaces with the default routes, at most one of each family.
    ///
    /// They are the primary addresses if there is no Node object.
    pub of_default_route: Vec<IpAddr>,
    /// All addresses of all interfaces.
    pub all: BTreeSet<IpAddr>,
}

/// The ranges of one `ServiceCIDR` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// The ranges in `spec.cidrs`, of both families.
    pub cidrs: Vec<IpNet>,
}
