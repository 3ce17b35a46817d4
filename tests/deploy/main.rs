//! What `manifests/deploy`, the chart and the Dockerfile say is valid, agrees with each other, and
//! fits the program.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

mod chart;
mod image;
mod kustomize;
mod objects;
mod pods;
mod rbac;
mod schema;
mod tools;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

/// A path of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file of the repository.
fn text(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
