//! The scenarios of `tests/scenarios`: objects, probes and their expected outcomes. Its README
//! describes how to write one.
//!
//! Each scenario runs twice. In one run all objects exist when kube-dnat starts. In the other run
//! the objects arrive one at a time in a random order, which `SCENARIO_SEED` repeats.

mod line;
mod metrics;
mod objects;
mod probes;
mod read;
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use read::Scenario;
use run::Arrival;

/// The minimum number of probes of all scenarios together. Each line counts once for each family
/// and protocol.
const PROBES: usize = 250;

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = fs::read_dir(&root).expect("tests/scenarios");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<_> = paths.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Returns two tests of each scenario, one that counts the probes, and one that compares the
/// scenarios with the documentation.
pub(crate) fn tests() -> Vec<Trial> {
    let of_scenario = |folder: PathBuf| {
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        [
            ("fresh", Arrival::Fresh),
            ("random_order", Arrival::RandomOrder),
        ]
        .map(|(way, arrival)| {
            let folder = folder.clone();
            Trial::test(format!("scenarios::{name}::{way}"), move || {
                run::run(&Scenario::read(&folder), arrival);
                Ok(())
            })
        })
    };
    let scenarios = folders().into_iter().flat_map(of_scenario);
    let count = Trial::test("scenarios::there_are_enough_probes", || {
        let scenarios = folders();
        let count: usize = scenarios
            .iter()
            .map(|folder| Scenario::read(folder).probes())
            .sum();
        assert!(count >= PROBES, "{count} probes");
        Ok(())
    });
    let listed = Trial::test("scenarios::each_is_in_the_table_of_behaviours", || {
        let table = include_str!("../../../docs/from-kube-proxy.md");
        for folder in folders() {
            let name = folder.file_name().expect("a name").to_string_lossy();
            assert!(table.contains(&format!("`{name}`")), "{name} is not listed");
        }
        Ok(())
    });
    scenarios.chain([count, listed]).collect()
}
