//! kube-dnat turns Kubernetes' Services into elements of a few nftables maps.
//!
//! ```text
//! API server or a directory of manifests
//!    -> watch    what was reported: a full list or an event at a time, only the fields we use
//!    -> model    typed; an invalid part of an object is rejected with a reason, alone
//!    -> desired  pure: the elements that one Service wants on this node
//!    -> diff     pure: the picture of the kernel against that -> ordered operations
//!    -> netlink  one transaction; all or nothing; a refused operation is named
//!    -> kernel   every packet, without us
//! ```
//!
//! [`sync`] turns the crank; [`ruleset`] is the shape of the tables; [`agent`] wires it all.
//! Nothing flows back but "committed" or "operation n was refused".

pub mod agent;
pub mod clock;
pub mod commands;
pub mod config;
pub mod events;
pub mod http;
pub mod kube_proxy;
pub mod logging;
pub mod metrics;
pub mod netlink;
pub mod planner;
pub mod sync;
pub mod sysctl;
pub mod watch;
