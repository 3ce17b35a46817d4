//! The status of all nodes, a line for each.

use serde_json::Value;

use super::on_nodes::NodeAnswer;
use super::program::PodOutput;
use crate::commands::output;

/// Formats the answers of `status -o json`.
pub(super) fn table(answers: &[(String, NodeAnswer)]) -> String {
    let heads = [
        "NODE",
        "STATE",
        "VERSION",
        "LAST SYNC",
        "PENDING",
        "FRONTENDS",
        "ENDPOINTS",
        "PROBLEMS",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(answers.iter().map(|(node, answer)| row(node, answer)));
    output::table(&rows)
}

/// Returns the cells of a node.
fn row(node: &str, answer: &NodeAnswer) -> Vec<String> {
    let status = match answer {
        Ok(PodOutput { out, error, .. }) => {
            let status: Result<Value, _> = serde_json::from_str(out);
            status.map_err(|_not_json| error.trim_end().to_owned())
        }
        Err(reason) => Err(reason.clone()),
    };
    let status = match status {
        Ok(status) => status,
        Err(reason) => return vec![node.to_owned(), reason],
    };
    let daemon = &status["daemon"];
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    let tables = status["tables"].as_array().into_iter().flatten();
    let sum = |field: &str| -> u64 {
        let numbers = tables.clone().map(|table| table["numbers"][field].as_u64());
        numbers.map(Option::unwrap_or_default).sum()
    };
    let problems = daemon["problems"].as_object();
    let last_sync = daemon["lastSyncSeconds"].as_f64();
    vec![
        node.to_owned(),
        state(daemon).to_owned(),
        text(&daemon["version"]),
        last_sync.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0}s")),
        text(&daemon["pendingChanges"]),
        sum("frontends").to_string(),
        sum("endpoints").to_string(),
        problems.map_or_else(|| "-".to_owned(), |problems| problems.len().to_string()),
    ]
}

/// Returns the state of a daemon in a word or two.
fn state(daemon: &Value) -> &'static str {
    let is = |field: &str| daemon[field].as_bool();
    match (is("running"), is("healthy"), is("eligible")) {
        (Some(true), Some(true), Some(false)) if daemon["drainedSeconds"].is_number() => "DRAINED",
        (Some(true), Some(true), Some(false)) => "NOT eligible",
        (Some(true), Some(true), _) => "healthy",
        (Some(true), Some(false), _) => "NOT healthy",
        (Some(true), None, _) => "health UNKNOWN",
        (Some(false) | None, ..) => "NOT running",
    }
}
