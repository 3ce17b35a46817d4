//! Golden rulesets: `kube-dnat render` of each folder below `tests/golden`, without root.
//!
//! `nothing/table.nft` is the ruleset of an empty cluster: the whole program. Every other folder
//! holds `objects.yaml` and `difference.nft`, the commands of nft that turn the program into the
//! folder's ruleset, so that a change of the program is reviewed once. A folder can have `flags`
//! (instead of a dual-stack `--cluster-cidr`) and `warnings` (a part of each expected warning).
//! `UPDATE_GOLDEN=1 cargo test --test golden` rewrites the `.nft` files: review the diff.
//! `tests/net` loads each of them with nft and compares the kernel's whole ruleset.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FLAGS: &str = "--cluster-cidr 10.244.0.0/16,fd00:10:244::/56";

/// The folder of a cluster without Services, whose golden is the whole ruleset.
const PROGRAM: &str = "nothing";

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(root).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// Renders a folder; returns standard output and the warnings.
fn render(folder: &Path) -> (String, Vec<String>) {
    let flags = fs::read_to_string(folder.join("flags")).unwrap_or_else(|_| FLAGS.to_owned());
    let output = Command::new(env!("CARGO_BIN_EXE_kube-dnat"))
        .args(["render", "--hostname-override", "node-1", "--manifests"])
        .arg(folder)
        .args(flags.split_whitespace())
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}: {log}", folder.display());
    let warnings = log
        .lines()
        .filter(|line| line.starts_with("warning: "))
        .map(str::to_owned)
        .collect();
    (String::from_utf8(output.stdout).unwrap(), warnings)
}

/// A table as `render` prints it.
struct Table<'a> {
    /// The family and the name, such as `ip kube-dnat`.
    name: &'a str,
    comment: &'a str,
    objects: Vec<Object<'a>>,
}

/// A set, map or chain.
struct Object<'a> {
    /// The kind and the name, such as `chain pick-1`.
    title: &'a str,
    /// The declaration of a set, or the rules of a chain.
    lines: Vec<&'a str>,
    elements: Vec<&'a str>,
}

impl<'a> Table<'a> {
    fn all(ruleset: &'a str) -> Vec<Self> {
        let tables = ruleset.split_inclusive("\n}\n");
        tables.map(Self::new).collect()
    }

    fn new(text: &'a str) -> Self {
        let text = text.strip_prefix("table ").expect("a table");
        let text = text.strip_suffix("\n\t}\n}\n").expect("its end");
        let (name, text) = text.split_once(" {\n\t").expect("its name");
        let (comment, objects) = text.split_once("\n\n\t").expect("its comment");
        let objects = objects.split("\n\t}\n\n\t").map(Object::new).collect();
        Self {
            name,
            comment,
            objects,
        }
    }
}

impl<'a> Object<'a> {
    fn new(text: &'a str) -> Self {
        let (title, body) = text.split_once(" {").expect("a title");
        let body = body.trim_start_matches('\n');
        let (lines, elements) = match body.split_once("\t\telements = { ") {
            Some((lines, elements)) => {
                let elements = elements.strip_suffix(" }").expect("the end of elements");
                (lines, elements.split(",\n\t\t\t     ").collect())
            }
            None => (body, Vec::new()),
        };
        Self {
            title,
            lines: lines.lines().collect(),
            elements,
        }
    }

    fn is_chain(&self) -> bool {
        self.title.starts_with("chain ")
    }

    /// Returns the object with this title.
    fn find<'b>(objects: &'b [Self], title: &str) -> Option<&'b Self> {
        objects.iter().find(|object| object.title == title)
    }

    /// Returns the elements that `other` does not have.
    fn elements_not_of(&self, other: &Self) -> Vec<&'a str> {
        let elements = self.elements.iter().copied();
        elements
            .filter(|element| !other.elements.contains(element))
            .collect()
    }
}

/// Returns the nft commands that turn one ruleset into the other.
///
/// Panics if there are none: no setting adds, removes or moves a set, removes or moves a chain of
/// the program, or changes a set's declaration.
fn difference(program: &str, ruleset: &str) -> String {
    let (program, ruleset) = (Table::all(program), Table::all(ruleset));
    assert_eq!(program.len(), ruleset.len());
    let tables = program.iter().zip(&ruleset);
    let mut differences: Vec<_> = tables
        .map(|(from, to)| table_difference(from, to))
        .collect();
    differences.retain(|difference| !difference.is_empty());
    differences.join("\n")
}

/// Returns the nft commands for one table.
///
/// Commands that do not refer to new chains come first, the others last.
fn table_difference(from: &Table<'_>, to: &Table<'_>) -> String {
    assert_eq!((from.name, from.comment), (to.name, to.comment));
    let name = to.name;
    let mut text = String::new();
    let (common, new): (Vec<_>, Vec<_>) =
        (to.objects.iter()).partition(|object| Object::find(&from.objects, object.title).is_some());
    let order = common.iter().map(|object| object.title);
    assert!(
        order.eq(from.objects.iter().map(|object| object.title)),
        "{name}"
    );
    assert!(new.iter().all(|object| object.is_chain()), "{name}");

    let mut chains = Vec::new();
    let mut added = String::new();
    for (from, to) in from.objects.iter().zip(&common) {
        if to.is_chain() {
            if from.lines != to.lines {
                writeln!(
                    text,
                    "flush {}",
                    to.title.replace(' ', &format!(" {name} "))
                )
                .unwrap();
                chains.push(*to);
            }
            continue;
        }
        assert_eq!(from.lines, to.lines, "the declaration of {}", to.title);
        let (removals, additions) = (from.elements_not_of(to), to.elements_not_of(from));
        let kept = from.elements.len() - removals.len();
        assert_eq!(to.elements.len(), kept + additions.len(), "{}", to.title);
        let (_, set) = to.title.split_once(' ').expect("a kind and a name");
        write_elements(
            &format!("delete element {name} {set}"),
            &removals,
            &mut text,
        );
        write_elements(&format!("add element {name} {set}"), &additions, &mut added);
    }
    chains.extend(new);
    write_chains(name, &chains, &mut text);
    text + &added
}

fn write_elements(command: &str, elements: &[&str], text: &mut String) {
    match elements {
        [] => Ok(()),
        [element] => writeln!(text, "{command} {{ {element} }}"),
        elements => writeln!(text, "{command} {{\n\t{}\n}}", elements.join(",\n\t")),
    }
    .unwrap();
}

fn write_chains(table: &str, chains: &[&Object<'_>], text: &mut String) {
    if chains.is_empty() {
        return;
    }
    let chain = |chain: &&Object<'_>| {
        let rules = chain.lines.join("\n");
        format!("\t{} {{\n{rules}\n\t}}\n", chain.title)
    };
    let chains: Vec<_> = chains.iter().map(chain).collect();
    writeln!(text, "table {table} {{\n{}}}", chains.join("\n")).unwrap();
}

fn compare(golden: &Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(golden, actual).unwrap();
    }
    let expected = fs::read_to_string(golden).unwrap_or_default();
    assert_eq!(actual, expected, "{}", golden.display());
}

#[test]
fn each_behaviour_has_its_reviewed_ruleset() {
    let folders = folders();
    assert!(folders.len() >= 15, "the goldens are missing: {folders:?}");
    let (programs, others): (Vec<_>, Vec<_>) =
        folders.iter().partition(|folder| folder.ends_with(PROGRAM));
    let [folder] = programs[..] else {
        panic!("the folder {PROGRAM} is missing");
    };
    let (program, _) = render(folder);
    compare(&folder.join("table.nft"), &program);
    for folder in others {
        let (ruleset, _) = render(folder);
        let golden = folder.join("difference.nft");
        assert!(golden.exists() || std::env::var_os("UPDATE_GOLDEN").is_some());
        compare(&golden, &difference(&program, &ruleset));
    }
}

#[test]
fn each_rejected_part_is_logged_once_and_nothing_else() {
    for folder in folders() {
        let (_, mut warnings) = render(&folder);
        let expected = fs::read_to_string(folder.join("warnings")).unwrap_or_default();
        for part in expected.lines() {
            let position = warnings
                .iter()
                .position(|warning| warning.contains(part))
                .unwrap_or_else(|| panic!("{}: no \"{part}\" in {warnings:#?}", folder.display()));
            warnings.remove(position);
        }
        assert!(warnings.is_empty(), "{}: {warnings:#?}", folder.display());
    }
}
