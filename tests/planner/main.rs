//! Properties of the planner for any sequence of events.
//!
//! The kernel has the ruleset of a fresh start in the end, and every operation on the way is valid.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

mod affinity;
mod balance;
mod close_removed;
mod cost;
mod memory;
mod outcomes;
mod port_ranges;
mod properties;
mod read_back;
mod reading;
mod skipped;
mod specification;
mod stale_entries;
mod world;
