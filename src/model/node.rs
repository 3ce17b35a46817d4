//! Our own Node, and the ranges that `ClusterIPs` are taken from.

use std::net::IpAddr;

use ipnet::IpNet;

/// What our own Node object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `status.addresses` of type `InternalIP`, in the object's order.
    pub internal_ips: Vec<IpAddr>,
}

/// The ranges of one `ServiceCIDR` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// `spec.cidrs`, of either family.
    pub cidrs: Vec<IpNet>,
}
