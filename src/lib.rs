//! kube-dnat turns Kubernetes' Services into elements of a few nftables maps.
//!
//! ```text
//! API server or a directory of manifests
//!    -> watch              full lists and events, only the fields in use
//!    -> planner::model     typed; an invalid part of an object is rejected with a reason, alone
//!    -> planner::desired   the elements that one Service wants on this node
//!    -> planner::diff      the operations between what is applied and what is desired
//!    -> netlink            one transaction; all or nothing; a rejected operation is named
//!    -> kernel             every packet, without us
//! ```
//!
//! [`sync`] drives the path; [`planner::ruleset`] is the shape of the tables; [`agent`] starts all
//! parts. Nothing flows back but "committed" or "operation n was rejected".

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
mod yaml;
