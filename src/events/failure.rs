//! What it means that an Event was not written.

use std::time::Duration;

use kube::Error;
use kube::core::Status;

use crate::logging::ErrorChain;

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WriteRecovery {
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

pub(super) fn remedy(error: &Error) -> WriteRecovery {
    let Error::Api(status) = error else {
        return WriteRecovery::Again(Duration::ZERO);
    };
    match status.code {
        409 => WriteRecovery::Nothing,
        403 | 404 if is_of_namespace(status) => WriteRecovery::Nothing,
        403 | 404 => WriteRecovery::Hold,
        400 | 413 | 422 => WriteRecovery::GiveUp,
        _ => WriteRecovery::Again(retry_after(status)),
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
        ErrorChain(error).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn remedy_of(code: u16, details: &Value) -> WriteRecovery {
        let status = json!({"code": code, "details": details});
        let status: Status = serde_json::from_value(status).unwrap();
        remedy(&Error::Api(status.boxed()))
    }

    #[test]
    fn each_failure_has_its_remedy() {
        let nothing = json!({});
        assert_eq!(remedy_of(409, &nothing), WriteRecovery::Nothing);
        assert_eq!(remedy_of(403, &nothing), WriteRecovery::Hold);
        assert_eq!(remedy_of(404, &nothing), WriteRecovery::Hold);
        assert_eq!(remedy_of(422, &nothing), WriteRecovery::GiveUp);
        assert_eq!(
            remedy_of(500, &nothing),
            WriteRecovery::Again(Duration::ZERO)
        );
        let wait = json!({"retryAfterSeconds": 7});
        assert_eq!(
            remedy_of(429, &wait),
            WriteRecovery::Again(Duration::from_secs(7))
        );
        let unreachable = Error::ReadEvents(std::io::Error::other("connection refused"));
        assert_eq!(remedy(&unreachable), WriteRecovery::Again(Duration::ZERO));
    }

    #[test]
    fn a_namespace_that_goes_is_nobodys_fault() {
        let terminating = json!({"causes": [{"reason": "NamespaceTerminating"}]});
        assert_eq!(remedy_of(403, &terminating), WriteRecovery::Nothing);
        let gone = json!({"kind": "namespaces", "name": "shop"});
        assert_eq!(remedy_of(404, &gone), WriteRecovery::Nothing);
    }
}
