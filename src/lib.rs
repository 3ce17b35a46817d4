//! kube-dnat.

pub mod desired;
pub mod diff;
pub mod model;
pub mod ruleset;
