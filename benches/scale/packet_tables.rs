//! The figures of packets as Markdown tables with their targets.

use super::tables::{Figures, number};

const STATIC_RULE: &str = "static rule";
const OURS: &str = "kube-dnat";
const KUBE_PROXY_SHAPE: &str = "kube-proxy v1.36 shape";

const SUBJECTS: [&str; 6] = [
    "no rules",
    STATIC_RULE,
    OURS,
    "kube-dnat, no counters",
    KUBE_PROXY_SHAPE,
    "kube-proxy nftables",
];

const KINDS: [&str; 3] = [
    "kube-dnat, session affinity",
    "kube-dnat, external policy Local",
    "kube-dnat, source ranges",
];

const ESTABLISHED: &str = "packet of an established connection";
const FEW: &str = "first packet, 64 Services in use";
const ALL: &str = "first packet, all Services";
const NO_SERVICE: &str = "first packet, no Service";

const CASES: [&str; 7] = [
    ESTABLISHED,
    FEW,
    ALL,
    "first packet, from the node, 64 Services in use",
    "first packet, from the node, all Services",
    NO_SERVICE,
    "TCP connection, 64 Services in use",
];

const CLUSTERS: [&str; 3] = ["1000x10", "10000x10", "50000x10"];

/// The cluster that the targets apply to.
const TARGETED: &str = "10000x10";

/// Prints the cost of each case for each subject, and the targets.
pub(crate) fn write(figures: &Figures) {
    for cluster in CLUSTERS {
        cases(figures, cluster);
    }
    targets(figures);
}

fn cases(figures: &Figures, cluster: &str) {
    let measured = |subject: &&str| figures.value(subject, cluster, FEW, "lowest_ns").is_some();
    let subjects: Vec<_> = SUBJECTS.into_iter().filter(measured).collect();
    if subjects.is_empty() {
        return;
    }
    let heads = subjects.join(" | ");
    let services = cluster.replace('x', " x ");
    println!("\n| {services}: lowest (median) | {heads} |");
    println!("|---|{}", "---|".repeat(subjects.len()));
    for what in CASES {
        let cells = subjects.iter().map(|subject| {
            let value = |name| figures.value(subject, cluster, what, name);
            let lowest = value("lowest_ns").map(number);
            let median = value("p50_ns").map(number);
            let both = lowest.zip(median);
            both.map_or(String::new(), |(lowest, median)| {
                format!("{lowest} ns ({median})")
            })
        });
        let cells: Vec<_> = cells.collect();
        println!("| {what} | {} |", cells.join(" | "));
    }
}

/// A row of the targets: the case, the cost that kube-dnat and kube-proxy's rules add, and the
/// target.
struct Row {
    what: String,
    ours: String,
    kube_proxy: String,
    target: &'static str,
    met: bool,
}

/// The cost above the static rule, in nanoseconds.
#[derive(Clone, Copy)]
struct Added {
    floor: f64,
    ours: f64,
    kube_proxy: f64,
}

impl Added {
    fn of(figures: &Figures, what: &str) -> Option<Self> {
        let lowest = |subject| figures.value(subject, TARGETED, what, "lowest_ns");
        let floor = lowest(STATIC_RULE)?;
        Some(Self {
            floor,
            ours: lowest(OURS)? - floor,
            kube_proxy: lowest(KUBE_PROXY_SHAPE)? - floor,
        })
    }

    /// Returns kube-dnat's addition relative to the static rule, in percent.
    fn percent(self) -> f64 {
        self.ours / self.floor * 100.0
    }

    /// Returns kube-dnat's addition relative to that of kube-proxy's rules, in percent.
    fn share(self) -> f64 {
        self.ours / self.kube_proxy * 100.0
    }

    fn target(self, what: &str, target: &'static str, met: bool) -> Row {
        Row {
            what: what.to_owned(),
            ours: format!("{} ns, {} %", number(self.ours), number(self.percent())),
            kube_proxy: format!("{} ns", number(self.kube_proxy)),
            target,
            met,
        }
    }
}

fn targets(figures: &Figures) {
    let rows: Vec<_> = above_static(figures)
        .into_iter()
        .chain(kinds(figures))
        .collect();
    if rows.is_empty() {
        return;
    }
    println!(
        "\n| {}: above the static rule | kube-dnat | {KUBE_PROXY_SHAPE} | target |\n|---|---|---|---|",
        TARGETED.replace('x', " x ")
    );
    for row in rows {
        let met = if row.met { "" } else { " **missed**" };
        let Row {
            what,
            ours,
            kube_proxy,
            target,
            ..
        } = row;
        println!("| {what} | {ours} | {kube_proxy} | {target}{met} |");
    }
}

fn above_static(figures: &Figures) -> Vec<Row> {
    let added = |what| Added::of(figures, what);
    let established = added(ESTABLISHED)
        .map(|added| added.target(ESTABLISHED, "less than 2 %", added.percent() < 2.0));
    let few = added(FEW).map(|added| {
        let met = added.percent() < 5.0 && added.share() <= 100.0 / 3.0;
        added.target(FEW, "less than 5 %, at most a third of kube-proxy", met)
    });
    let all = added(ALL)
        .map(|added| added.target(ALL, "at most 60 % of kube-proxy", added.share() <= 60.0));
    let no_service = added(NO_SERVICE)
        .map(|added| added.target(NO_SERVICE, "less than 60 ns", added.ours < 60.0));
    [established, few, all, no_service]
        .into_iter()
        .flatten()
        .collect()
}

/// Returns the cost of the kinds of Services above that of a `ClusterIP`.
fn kinds(figures: &Figures) -> Vec<Row> {
    let lowest = |subject| figures.value(subject, TARGETED, FEW, "lowest_ns");
    let rows = KINDS.into_iter().filter_map(|kind| {
        let above = lowest(kind)? - lowest(OURS)?;
        Some(Row {
            what: format!("{FEW}: {kind}"),
            ours: format!("{} ns above the plain case", number(above)),
            kube_proxy: String::new(),
            target: "at most 100 ns above the plain case",
            met: above <= 100.0,
        })
    });
    rows.collect()
}
