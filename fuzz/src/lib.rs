//! What the fuzz targets share: small random clusters, and the invariants of a sync.
//!
//! docs/fuzzing.md describes the targets, and `scripts/fuzz.sh` runs them.

mod answers;
mod cluster;
mod objects;
/// The steps of a read-back, which the tests of the planner have.
#[path = "../../tests/planner/reading.rs"]
mod reading;
mod world;

pub use answers::Answers;
pub use cluster::Cluster;
pub use objects::{decoded, decoded_alike};
pub use world::{facts, sync};

/// The name of the node whose tables the targets plan.
pub const NODE: &str = "node-1";
