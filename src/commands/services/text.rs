//! The list as a table, with columns as wide as their longest cell.

use std::fmt::Write as _;

use crate::planner::service_list::{EndpointCounts, FrontendResult, FrontendRow};

/// The heads of the columns; the last is only in the wide table.
const HEAD: [&str; 8] = [
    "SERVICE",
    "KIND",
    "ADDRESS",
    "POLICY",
    "AFFINITY",
    "ENDPOINTS",
    "CONNECTIONS",
    "ENDPOINT ADDRESSES",
];

/// Formats the frontends as a table, with the addresses of endpoints if it is `wide`.
pub(super) fn table(frontends: &[FrontendRow], wide: bool) -> String {
    let columns = if wide { HEAD.len() } else { HEAD.len() - 1 };
    let rows: Vec<_> = frontends.iter().map(cells).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    push_row(&mut text, HEAD.iter().take(columns).copied(), &widths);
    for row in &rows {
        push_row(
            &mut text,
            row.iter().take(columns).map(String::as_str),
            &widths,
        );
    }
    text
}

/// Appends a line. The last cell is not padded.
fn push_row<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>, widths: &[usize]) {
    let mut line = String::new();
    for (cell, width) in cells.zip(widths) {
        // Writing to a String does not fail.
        let _ = write!(line, "{cell:<width$}   ");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Formats the affinity timeout.
fn affinity(row: &FrontendRow) -> String {
    match (row.affinity_seconds, row.result) {
        (Some(seconds), _) => format!("{seconds}s"),
        // The kernel has the timeout of frontends with an endpoint only.
        (None, FrontendResult::Rejected | FrontendResult::Dropped) => "-".to_owned(),
        (
            None,
            FrontendResult::Served
            | FrontendResult::DroppedFromOutside
            | FrontendResult::RejectedFromOutside,
        ) => "none".to_owned(),
    }
}

/// Formats the numbers of endpoints, and the result if not all connections are served.
fn counts(row: &FrontendRow) -> String {
    let EndpointCounts {
        ready,
        local,
        total,
    } = row.endpoint_counts;
    let total = total.map_or_else(|| "-".to_owned(), |total| total.to_string());
    let result = match row.result {
        FrontendResult::Served => "",
        FrontendResult::Rejected => " (rejected)",
        FrontendResult::Dropped => " (dropped)",
        FrontendResult::DroppedFromOutside => " (dropped from outside)",
        FrontendResult::RejectedFromOutside => " (rejected from outside)",
    };
    format!("{ready}/{local}/{total}{result}")
}

/// Returns the cells of a frontend.
fn cells(row: &FrontendRow) -> [String; 8] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let service = if row.service.is_empty() {
        None
    } else {
        Some(row.service.clone())
    };
    let addresses: Vec<_> = row
        .endpoints
        .iter()
        .map(|endpoint| {
            let mark = if endpoint.local { "*" } else { "" };
            format!("{}{mark}", endpoint.address)
        })
        .collect();
    [
        or_dash(service),
        or_dash(row.kind.map(|kind| kind.to_string())),
        row.address.clone(),
        or_dash(row.policy.map(|policy| policy.to_string())),
        affinity(row),
        counts(row),
        row.connections.to_string(),
        if addresses.is_empty() {
            "-".to_owned()
        } else {
            addresses.join(",")
        },
    ]
}
