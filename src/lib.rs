//! kube-dnat.

pub mod desired;
pub mod diff;
pub mod model;
pub mod netlink;
pub mod ruleset;
