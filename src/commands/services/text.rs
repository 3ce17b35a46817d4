//! The list as a table.

use crate::commands::output;
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
    let rows = std::iter::once(HEAD.map(str::to_owned)).chain(frontends.iter().map(cells));
    let rows: Vec<_> = rows
        .map(|row| row.into_iter().take(columns).collect())
        .collect();
    output::table(&rows)
}

/// Formats the affinity timeout, or the hash that selects the endpoint, with the number of slots if
/// an endpoint has several.
fn affinity(row: &FrontendRow) -> String {
    let affinity = match row.balance {
        Some(balance) => balance.to_string(),
        None => timeout(row),
    };
    match row.slots {
        Some(slots) => format!("{affinity} ({slots} slots)"),
        None => affinity,
    }
}

/// Formats the affinity timeout.
fn timeout(row: &FrontendRow) -> String {
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
