//! Connections through a node on which everything breaks at random.
//!
//! A run can be repeated by its seed: `scripts/chaos.sh SECONDS SEED`. The test run includes a short
//! one.

mod attempt;
mod clients;
mod daemon;
mod fault;
mod history;
mod kernel;
mod memory;
mod node;
mod report;
mod samples;
mod services;
mod suffer;

use std::env;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use fault::Fault;
use node::Node;
use report::Report;
use samples::Samples;

use crate::lab::Cluster;

pub(crate) fn tests() -> Vec<Trial> {
    use super::chaos;
    crate::trials!(chaos: no_connection_fails_whatever_breaks)
}

/// The settings of a run, from the environment.
struct Settings {
    /// Faults begin for this long.
    duration: Duration,
    seed: u64,
    /// New connections a second.
    rate: u32,
    /// Connections that stay open.
    held: u32,
    /// The run goes on until there are so many connections.
    connections: usize,
    /// The longest pause between faults, in milliseconds.
    pause: u64,
}

impl Settings {
    fn from_environment() -> Self {
        let number = |name: &str, default: u64| {
            let text = env::var(name).ok();
            let number = text.map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")));
            number.unwrap_or(default)
        };
        Self {
            duration: Duration::from_secs(number("CHAOS_SECONDS", 20)),
            seed: number("CHAOS_SEED", 1),
            rate: u32::try_from(number("CHAOS_RATE", 200)).expect("a rate"),
            held: u32::try_from(number("CHAOS_HELD", 40)).expect("a number"),
            connections: usize::try_from(number("CHAOS_CONNECTIONS", 0)).expect("a number"),
            pause: number("CHAOS_PAUSE_MS", 200),
        }
    }
}

fn no_connection_fails_whatever_breaks() {
    let settings = Settings::from_environment();
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let cluster = Cluster::new();
    let mut node = Node::start(&cluster, &mut random);
    let mut report = Report::new(settings.seed, node.history.started(), node.usage());
    let faults = Fault::for_duration(settings.duration);
    let history = node.history.clone();
    let (outcomes, held) = clients::run(&cluster, &history, &settings, |begun| {
        let started = Instant::now();
        let mut samples = Samples::from_environment();
        while started.elapsed() < settings.duration || begun() < settings.connections {
            let fault = faults[random.usize(..faults.len())];
            let lines = node.log_lines();
            history.note(format_args!("{fault:?}"));
            let repaired = node.suffer(fault, &mut random);
            history.note(format_args!("over, and repaired after {repaired:.3?}"));
            samples.take_if_due(&node, begun());
            report.add(fault, repaired, node.log_lines() - lines);
            std::thread::sleep(Duration::from_millis(random.u64(0..settings.pause)));
        }
    });
    report.finish(node.usage(), &history, &outcomes, &held);
}
