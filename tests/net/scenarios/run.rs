//! The run of a scenario with real packets.

use std::collections::BTreeSet;
use std::time::Duration;

use super::objects::{APART, Order, write};
use super::read::{Scenario, Step};
use super::{metrics, probes};
use crate::lab::{Cluster, Daemon, Manifests};

/// The way in which the objects of the first step arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// All objects exist when kube-dnat starts.
    Fresh,
    /// The objects arrive one at a time.
    RandomOrder,
}

/// Runs a scenario. Panics with every line whose outcome is wrong.
pub(super) fn run(scenario: &Scenario, arrival: Arrival) {
    let cluster = Cluster::new();
    let _servers = probes::servers(&cluster, scenario);
    let manifests = Manifests::new();
    let mut order = Order::new();
    let [first, later @ ..] = &scenario.steps[..] else {
        unreachable!("a scenario has a step")
    };
    let flags: Vec<_> = scenario.flags.iter().map(String::as_str).collect();
    let mut written = BTreeSet::new();
    if arrival == Arrival::Fresh {
        write(
            &manifests,
            first,
            &mut written,
            |objects| objects,
            Duration::ZERO,
        );
    }
    let daemon = Daemon::start_with(&cluster, &manifests, &flags);
    if arrival == Arrival::RandomOrder {
        write(
            &manifests,
            first,
            &mut written,
            |objects| order.shuffle(objects),
            APART,
        );
        daemon.await_programmed();
    }
    let mut wrong = after_commit(&cluster, first);
    for step in later {
        write(
            &manifests,
            step,
            &mut written,
            |objects| order.shuffle(objects),
            APART,
        );
        daemon.await_programmed();
        wrong.extend(after_commit(&cluster, step));
    }
    let seed = order.seed;
    assert!(
        wrong.is_empty(),
        "SCENARIO_SEED={seed}\n{}",
        wrong.join("\n")
    );
}

/// Runs the commands of a step, sends its probes and reads the metrics; returns the lines that do not
/// hold.
fn after_commit(cluster: &Cluster, step: &Step) -> Vec<String> {
    for command in &step.commands {
        let arguments: Vec<_> = command.split_whitespace().collect();
        let node = &cluster.node.namespace;
        node.command(env!("CARGO_BIN_EXE_kube-dnat"), &arguments);
    }
    let mut wrong = probes::check(cluster, step);
    wrong.extend(metrics::check(cluster, step));
    wrong
}
