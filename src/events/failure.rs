//! Failed writes of Events, and how the writer recovers from each.

use std::time::Duration;

use kube::Error;
use kube::core::Status;

use crate::logging::ErrorChain;

/// The reaction to a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WriteRecovery {
    /// Continue: the Event exists already, or its namespace does not exist any more.
    Continue,
    /// Drop this Event: the API server rejects it.
    Drop,
    /// Retry for a while, then write no Events for longer: the API server forbids Events, or does
    /// not have them.
    Hold,
    /// Retry, after this time at the earliest.
    Retry(Duration),
}

/// Decides how to recover from a failed write.
pub(super) fn recovery(error: &Error) -> WriteRecovery {
    let Error::Api(status) = error else {
        return WriteRecovery::Retry(Duration::ZERO);
    };
    match status.code {
        409 => WriteRecovery::Continue,
        403 | 404 if is_namespace_gone(status) => WriteRecovery::Continue,
        403 | 404 => WriteRecovery::Hold,
        400 | 413 | 422 => WriteRecovery::Drop,
        _ => WriteRecovery::Retry(retry_after(status)),
    }
}

/// Returns whether the namespace is deleted or terminating, so that no object can be created in it.
fn is_namespace_gone(status: &Status) -> bool {
    let Some(details) = &status.details else {
        return false;
    };
    let mut causes = details.causes.iter();
    details.kind == "namespaces" || causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// The pause that the API server asks for, at most a minute.
fn retry_after(status: &Status) -> Duration {
    let details = status.details.as_ref();
    let seconds = details.map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(seconds.min(60).into())
}

/// Formats an error with its causes, or the message and code of the API server.
pub(super) fn describe(error: &Error) -> String {
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

    fn recovery_from(code: u16, details: &Value) -> WriteRecovery {
        let status = json!({"code": code, "details": details});
        let status: Status = serde_json::from_value(status).unwrap();
        recovery(&Error::Api(status.boxed()))
    }

    #[test]
    fn each_failure_has_its_recovery() {
        let nothing = json!({});
        assert_eq!(recovery_from(409, &nothing), WriteRecovery::Continue);
        assert_eq!(recovery_from(403, &nothing), WriteRecovery::Hold);
        assert_eq!(recovery_from(404, &nothing), WriteRecovery::Hold);
        assert_eq!(recovery_from(422, &nothing), WriteRecovery::Drop);
        assert_eq!(
            recovery_from(500, &nothing),
            WriteRecovery::Retry(Duration::ZERO)
        );
        let wait = json!({"retryAfterSeconds": 7});
        assert_eq!(
            recovery_from(429, &wait),
            WriteRecovery::Retry(Duration::from_secs(7))
        );
        let unreachable = Error::ReadEvents(std::io::Error::other("connection refused"));
        assert_eq!(recovery(&unreachable), WriteRecovery::Retry(Duration::ZERO));
    }

    #[test]
    fn a_namespace_that_is_deleted_is_no_failure() {
        let terminating = json!({"causes": [{"reason": "NamespaceTerminating"}]});
        assert_eq!(recovery_from(403, &terminating), WriteRecovery::Continue);
        let gone = json!({"kind": "namespaces", "name": "shop"});
        assert_eq!(recovery_from(404, &gone), WriteRecovery::Continue);
    }
}
