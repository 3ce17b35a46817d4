//! The written Events, with the validation of the real API server
//! (`pkg/apis/core/validation/events.go`).

use serde_json::Value;

pub(crate) const PLURAL: &str = "events";

/// The store of written Events.
#[derive(Default)]
pub(crate) struct Events(Vec<Value>);

/// Returns the namespace of a path to which Events are written.
pub(crate) fn namespace(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/apis/events.k8s.io/v1/namespaces/")?;
    path.strip_suffix("/events")
}

impl Events {
    pub(crate) fn all(&self) -> &[Value] {
        &self.0
    }

    /// The error is an HTTP status.
    pub(crate) fn create(&mut self, namespace: &str, body: &[u8]) -> Result<Value, u16> {
        let event: Value = serde_json::from_slice(body).or(Err(400_u16))?;
        if event["metadata"]["namespace"] != namespace {
            return Err(400);
        }
        if !is_valid(&event) {
            return Err(422);
        }
        let name = |event: &Value| event["metadata"]["name"].clone();
        let is_of = |event: &Value| event["metadata"]["namespace"] == namespace;
        let exists = |other: &&Value| is_of(other) && name(other) == name(&event);
        if self.0.iter().any(|other| exists(&other)) {
            return Err(409);
        }
        self.0.push(event.clone());
        Ok(event)
    }
}

fn is_valid(event: &Value) -> bool {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let length = |pointer: &str| text(pointer).map_or(0, str::len);
    let required = ["/reportingInstance", "/action", "/reason"];
    let regarding = text("/regarding/namespace").unwrap_or("default");
    let name = text("/metadata/name").unwrap_or_default();
    let in_name = |letter: char| letter.is_ascii_alphanumeric() || ".-".contains(letter);
    required
        .iter()
        .all(|field| (1..=128).contains(&length(field)))
        && length("/reportingController") > 0
        && length("/note") <= 1024
        && length("/eventTime") > 0
        && ["Normal", "Warning"].contains(&text("/type").unwrap_or_default())
        && text("/metadata/namespace") == Some(regarding)
        && (1..=253).contains(&name.len())
        && name.chars().all(in_name)
}
