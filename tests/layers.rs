//! Imports point one way: a layer may name only those before it, and the pure ones neither the
//! runtime, the API client, the kernel, a clock nor a file.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, each after those it may name. `logging` is below them all and names none.
const LAYERS: [&str; 19] = [
    "logging",
    "model",
    "ruleset",
    "explain",
    "desired",
    "config",
    "sysctl",
    "diff",
    "conntrack",
    "leftovers",
    "netlink",
    "takeover",
    "metrics",
    "events",
    "health",
    "sync",
    "watch",
    "admin",
    "agent",
];

/// Layers that are pure.
const PURE: [&str; 7] = [
    "model",
    "ruleset",
    "explain",
    "desired",
    "diff",
    "conntrack",
    "leftovers",
];

const IMPURE: [&str; 11] = [
    "tokio::",
    "kube::",
    "mnl::",
    "nftnl::",
    "nix::",
    "std::fs",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "tracing::",
];

fn files(of: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// The lines of a layer that are code: without comments, and without its tests.
fn code(layer: &str) -> Vec<(PathBuf, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folder = source.join(layer);
    let files = if folder.is_dir() {
        files(&folder)
    } else {
        vec![source.join(format!("{layer}.rs"))]
    };
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        lines.extend(code.map(|line| (file.clone(), line.to_owned())));
    }
    assert!(lines.len() > 20, "{layer} has no code");
    lines
}

#[test]
fn a_layer_names_only_those_before_it() {
    for (position, layer) in LAYERS.iter().enumerate() {
        for (file, line) in code(layer) {
            // `sync` and `watch` stand beside each other: both know the model, neither the other.
            let beside = ["sync", "watch"].contains(layer);
            let later = LAYERS.iter().skip(position + 1);
            let forbidden =
                later.chain(LAYERS.iter().filter(|other| {
                    beside && ["sync", "watch"].contains(other) && *other != layer
                }));
            for other in forbidden {
                let named = line.contains(&format!("crate::{other}"));
                assert!(!named, "{}: {layer} names {other}: {line}", file.display());
            }
        }
    }
}

#[test]
fn the_pure_layers_touch_nothing() {
    for layer in PURE {
        for (file, line) in code(layer) {
            for word in IMPURE {
                assert!(!line.contains(word), "{}: {word}: {line}", file.display());
            }
        }
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    for layer in LAYERS {
        for (file, line) in code(layer) {
            let allowed = file.ends_with("netlink/ffi.rs");
            let word = line.split_whitespace().any(|word| word == "unsafe");
            assert!(allowed || !word, "{}: {line}", file.display());
        }
    }
}
