//! What it costs to program changes, and everything: from what was reported to what is committed.

use std::time::Instant;

use kube_dnat::planner::model::Event;

use super::cluster::Cluster;
use super::node::{Node, in_namespace};
use super::process::{field, milliseconds};
use super::report::Report;

/// How often each kind of change is measured.
const TIMES: u32 = 200;

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
            bench.one_by_one("one endpoint added or removed", |cluster, service, turn| {
                cluster.more(service, 1 - turn % 2)
            });
            // Counts that no other Service has: chains that are not there yet.
            bench.one_by_one(
                "one endpoint added, to a new count",
                |cluster, service, turn| cluster.more(service, 2 + turn),
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
        self.node.take_in(self.cluster.events());
        let taken_in = started.elapsed();
        let took = self.node.load();
        let values = [
            ("taken_in_ms", milliseconds(taken_in)),
            ("plan_ms", milliseconds(took.plan)),
            ("commit_ms", milliseconds(took.commit)),
            ("operations", f64::from(took.operations)),
            ("resident_mb", resident()),
        ];
        self.add("all from nothing", values);
    }

    /// Changes one Service after the other, each twice: there and back.
    fn one_by_one(&mut self, what: &str, change: impl Fn(Cluster, u32, u32) -> Event) {
        let mut times: Vec<_> = (0..TIMES)
            .map(|turn| {
                let service = (turn / 2) % self.cluster.services;
                let change = change(self.cluster, service, turn);
                let started = Instant::now();
                self.node.take_in([change]);
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
        let changes = (0..count).map(|service| self.cluster.replaced(service, 0));
        let changes: Vec<_> = changes.collect();
        let started = Instant::now();
        self.node.take_in(changes);
        self.node.update();
        let took = milliseconds(started.elapsed());
        self.add("1,000 slices changed at once", [("total_ms", took)]);
    }

    fn restart(&mut self) {
        let started = Instant::now();
        let (elements, operations) = self.node.adopt();
        let values = [
            ("total_ms", milliseconds(started.elapsed())),
            ("elements", f64::from(elements)),
            ("operations", f64::from(operations)),
            ("resident_mb", resident()),
        ];
        self.add("read back after a restart", values);
    }
}

/// The resident memory of this process, in MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    field(&status, "VmRSS:") / 1e3
}
