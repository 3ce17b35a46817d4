//! From Kubernetes' objects to nftables operations: the pure half of the program.
//!
//! Values in, values out: nothing in this folder reads a clock, a file or a socket, waits, or logs.
//! `tests/layers` holds it to that.
//!
//! - [`model`] is what an object means to the rules;
//! - [`ruleset`] is the shape of the tables;
//! - [`desired`] is the elements that one Service wants on this node;
//! - [`diff`] is the operations between what the kernel holds and what it should hold;
//! - [`conntrack`] is which connection-tracking entries a change makes stale;
//! - [`dual`] holds a value of each IP family;
//! - [`explain`] is what the rules do with one packet.

pub mod conntrack;
pub mod desired;
pub mod diff;
pub mod dual;
pub mod explain;
pub mod model;
pub mod ruleset;
