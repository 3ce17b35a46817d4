//! Our own Node, and the ranges that `ClusterIPs` are taken from.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// What our own Node object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `status.addresses` of type `InternalIP`, in the object's order.
    pub internal_ips: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`, if it is not empty.
    pub zone: Option<Arc<str>>,
    /// `spec.podCIDRs`, of either family.
    pub pod_cidrs: Vec<IpNet>,
}

/// The ranges of one `ServiceCIDR` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// `spec.cidrs`, of either family.
    pub cidrs: Vec<IpNet>,
}
