//! kube-dnat.

pub mod model;
