//! Properties of the planner: whatever happens in whatever order, the kernel ends up with just
//! what a fresh start would program, through operations that are valid at each step.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

mod affinity;
mod cost;
mod left_out;
mod outcomes;
mod properties;
mod specification;
mod stale_entries;
mod world;
