//! Golden rulesets: `kube-dnat render` of each folder below `tests/golden`, without root.
//!
//! A folder holds `objects.yaml` and `table.nft`: the sets and chains that differ from those of an
//! empty cluster, which `nothing` has whole, so that a change of the program is read once. If need be `flags` (instead of a dual-stack
//! `--cluster-cidr`) and `said` (a part of each warning that must be given; no other may be).
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes `table.nft` anew: read the difference.
//! `tests/net` loads each of them with nft.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FLAGS: &str = "--cluster-cidr 10.244.0.0/16,fd00:10:244::/56";

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(root).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// Standard output and the warnings.
fn render(folder: &Path) -> (String, Vec<String>) {
    let flags = fs::read_to_string(folder.join("flags")).unwrap_or_else(|_| FLAGS.to_owned());
    let output = Command::new(env!("CARGO_BIN_EXE_kube-dnat"))
        .args(["render", "--hostname-override", "node-1", "--manifests"])
        .arg(folder)
        .args(flags.split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}: {said}", folder.display());
    let warnings = said.lines().filter(|line| line.contains("WARN"));
    let warnings = warnings.map(str::to_owned).collect();
    (String::from_utf8(output.stdout).unwrap(), warnings)
}

/// The folder whose golden is the whole ruleset: of a cluster without Services.
const WHOLE: &str = "nothing";

/// The sets and chains of a ruleset that are not in `whole`.
fn different(table: &str, whole: &str) -> String {
    let known: std::collections::BTreeSet<_> = whole.split("\n\n").collect();
    let blocks = table.split("\n\n").filter(|block| !known.contains(block));
    blocks.collect::<Vec<_>>().join("\n\n")
}

#[test]
fn each_behaviour_has_the_ruleset_that_was_reviewed() {
    let folders = folders();
    assert!(folders.len() >= 15, "the goldens are missing: {folders:?}");
    let (whole, _) = render(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(WHOLE),
    );
    for folder in folders {
        let (mut table, _) = render(&folder);
        if !folder.ends_with(WHOLE) {
            table = different(&table, &whole);
        }
        let golden = folder.join("table.nft");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &table).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(table, expected, "{}", folder.display());
    }
}

#[test]
fn what_is_left_out_is_said_once_and_nothing_else_is() {
    for folder in folders() {
        let (_, mut warnings) = render(&folder);
        let said = fs::read_to_string(folder.join("said")).unwrap_or_default();
        for part in said.lines() {
            let position = warnings.iter().position(|warning| warning.contains(part));
            let position = position
                .unwrap_or_else(|| panic!("{}: no \"{part}\" in {warnings:#?}", folder.display()));
            warnings.remove(position);
        }
        assert!(warnings.is_empty(), "{}: {warnings:#?}", folder.display());
    }
}
