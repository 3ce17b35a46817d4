//! The endpoints of a Service in any state, which only the daemon knows.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::commands::http_get::ask_daemon;
use crate::planner::service_list::FrontendRow;

/// The longest wait for the daemon, which answers within half a second while it is busy. The list does
/// not depend on it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The part of `/debug/services` with the numbers of endpoints.
#[derive(Debug, Deserialize)]
struct ServicesAnswer {
    /// The Service ports.
    ports: Vec<PortAnswer>,
}

/// A Service port.
#[derive(Debug, Deserialize)]
struct PortAnswer {
    /// The Service port, as `namespace/name:port-name`.
    name: String,
    /// The protocol, as in the API.
    protocol: String,
    /// The families of the Service.
    families: Vec<FamilyAnswer>,
}

/// A family of a Service port.
#[derive(Debug, Deserialize)]
struct FamilyAnswer {
    /// `IPv4` or `IPv6`.
    family: String,
    /// The number of endpoints in any state.
    total: usize,
}

/// Adds the numbers that the daemon reports. Without an answer, they stay unknown.
pub(super) fn add(rows: &mut [FrontendRow]) {
    let answer = crate::agent::runtime().ok().and_then(|runtime| {
        let answer =
            runtime.block_on(async { timeout(TIMEOUT, ask_daemon("/debug/services")).await });
        let answer = answer.ok()?.ok()?;
        serde_json::from_str::<ServicesAnswer>(&answer).ok()
    });
    let Some(ServicesAnswer { ports }) = answer else {
        return;
    };
    let totals = totals(ports);
    for row in rows {
        let protocol = row.protocol.to_string().to_ascii_lowercase();
        let key = (row.service.clone(), protocol, row.family.to_string());
        row.endpoint_counts.total = totals.get(&key).copied();
    }
}

/// Returns the numbers by Service port, protocol and family.
fn totals(ports: Vec<PortAnswer>) -> BTreeMap<(String, String, String), usize> {
    let mut totals = BTreeMap::new();
    for PortAnswer {
        name,
        protocol,
        families,
    } in ports
    {
        let protocol = protocol.to_ascii_lowercase();
        for FamilyAnswer { family, total } in families {
            totals.insert((name.clone(), protocol.clone(), family), total);
        }
    }
    totals
}
