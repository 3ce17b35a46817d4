//! The removal of kube-proxy's rules when kube-dnat takes over a node.
//!
//! [`leftovers`] selects kube-proxy's part of a ruleset, purely; [`takeover`] removes it.

mod follow;
mod foreign;
mod ip_sets;
mod ipvs;
pub mod leftovers;
pub mod takeover;

pub use follow::{TakeoverProgress, take_over};
pub use ip_sets::IpSetError;
pub use ipvs::virtual_servers;
