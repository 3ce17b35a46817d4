//! Our own Node, and the ranges that `ClusterIPs` are taken from.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// What our own Node object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `status.addresses`: those of type `InternalIP` in the object's order, then those of type
    /// `ExternalIP`. The first of a family is the node's primary address in it.
    pub addresses: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`, if it is not empty.
    pub zone: Option<Arc<str>>,
    /// `spec.podCIDRs`, of either family.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether it is being deleted, or about to be: load balancers should turn away (KEP-3836).
    pub is_leaving: bool,
}

/// What the kernel says of this machine's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// Those of the interfaces with the default routes, at most one of each family: the primary
    /// ones where no Node object says which are.
    pub of_default_route: Vec<IpAddr>,
    /// Every address of every interface.
    pub all: BTreeSet<IpAddr>,
}

/// The ranges of one `ServiceCIDR` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// `spec.cidrs`, of either family.
    pub cidrs: Vec<IpNet>,
}
