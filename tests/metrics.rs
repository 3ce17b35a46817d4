//! The metrics in the documents, the dashboard and the alerts exist.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use kube_dnat::http::admin::{CONNECTIONS, DENIED, HIDDEN, SAMPLED};
use kube_dnat::metrics::Metrics;
use serde_json::Value;

/// The metrics that are not in [`Metrics::LISTED`].
const PROCESS: [&str; 5] = [
    "kube_dnat_build_info",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

/// Reads a file of the repository.
fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the words of a text that have a prefix of kube-dnat's metrics.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
    let prefixes = ["kubeproxy_", "kube_dnat_", "process_"];
    let names = words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
    names.map(str::to_owned).collect()
}

/// The names and help texts of all metrics except those of the process and of the build.
fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
    let metrics = Metrics::LISTED.iter().copied();
    metrics.chain([CONNECTIONS, DENIED, HIDDEN, SAMPLED])
}

/// Whether a response to a scrape can have this name.
fn exists(name: &str) -> bool {
    let suffixes = ["", "_total", "_bucket", "_count", "_sum"];
    let listed = |base: &str| listed().any(|(known, _)| known == base);
    let stripped = |suffix: &str| name.strip_suffix(suffix).is_some_and(listed);
    PROCESS.contains(&name) || suffixes.iter().any(|suffix| stripped(suffix))
}

#[test]
fn every_metric_is_documented_with_its_help() {
    let document = text("docs/metrics.md");
    for (name, help) in listed() {
        let rows = document.lines().filter(|line| line.starts_with("| `"));
        let mut of_name = rows.filter(|row| {
            row.starts_with(&format!("| `{name}`")) || row.starts_with(&format!("| `{name}_total`"))
        });
        assert!(
            of_name.any(|row| row.ends_with(&format!("| {help} |"))),
            "{name}: {help}"
        );
    }
    for name in names(&document) {
        assert!(exists(&name), "{name}");
    }
}

#[test]
fn the_dashboard_is_json_and_uses_existing_metrics() {
    let dashboard: Value =
        serde_json::from_str(&text("manifests/monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut used = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let description = panel["description"].as_str().unwrap();
        assert!(!description.is_empty(), "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            let names = names(expression);
            assert!(!names.is_empty(), "{target}");
            assert!(expression.contains("instance=~\"$instance\""), "{target}");
            used.extend(names);
        }
    }
    for name in used {
        assert!(exists(&name), "{name}");
    }
}

/// The alert rules, as a rule file of Prometheus.
const ALERTS: &str = "manifests/monitoring/alerts.yaml";

fn rules() -> Vec<Value> {
    let rules: Value = yaml_serde::from_str(&text(ALERTS)).unwrap();
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

/// Runs promtool.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("promtool (install Debian's prometheus): {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[test]
fn the_alerts_are_rules_with_existing_metrics() {
    let rules = rules();
    assert!(rules.len() > 5);
    for rule in rules {
        let names = names(rule["expr"].as_str().unwrap());
        assert!(!names.is_empty(), "{rule}");
        for name in names {
            assert!(exists(&name), "{name}");
        }
        for annotation in ["summary", "description"] {
            assert!(rule["annotations"][annotation].is_string(), "{rule}");
        }
        assert!(rule["labels"]["severity"].is_string(), "{rule}");
    }
    promtool(&["check", "rules", ALERTS]);
}

/// The anchor of a heading, as on a web page of the document.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then_some(letter),
    });
    kept.collect()
}

#[test]
fn every_alert_has_a_runbook_and_is_in_the_documents() {
    let document = text("docs/operations.md");
    let headings = document.lines().filter(|line| line.starts_with('#'));
    let anchors: BTreeSet<_> = headings.map(anchor).collect();
    for rule in rules() {
        let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
        let anchor = runbook.strip_prefix("docs/operations.md#").unwrap();
        assert!(anchors.contains(anchor), "{runbook}");
        let name = rule["alert"].as_str().unwrap();
        assert!(document.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn alerts_fire_once_a_node_and_end() {
    promtool(&["test", "rules", "tests/metrics/alerts.yaml"]);
}

/// The rules as an object of the Prometheus operator, for kustomize, which cannot put one file into another.
#[test]
fn the_prometheus_rule_has_the_alerts() {
    let rules = text(ALERTS);
    let (_, groups) = rules.split_once("\ngroups:").unwrap();
    let groups = format!("groups:{groups}");
    let path = "manifests/monitoring/prometheusrule.yaml";
    let there = text(path);
    let (head, _) = there.split_once("\nspec:\n").unwrap();
    let indented = groups.lines().map(|line| format!("  {line}\n"));
    let expected = format!("{head}\nspec:\n{}", indented.collect::<String>());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), expected).unwrap();
    } else {
        assert_eq!(
            there, expected,
            "run UPDATE_GOLDEN=1 cargo test --test metrics"
        );
    }
}
