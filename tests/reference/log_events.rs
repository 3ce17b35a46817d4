//! Every log line of the daemon has an event, and docs/operations.md lists the events.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use kube_dnat::logging::LogEvent;
use syn::Macro;
use syn::visit::{self, Visit};

use super::root;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The log lines of one source file: the level of each, and the variant of `LogEvent` it names.
#[derive(Default)]
struct LogLines(Vec<(&'static str, Option<String>)>);

impl<'ast> Visit<'ast> for LogLines {
    fn visit_macro(&mut self, item: &'ast Macro) {
        let name = item.path.segments.last().unwrap().ident.to_string();
        if let Some(level) = LEVELS.into_iter().find(|level| *level == name) {
            let text = item.tokens.to_string();
            let event = text.split_once("event = % LogEvent :: ");
            let event = event.and_then(|(_, after)| after.split_whitespace().next());
            self.0.push((level, event.map(str::to_owned)));
        }
        visit::visit_macro(self, item);
    }
}

fn log_lines(folder: &Path, found: &mut BTreeMap<String, Vec<(&'static str, Option<String>)>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            log_lines(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let parsed = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
            let mut lines = LogLines::default();
            lines.visit_file(&parsed);
            found.insert(path.to_str().unwrap().to_owned(), lines.0);
        }
    }
}

/// Each row of the table of events: the name and the levels.
fn documented() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let head = "| event | level | when | what to do |";
    let lines = text.lines().skip_while(|line| *line != head).skip(2);
    let rows = lines.map_while(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.map(|row| {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 4, "{row}");
        let levels = cells[1].split(", ").map(str::to_owned).collect();
        (cells[0].trim_end_matches('`').to_owned(), levels)
    })
    .collect()
}

#[test]
fn the_document_lists_the_events_of_the_log_with_their_levels() {
    let mut found = BTreeMap::new();
    log_lines(&root().join("src"), &mut found);
    let mut levels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (level, event) in found.into_values().flatten() {
        if let Some(event) = event {
            levels.entry(event).or_default().insert(level.to_owned());
        }
    }
    let logged = LogEvent::ALL.iter().map(|event| {
        let variant = format!("{event:?}");
        let levels = levels.remove(&variant);
        let levels = levels.unwrap_or_else(|| panic!("no line logs {variant}"));
        (event.name().to_owned(), levels)
    });
    assert_eq!(documented(), logged.collect::<Vec<_>>());
    assert_eq!(levels, BTreeMap::new(), "events that do not exist");
}

/// What commands print for their user is no log of the daemon, nor is the error of a process that exits.
#[test]
fn every_line_that_an_operator_reads_has_an_event() {
    let mut found = BTreeMap::new();
    log_lines(&root().join("src"), &mut found);
    let commands = ["src/commands", "src/main.rs"].map(|path| root().join(path));
    let is_command = |file: &str| {
        commands
            .iter()
            .any(|path| Path::new(file).starts_with(path))
    };
    let daemon = found.iter().filter(|(file, _)| !is_command(file));
    let mut count = 0;
    for (file, lines) in daemon {
        for (level, event) in lines {
            let is_shown = ["error", "warn", "info"].contains(level);
            assert!(
                event.is_some() || !is_shown,
                "{file}: {level}! without an event"
            );
            count += 1;
        }
    }
    assert!(count > 60, "{count} lines");
}

#[test]
fn the_name_of_an_event_is_its_variant_in_snake_case() {
    for event in LogEvent::ALL {
        let mut name = String::new();
        for letter in format!("{event:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_lowercase());
        }
        assert_eq!(event.name(), name);
    }
}
