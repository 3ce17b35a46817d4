//! What kube-proxy leaves on a node, and how it is removed when kube-dnat takes over.
//!
//! [`leftovers`] decides, purely, what of a ruleset is kube-proxy's; [`takeover`] removes it.

mod follow;
mod foreign;
mod ip_sets;
mod ipvs;
pub mod leftovers;
pub mod takeover;

pub use follow::remove_and_tell;
pub use ip_sets::IpSetError;
pub use ipvs::{flush_ipvs, virtual_servers};
