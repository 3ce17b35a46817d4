//! Imports point one way: a layer may name only those before it, and the pure ones neither the
//! runtime, the API client, the kernel, a clock nor a file.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

mod source;

use std::path::Path;

use source::{Source, sources};

/// The layers, each after those it may name.
const LAYERS: [&[&str]; 25] = [
    &["revision"],
    &["logging"],
    &["clock"],
    &["duration"],
    &["yaml"],
    &["planner", "model"],
    &["planner", "ruleset"],
    &["planner", "explain"],
    &["planner", "service_list"],
    &["planner", "desired"],
    &["planner", "diff"],
    &["planner", "conntrack"],
    &["planner"],
    &["config"],
    &["sysctl"],
    &["netlink"],
    &["kube_proxy"],
    &["metrics"],
    &["events"],
    &["sync"],
    &["watch"],
    &["relay"],
    &["http"],
    &["agent"],
    &["commands"],
];

/// Layers that name each other in neither direction: both know the model.
const BESIDE: [&str; 2] = ["sync", "watch"];

/// The macro of `planner::dual`: the root of the crate exports it, as every macro.
const MACRO: [&str; 2] = ["crate", "per_family"];

/// What a pure layer does not name, or anything below it.
const IMPURE: [&[&str]; 14] = [
    &["anyhow"],
    &["crate", "clock"],
    &["kube"],
    &["nftnl"],
    &["nix"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["tokio"],
    &["tracing"],
];

/// The position in `LAYERS` of what a module's path, without `crate`, belongs to.
fn layer(module: &[String]) -> Option<usize> {
    let depth = |layer: &&[&str]| layer.len();
    let (position, _) = LAYERS
        .iter()
        .enumerate()
        .filter(|(_, layer)| starts_with(module, layer))
        .max_by_key(|(_, layer)| depth(layer))?;
    Some(position)
}

fn starts_with(path: &[String], prefix: &[&str]) -> bool {
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(one, other)| one == other)
}

/// The layers that a source names, each with the path it names it by.
fn layers_named(source: &Source) -> Vec<(usize, String)> {
    let in_crate = |path: &Vec<String>| {
        path.first().is_some_and(|first| first == "crate") && !starts_with(path, &MACRO)
    };
    let paths = source.named.iter().filter(|path| in_crate(path));
    let layers = paths.map(|path| {
        let of = layer(&path[1..]);
        let of = of.unwrap_or_else(|| panic!("{}: no layer has {path:?}", source.file.display()));
        (of, path.join("::"))
    });
    layers.collect()
}

#[test]
fn every_source_belongs_to_a_layer() {
    for source in sources() {
        let is_root = source.module.is_empty();
        let file = source.file.display();
        assert!(is_root || layer(&source.module).is_some(), "{file}");
    }
    for layer in LAYERS {
        let has = |source: &Source| starts_with(&source.module, layer);
        assert!(sources().iter().any(has), "{layer:?} has no file");
    }
}

#[test]
fn a_layer_names_only_those_before_it() {
    for source in sources() {
        let Some(own) = layer(&source.module) else {
            continue;
        };
        for (named, path) in layers_named(source) {
            let file = source.file.display();
            assert!(named <= own, "{file} names {path}, which is a later layer");
            let are_beside = [own, named].map(|layer| BESIDE.contains(&LAYERS[layer][0]));
            assert!(named == own || are_beside != [true; 2], "{file}: {path}");
        }
    }
}

#[test]
fn the_pure_layers_touch_nothing() {
    let pure = sources().iter().filter(|source| {
        starts_with(&source.module, &["planner"]) || source.module == ["kube_proxy", "leftovers"]
    });
    let mut count = 0;
    for source in pure {
        count += 1;
        for path in &source.named {
            let is_impure = IMPURE.iter().any(|impure| starts_with(path, impure));
            assert!(!is_impure, "{}: {path:?}", source.file.display());
        }
    }
    assert!(count > 40, "{count} files are pure");
}

#[test]
fn unsafe_code_is_in_one_file() {
    let files = sources().iter().filter(|source| source.is_unsafe);
    let files: Vec<_> = files.map(|source| source.file.as_path()).collect();
    assert_eq!(files, [Path::new("netlink/ffi.rs")]);
}
