//! The figures of a fleet as Markdown tables.

use super::tables::{Figures, number};

const SERVERS: [&str; 2] = ["the tests' API server", "kube-apiserver"];

const CLIENTS: [&str; 3] = ["protobuf, HTTP/2", "JSON, HTTP/1.1", "kube-proxy"];

const CLUSTER: &str = "10000x10";

/// A row: its title, the operation, the value, the divisor for the unit, and the unit.
struct Row(&'static str, &'static str, &'static str, f64, &'static str);

const START: &str = "nodes start";
const CHANGE: &str = "a slice of 100 endpoints changes";
const ROLLING: &str = "100 Pods are replaced";
const RESTART: &str = "the API server restarts";
const NODE: &str = "a node receives and plans everything";

const BYTES: &str = "bytes_a_node";
const CPU: &str = "server_cpu_ms_a_node";

const ROWS: [Row; 11] = [
    Row("connections", START, "connections_a_node", 1.0, ""),
    Row("full list: bytes", START, BYTES, 1e6, "MB"),
    Row("full list: CPU time of the server", START, CPU, 1.0, "ms"),
    Row(
        "one changed slice of 100 endpoints: bytes",
        CHANGE,
        BYTES,
        1e3,
        "KB",
    ),
    Row("the same: CPU time of the server", CHANGE, CPU, 1.0, "ms"),
    Row("100 Pods replaced: bytes", ROLLING, BYTES, 1e6, "MB"),
    Row("the same: CPU time of the server", ROLLING, CPU, 1.0, "ms"),
    Row(
        "restart of the API server: bytes",
        RESTART,
        BYTES,
        1e6,
        "MB",
    ),
    Row("the same: CPU time of the server", RESTART, CPU, 1.0, "ms"),
    Row(
        "CPU time of the node to receive the full list",
        NODE,
        "receive_cpu_ms",
        1.0,
        "ms",
    ),
    Row(
        "CPU time of the node to plan it",
        NODE,
        "plan_cpu_ms",
        1.0,
        "ms",
    ),
];

/// Prints a table for each server that was measured, with the costs of one node.
pub(crate) fn write(figures: &Figures) {
    for server in SERVERS {
        table(figures, server);
    }
}

fn table(figures: &Figures, server: &str) {
    let subjects = CLIENTS.map(|client| format!("{client} at {server}"));
    let value = |subject: &String, row: &Row| {
        let Row(_, what, name, divisor, unit) = row;
        let value = figures.value(subject, CLUSTER, what, name)?;
        let shown = format!("{} {unit}", number(value / divisor));
        Some(shown.trim_end().to_owned())
    };
    let rows: Vec<String> = ROWS
        .iter()
        .filter_map(|row| {
            let cells = subjects.each_ref().map(|subject| value(subject, row));
            cells.iter().any(Option::is_some).then(|| {
                let cells = cells.map(Option::unwrap_or_default);
                format!("| {} | {} |", row.0, cells.join(" | "))
            })
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    println!("\n| a node, at {server} | {} |", CLIENTS.join(" | "));
    println!("|---|---|---|---|\n{}", rows.join("\n"));
}
