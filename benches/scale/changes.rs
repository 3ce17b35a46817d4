//! Benchmarks of a sync, from the report of objects to the commit.

use std::time::Instant;

use kube_dnat::planner::model::Event;

use super::cluster::Cluster;
use super::node::{Node, in_namespace};
use super::process::{field, milliseconds};
use super::report::Report;

/// The number of measurements of each kind of change.
const REPETITIONS: u32 = 200;

/// Measures each cluster.
pub(crate) fn measure(report: &mut Report, clusters: &[Cluster]) {
    for cluster in clusters.iter().copied() {
        in_namespace(|| {
            let mut bench = Bench {
                node: Node::new(),
                cluster,
                report: &mut *report,
            };
            bench.everything();
            bench.one_by_one("one endpoint replaced", Cluster::replaced);
            bench.one_by_one(
                "one endpoint added or removed",
                |cluster, service, number| cluster.more(service, 1 - number % 2),
            );
            // Numbers of endpoints that no other Service has need new chains.
            bench.one_by_one(
                "one endpoint added, to a new count",
                |cluster, service, number| cluster.more(service, 2 + number),
            );
            bench.many_at_once();
            bench.restart();
        });
    }
}

struct Bench<'a> {
    node: Node,
    cluster: Cluster,
    report: &'a mut Report,
}

impl Bench<'_> {
    fn add<const N: usize>(&mut self, what: &str, values: [(&str, f64); N]) {
        self.report.add("kube-dnat", self.cluster, what, values);
    }

    fn everything(&mut self) {
        let started = Instant::now();
        self.node.apply(self.cluster.events());
        let applied = started.elapsed();
        let took = self.node.load();
        let values = [
            ("taken_in_ms", milliseconds(applied)),
            ("plan_ms", milliseconds(took.plan)),
            ("commit_ms", milliseconds(took.commit)),
            ("operations", f64::from(took.operations)),
            ("resident_mb", resident()),
        ];
        self.add("all from nothing", values);
    }

    /// Changes the Services one by one, and reverts each change.
    fn one_by_one(&mut self, what: &str, change: impl Fn(Cluster, u32, u32) -> Event) {
        let mut times: Vec<_> = (0..REPETITIONS)
            .map(|number| {
                let service = (number / 2) % self.cluster.services;
                let change = change(self.cluster, service, number);
                let started = Instant::now();
                self.node.apply([change]);
                self.node.update();
                started.elapsed()
            })
            .collect();
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() - 1) * percent / 100;
            times.get(index).expect("a time").as_secs_f64() * 1e6
        };
        let values = [("p50_us", at(50)), ("p99_us", at(99))];
        self.add(what, values);
    }

    fn many_at_once(&mut self) {
        let count = 1_000;
        if self.cluster.services < count {
            return;
        }
        let changes: Vec<_> = (0..count)
            .map(|service| self.cluster.replaced(service, 0))
            .collect();
        let started = Instant::now();
        self.node.apply(changes);
        self.node.update();
        let took = milliseconds(started.elapsed());
        self.add("1,000 slices changed at once", [("total_ms", took)]);
    }

    fn restart(&mut self) {
        let started = Instant::now();
        let (elements, operations, longest) = self.node.adopt();
        let values = [
            ("total_ms", milliseconds(started.elapsed())),
            ("longest_step_ms", milliseconds(longest)),
            ("elements", f64::from(elements)),
            ("operations", f64::from(operations)),
            ("resident_mb", resident()),
        ];
        self.add("read back after a restart", values);
    }
}

/// Returns the resident memory of this process in MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    field(&status, "VmRSS:") / 1e3
}
