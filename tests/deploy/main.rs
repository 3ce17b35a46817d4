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
mod template;
mod values;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// A path of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file of the repository.
fn text(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder of the repository and of those in it, by their names from there.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&name));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// What a program prints that not every machine has. Where it is missing that is said, once and past
/// the test harness, which keeps to itself what tests print; the test goes on without it.
fn printed_by(program: &'static str, arguments: &[&str]) -> Option<String> {
    static MISSING: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments:?}: {said}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            if MISSING.lock().unwrap().insert(program) {
                let line = format!("\nNOT CHECKED by {program}, which does not run: {error}\n");
                std::io::stderr().write_all(line.as_bytes()).unwrap();
            }
            None
        }
    }
}
