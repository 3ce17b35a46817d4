//! From Kubernetes objects to nftables operations: the pure half of the program.
//!
//! Nothing in this folder reads a clock, a file or a socket, waits, or logs; `tests/layers` checks
//! it.
//!
//! - [`model`] has the parts of objects that the rules depend on;
//! - [`ruleset`] has the layout of the tables;
//! - [`desired`] derives the elements of one Service, and of the node;
//! - [`diff`] derives the operations from the applied state to the desired one;
//! - [`conntrack`] finds the conntrack entries that a change makes stale;
//! - [`dual`] holds a value of each IP family;
//! - [`explain`] evaluates the rules for one packet;
//! - [`service_list`] makes a row of each frontend in a table.

pub mod conntrack;
pub mod desired;
pub mod diff;
pub mod dual;
pub mod explain;
pub mod model;
pub mod ruleset;
pub mod service_list;
