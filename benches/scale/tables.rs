//! The figures as Markdown tables with their targets.

use std::fs;
use std::path::Path;

use super::fleet_tables;
use super::packet_tables;
use super::plots;
use super::report::Figure;

/// All figures of a run.
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    fn read(path: &Path) -> Self {
        let text =
            fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a figure"));
        Self(lines.collect())
    }

    /// Returns a value, if it was measured.
    pub(crate) fn value(
        &self,
        subject: &str,
        cluster: &str,
        what: &str,
        name: &str,
    ) -> Option<f64> {
        let mut figures = self.0.iter();
        let figure = figures.find(|figure| {
            (
                figure.subject.as_str(),
                figure.cluster.as_str(),
                figure.what.as_str(),
            ) == (subject, cluster, what)
        });
        figure?.values.get(name).copied()
    }

    /// Returns a value for each number of Services with ten endpoints, in order.
    pub(crate) fn by_services(&self, subject: &str, what: &str, name: &str) -> Vec<(f64, f64)> {
        let of = self
            .0
            .iter()
            .filter(|figure| figure.subject == subject && figure.what == what);
        let mut points: Vec<(f64, f64)> = of
            .filter_map(|figure| {
                let services = figure.cluster.strip_suffix("x10")?.parse().ok()?;
                Some((services, *figure.values.get(name)?))
            })
            .collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points
    }

    fn subjects(&self) -> Vec<String> {
        let mut subjects: Vec<_> = self.0.iter().map(|figure| figure.subject.clone()).collect();
        subjects.sort_unstable();
        subjects.dedup();
        subjects.retain(|subject| subject.starts_with("kube-proxy"));
        subjects
    }
}

const CLUSTERS: [&str; 4] = ["1000x10", "10000x10", "50000x10", "1x10000"];

/// A row: its title, the operation, the value, the divisor for the unit, the unit, and the targets.
///
/// The targets are in that unit, one for each of [`CLUSTERS`].
struct Row(
    &'static str,
    &'static str,
    &'static str,
    f64,
    &'static str,
    [Option<f64>; 4],
);

const NONE: Option<f64> = None;

const ROWS: [Row; 15] = [
    Row(
        "process start to everything committed, from the API",
        "process start to committed",
        "total_ms",
        1e3,
        "s",
        [NONE, Some(2.0), Some(10.0), NONE],
    ),
    Row(
        "of it encoded and in the kernel, one transaction",
        "all from nothing",
        "commit_ms",
        1e3,
        "s",
        [NONE, Some(0.6), NONE, NONE],
    ),
    Row(
        "one endpoint replaced: change seen to committed, p50",
        "one endpoint replaced",
        "p50_us",
        1.0,
        "us",
        [Some(100.0), Some(100.0), Some(150.0), Some(150.0)],
    ),
    Row(
        "the same, p99",
        "one endpoint replaced",
        "p99_us",
        1.0,
        "us",
        [NONE; 4],
    ),
    Row(
        "one endpoint added or removed, p50",
        "one endpoint added or removed",
        "p50_us",
        1.0,
        "us",
        [Some(300.0), Some(1000.0), Some(5000.0), Some(1000.0)],
    ),
    Row(
        "the same, p99",
        "one endpoint added or removed",
        "p99_us",
        1.0,
        "us",
        [NONE; 4],
    ),
    Row(
        "one endpoint added, to a count that no Service had, p50",
        "one endpoint added, to a new count",
        "p50_us",
        1.0,
        "us",
        [NONE; 4],
    ),
    Row(
        "API write to kernel commit, 20 a second, p50",
        "API write to kernel commit",
        "p50_ms",
        1.0,
        "ms",
        [NONE, Some(5.0), Some(5.0), NONE],
    ),
    Row(
        "the same, p99",
        "API write to kernel commit",
        "p99_ms",
        1.0,
        "ms",
        [NONE, Some(20.0), Some(20.0), NONE],
    ),
    Row(
        "CPU time for each of these changes",
        "API write to kernel commit",
        "cpu_ms_each",
        1.0,
        "ms",
        [NONE; 4],
    ),
    Row(
        "1,000 changed slices at once: committed",
        "1,000 slices changed at once",
        "total_ms",
        1.0,
        "ms",
        [NONE, Some(200.0), NONE, NONE],
    ),
    Row(
        "resident memory after 10,000 changes",
        "after 10,000 changes in one go",
        "resident_mb",
        1.0,
        "MB",
        [Some(25.0), Some(64.0), Some(100.0), NONE],
    ),
    Row(
        "restart with the table as it should be: ready",
        "restart with the table as it should be",
        "total_ms",
        1e3,
        "s",
        [NONE, Some(2.0), Some(3.0), NONE],
    ),
    Row(
        "the same: elements sent",
        "restart with the table as it should be",
        "operations",
        1.0,
        "",
        [NONE, Some(0.0), NONE, NONE],
    ),
    Row(
        "wake-ups a second with nothing changing",
        "nothing changes",
        "wake_ups_a_second",
        1.0,
        "",
        [NONE, Some(0.0), NONE, NONE],
    ),
];

/// Prints the tables, and draws the plots into `directory`.
pub(crate) fn write(figures: &Path, directory: &Path) {
    let figures = Figures::read(figures);
    main_table(&figures, "kube-dnat");
    for subject in figures.subjects() {
        main_table(&figures, &subject);
    }
    packet_tables::write(&figures);
    fleet_tables::write(&figures);
    upstream(&figures);
    plots::draw(&figures, directory);
}

fn main_table(figures: &Figures, subject: &str) {
    let rows = ROWS.iter().filter_map(|row| {
        let Row(title, what, name, divisor, unit, targets) = row;
        let cells = CLUSTERS.iter().zip(targets).map(|(cluster, target)| {
            let value = figures.value(subject, cluster, what, name);
            cell(
                value.map(|value| value / divisor),
                target.filter(|_| subject == "kube-dnat"),
                unit,
            )
        });
        let cells: Vec<_> = cells.collect();
        let measured = cells.iter().any(|cell| !cell.is_empty());
        measured.then(|| format!("| {title} | {} |\n", cells.join(" | ")))
    });
    let rows: String = rows.collect();
    if rows.is_empty() {
        return;
    }
    let heads = CLUSTERS.map(|cluster| cluster.replace('x', " x "));
    println!(
        "\n| {subject} | {} |\n|---|---|---|---|---|",
        heads.join(" | ")
    );
    print!("{rows}");
}

fn cell(value: Option<f64>, target: Option<f64>, unit: &str) -> String {
    let Some(value) = value else {
        return String::new();
    };
    let shown = format!("{} {unit}", number(value));
    match target {
        None => shown.trim_end().to_owned(),
        Some(target) => {
            let met = if value <= target { "" } else { " **missed**" };
            format!("{} (target {}){met}", shown.trim_end(), number(target))
        }
    }
}

/// Prints a number with three significant digits.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The clusters of issues of kubernetes/kubernetes, with the reported times of kube-proxy.
const UPSTREAM: [(&str, &str, &str, &str); 2] = [
    ("44125x1", "139513", "16 min 43 s", "over 1 min"),
    ("5006x50", "135639", "13 min 15 s", ""),
];

fn upstream(figures: &Figures) {
    let measured = |cluster| {
        let start = "process start to committed";
        figures.value("kube-dnat", cluster, start, "total_ms")
    };
    if UPSTREAM.iter().all(|row| measured(row.0).is_none()) {
        return;
    }
    println!(
        "\n| set-up of kubernetes/kubernetes issue | kube-proxy there: full, a change | kube-dnat here: full | a change, p50 |\n|---|---|---|---|"
    );
    for (cluster, issue, full, change) in UPSTREAM {
        let value = |what, name| figures.value("kube-dnat", cluster, what, name);
        let Some(total) = measured(cluster) else {
            continue;
        };
        let changed = value("API write to kernel commit", "p50_ms");
        println!(
            "| {issue}: {cluster} | {full} {change} | {} | {} |",
            cell(Some(total / 1e3), None, "s"),
            cell(changed, None, "ms"),
        );
    }
}
