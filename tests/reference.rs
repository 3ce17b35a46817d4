//! docs/commands.md is what `--help` of every command says, and the documents link to what is there.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kube_dnat::planner::ruleset::{
    Chain, ChainName, ElementType, KeyField, Program, SETS, SetName, SetRow, program, set,
};

use clap::{Command, CommandFactory as _};
use kube_dnat::commands::CommandLine;

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// The help of a command as `--help` prints it on a terminal of 100 columns.
fn help(command: &mut Command) -> String {
    let text = command.render_long_help().to_string();
    let lines = text.lines().map(str::trim_end);
    lines.collect::<Vec<_>>().join("\n")
}

fn reference() -> String {
    let mut text = "# Commands and flags\n\n\
        What `--help` says of each, made by `UPDATE_GOLDEN=1 cargo test --test reference`. What the fields of\n\
        the configuration file and kube-proxy's flags mean here is in [configuration.md](configuration.md).\n"
        .to_owned();
    let mut program = CommandLine::command().term_width(100);
    program.build();
    let mut commands: Vec<_> = program.get_subcommands().cloned().collect();
    commands.retain(|command| command.get_name() != "help");
    write!(
        text,
        "\n## kube-dnat\n\n```text\n{}\n```\n",
        help(&mut program)
    )
    .unwrap();
    for mut command in commands {
        let name = command.get_name().to_owned();
        // Its flags are those above.
        let help = if name == "run" {
            let about = command.get_about().unwrap();
            format!("{about}.\n\nThe flags are those of kube-dnat without a command.")
        } else {
            help(&mut command)
        };
        write!(text, "\n## kube-dnat {name}\n\n```text\n{help}\n```\n").unwrap();
    }
    text
}

#[test]
fn the_reference_is_what_help_says() {
    let path = root().join("docs/commands.md");
    let expected = reference();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written == expected,
        "docs/commands.md is not what --help says: UPDATE_GOLDEN=1 cargo test --test reference"
    );
    for word in [
        "--takeover",
        "--config",
        "explain",
        "Exit codes:",
        "--kube-proxy",
    ] {
        assert!(expected.contains(word), "{word}");
    }
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            documents(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "md") {
            found.push(path);
        }
    }
}

/// The anchor that a heading has on GitHub and on most others.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = |letter: char| letter.is_alphanumeric() || " -_".contains(letter);
    text.chars()
        .filter(|letter| kept(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut found = Vec::new();
    documents(&root(), &mut found);
    assert!(found.len() > 10, "{found:?}");
    let mut wrong = Vec::new();
    let mut count = 0;
    for document in found {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1) {
            let Some((target, _)) = link.split_once(')') else {
                continue;
            };
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            count += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(file)
            };
            let there = path.exists();
            let heading_there = heading.is_empty()
                || fs::read_to_string(&path).is_ok_and(|text| {
                    let mut headings = text.lines().filter(|line| line.starts_with('#'));
                    headings.any(|line| anchor(line) == heading)
                });
            if !there || !heading_there {
                wrong.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(count > 50, "{count}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A row of the document's table of sets, from the row of the code.
fn row_of_sets(row: &SetRow) -> String {
    let names: Vec<_> = row
        .names
        .iter()
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    let set = set(row.names[0].0);
    let typed = row.key.contains(&KeyField::Slot);
    let fields = row.key.iter().map(|field| match (field, typed) {
        (KeyField::Protocol, true) => "meta l4proto",
        (KeyField::Address, true) => "ip daddr",
        (KeyField::Port, true) => "th dport",
        (KeyField::Protocol, false) => "inet_proto",
        (KeyField::Address | KeyField::Net, _) => "ipv4_addr",
        (KeyField::Port, false) => "inet_service",
        (KeyField::Slot, _) => "numgen random mod 65536",
        (KeyField::Direction, _) => "ct_dir",
    });
    let mut key = format!("`{}`", fields.collect::<Vec<_>>().join(" . "));
    if set.is_interval() {
        key += ", interval";
    }
    if let Some(size) = row.dynamic {
        key = format!("{key}, at most {size}");
    }
    let value = match (row.data, typed) {
        (ElementType::Nothing, _) => " ",
        (ElementType::Verdict, _) => " `verdict` ",
        (ElementType::Endpoint, false) => " `ipv4_addr . inet_service` ",
        (ElementType::Endpoint, true) => " `ip daddr . th dport` ",
    };
    format!("| {} | {key} |{value}| {} |", names.join(", "), row.meaning)
}

#[test]
fn the_document_of_the_ruleset_has_the_sets_as_they_are_declared() {
    let text = fs::read_to_string(root().join("docs/ruleset.md")).unwrap();
    let head = "| name | key | value | an element says |";
    let lines = text.lines().skip_while(|line| *line != head).skip(2);
    let found: Vec<_> = lines.take_while(|line| line.starts_with('|')).collect();
    let declared: Vec<_> = SETS.iter().map(row_of_sets).collect();
    assert_eq!(found, declared);
}

/// The rows of all tables of a document, by their first cell.
fn rows(document: &str) -> Vec<(&str, Vec<&str>)> {
    let rows = document
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.map(|row| row.split(" | ").map(str::trim));
    rows.filter_map(|mut cells| Some((cells.next()?, cells.collect())))
        .collect()
}

#[test]
fn every_figure_of_the_readme_is_one_of_the_latest_run() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (readme, performance) = (read("README.md"), read("docs/performance.md"));
    let table = readme.split("\n\n").find(|part| {
        let head = part.lines().next().unwrap_or_default();
        head.starts_with("| ") && head.contains("kube-proxy")
    });
    let (figures, measured) = (rows(table.unwrap()), rows(&performance));
    assert!(figures.len() > 5);
    for (what, cells) in figures.iter().skip(1) {
        for cell in cells {
            // With a target or a median after it.
            let is_cell = |other: &&str| other.split(" (").next() == Some(cell);
            let of_row = |row: &&(&str, Vec<&str>)| row.0 == *what && row.1.iter().any(is_cell);
            assert!(
                measured.iter().find(of_row).is_some(),
                "docs/performance.md has no {cell} for {what}"
            );
        }
    }
}

#[test]
fn the_documents_count_the_chains_and_sets_that_there_are() {
    let chains = program(&Program::default());
    let is_balance = |chain: &&Chain| matches!(chain.name, ChainName::OnDemand(_));
    let balance = chains.iter().filter(is_balance).count();
    let sets = SetName::all().count();
    let fixed = chains.len() - balance;
    let counts = format!("{fixed} chains, {balance} balance chains and {sets} sets and maps");
    for name in ["CHANGELOG.md", "docs/architecture.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let words: Vec<_> = text.split_whitespace().collect();
        assert!(words.join(" ").contains(&counts), "{name}: {counts}");
    }
}
