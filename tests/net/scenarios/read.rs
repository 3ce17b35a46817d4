//! The reader of a scenario's folder.

use std::fs;
use std::path::Path;

use super::line::{self, Line};
use super::metrics::Sample;
use crate::lab::Family;

/// A folder of `tests/scenarios`.
#[derive(Debug)]
pub(super) struct Scenario {
    /// The daemon's flags.
    pub(super) flags: Vec<String>,
    /// The steps in their order. Each step replaces the objects of the step before.
    pub(super) steps: Vec<Step>,
}

/// Objects, and what happens once they are programmed.
#[derive(Debug)]
pub(super) struct Step {
    /// The objects, each as one YAML document.
    pub(super) objects: Vec<String>,
    /// The commands of kube-dnat that run on the node before the probes, without its name.
    pub(super) commands: Vec<String>,
    pub(super) probes: Vec<Line>,
    /// The samples of metrics after the probes.
    pub(super) metrics: Vec<Sample>,
}

impl Scenario {
    /// Reads a folder. Panics with the line that it cannot parse.
    pub(super) fn read(folder: &Path) -> Self {
        let flags = fs::read_to_string(folder.join("flags")).unwrap_or_else(|_| {
            let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
            format!("--cluster-cidr {cidrs}")
        });
        let entries = fs::read_dir(folder).expect("a folder");
        let mut later: Vec<_> = entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_dir())
            .collect();
        later.sort();
        let steps = [folder.to_owned()].into_iter().chain(later);
        Self {
            flags: flags.split_whitespace().map(str::to_owned).collect(),
            steps: steps.map(|folder| Step::read(&folder)).collect(),
        }
    }

    /// Returns the number of probes of all steps.
    pub(super) fn probes(&self) -> usize {
        self.steps.iter().map(|step| step.probes.len()).sum()
    }
}

impl Step {
    fn read(folder: &Path) -> Self {
        let path = folder.join("objects.yaml");
        let objects =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let objects = objects
            .split("\n---\n")
            .map(|text| text.trim_start_matches("---\n"));
        let objects: Vec<_> = objects.filter(|text| !text.trim().is_empty()).collect();
        let probes: Vec<_> = lines(folder, "probes")
            .iter()
            .flat_map(|(at, line)| line::parse(line, at))
            .collect();
        assert!(!probes.is_empty(), "{} has no probe", folder.display());
        Self {
            objects: objects.into_iter().map(str::to_owned).collect(),
            commands: lines(folder, "commands")
                .into_iter()
                .map(|(_, line)| line)
                .collect(),
            probes,
            metrics: lines(folder, "metrics")
                .into_iter()
                .map(|(at, line)| Sample::parse(&line, at))
                .collect(),
        }
    }
}

/// Returns the lines of a file, each after its place in the scenario; none if there is no such file.
fn lines(folder: &Path, name: &str) -> Vec<(String, String)> {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let at = format!("{}:{}: {line}", path.display(), number + 1);
            (at, line.to_owned())
        })
        .collect()
}
