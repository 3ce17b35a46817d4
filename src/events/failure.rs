//! What it means that an Event was not written.

use std::time::Duration;

use kube::Error;
use kube::core::Status;

use crate::logging::Causes;

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Remedy {
    /// Nothing: it is told already, or there is no place for it any more.
    Nothing,
    /// Give this one up: the API server does not take it.
    GiveUp,
    /// Try again in a moment; when it stays so, write none for a while: the API server forbids it or does
    /// not know Events.
    Hold,
    /// Try again, after so long at the earliest.
    Again(Duration),
}

pub(super) fn remedy(error: &Error) -> Remedy {
    let Error::Api(status) = error else {
        return Remedy::Again(Duration::ZERO);
    };
    match status.code {
        409 => Remedy::Nothing,
        403 | 404 if is_of_namespace(status) => Remedy::Nothing,
        403 | 404 => Remedy::Hold,
        400 | 413 | 422 => Remedy::GiveUp,
        _ => Remedy::Again(retry_after(status)),
    }
}

/// Whether the namespace is gone or about to go: nothing can be made in it any more.
fn is_of_namespace(status: &Status) -> bool {
    let Some(details) = &status.details else {
        return false;
    };
    let mut causes = details.causes.iter();
    details.kind == "namespaces" || causes.any(|cause| cause.reason == "NamespaceTerminating")
}

fn retry_after(status: &Status) -> Duration {
    let seconds = status.details.as_ref();
    let seconds = seconds.map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(seconds.min(60).into())
}

/// `error` in words.
pub(super) fn text(error: &Error) -> String {
    if let Error::Api(status) = error {
        format!("{} ({})", status.message, status.code)
    } else {
        Causes(error).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn remedy_of(code: u16, details: &Value) -> Remedy {
        let status = json!({"code": code, "details": details});
        let status: Status = serde_json::from_value(status).unwrap();
        remedy(&Error::Api(status.boxed()))
    }

    #[test]
    fn each_failure_has_its_remedy() {
        let nothing = json!({});
        assert_eq!(remedy_of(409, &nothing), Remedy::Nothing);
        assert_eq!(remedy_of(403, &nothing), Remedy::Hold);
        assert_eq!(remedy_of(404, &nothing), Remedy::Hold);
        assert_eq!(remedy_of(422, &nothing), Remedy::GiveUp);
        assert_eq!(remedy_of(500, &nothing), Remedy::Again(Duration::ZERO));
        let wait = json!({"retryAfterSeconds": 7});
        assert_eq!(remedy_of(429, &wait), Remedy::Again(Duration::from_secs(7)));
        let unreachable = Error::ReadEvents(std::io::Error::other("connection refused"));
        assert_eq!(remedy(&unreachable), Remedy::Again(Duration::ZERO));
    }

    #[test]
    fn a_namespace_that_goes_is_nobodys_fault() {
        let terminating = json!({"causes": [{"reason": "NamespaceTerminating"}]});
        assert_eq!(remedy_of(403, &terminating), Remedy::Nothing);
        let gone = json!({"kind": "namespaces", "name": "shop"});
        assert_eq!(remedy_of(404, &gone), Remedy::Nothing);
    }
}
