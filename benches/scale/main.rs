//! What things cost on a real kernel: run by `scripts/bench.sh`, as root.
//!
//! `cargo bench --bench scale -- connections 1000 10000`: what to measure, then on how many
//! Services. Each figure is a line of JSON.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on says why and ends; its figures go to standard output"
)]

mod changes;
mod cluster;
mod connections;
mod node;
mod report;

fn main() {
    let arguments = std::env::args().skip(1);
    // cargo adds it.
    let arguments: Vec<_> = arguments.filter(|argument| argument != "--bench").collect();
    let (what, sizes) = arguments.split_first().expect("what to measure");
    let sizes: Vec<u32> = sizes
        .iter()
        .map(|size| size.parse().expect("a number of Services"))
        .collect();
    let mut report = report::Report;
    match what.as_str() {
        "changes" => changes::measure(&mut report, &sizes),
        "connections" => connections::measure(&mut report, &sizes),
        other => panic!("{other} is nothing that is measured: changes, connections"),
    }
}
