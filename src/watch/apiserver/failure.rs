//! Failures of the watcher: how to recover from each, and which ones are in the log already.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::core::Status;
use kube::runtime::watcher;
use tokio::time::Instant;

use crate::logging::ErrorChain;

/// The reaction to a failure, after a pause for all but `InPages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchRecovery {
    /// Let the watcher retry from where it was.
    Retry,
    /// List again: the API server cannot continue from where the watch broke off.
    Relist,
    /// List in pages: the API server has no streaming lists.
    InPages,
    /// Continue without this kind, and retry much later.
    Unavailable,
}

/// The phase in which the watcher failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchPhase {
    /// No event has arrived yet.
    Connecting,
    /// The list has started.
    Listing,
    /// The list is complete.
    Watching,
}

/// Decides how to recover from `error`.
///
/// `phase` is where the watcher was, `streaming` whether it uses streaming lists, and `optional`
/// whether kube-dnat can run without the kind.
pub(super) fn recovery(
    error: &watcher::Error,
    phase: WatchPhase,
    streaming: bool,
    optional: bool,
) -> WatchRecovery {
    let code = status(error).map(|status| status.code);
    let at_start = matches!(error, watcher::Error::WatchStartFailed(_));
    match code {
        Some(403 | 404) if optional => WatchRecovery::Unavailable,
        // Invalid since 1.19 (resourceVersionMatch is refused for a watch), and with the feature
        // gate WatchList off; a proxy in front of an API server may answer Bad Request.
        Some(400 | 422) if at_start && streaming && phase != WatchPhase::Watching => {
            WatchRecovery::InPages
        }
        // The watcher itself relists only when 410 comes as an event of the watch.
        Some(401 | 403 | 408 | 429) => WatchRecovery::Retry,
        Some(400..=499) if at_start && phase == WatchPhase::Watching => WatchRecovery::Relist,
        _ => WatchRecovery::Retry,
    }
}

/// Returns whether the watcher relists by itself after `error`.
pub(super) fn relists_itself(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::NoResourceVersion => true,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_) => false,
    }
}

/// Returns whether long connections end like this now and then.
///
/// Such a failure matters only if the watch cannot be continued.
pub(super) fn is_routine(error: &watcher::Error) -> bool {
    relists_itself(error)
        || matches!(
            error,
            watcher::Error::WatchFailed(kube::Error::ReadEvents(_))
        )
}

/// Returns whether the API server rejects the credentials or forbids the request.
pub(super) fn is_forbidden(error: &watcher::Error) -> bool {
    status(error).is_some_and(|status| matches!(status.code, 401 | 403))
}

/// Returns the pause that the API server asks for, at most a minute.
pub(super) fn retry_after(error: &watcher::Error) -> Duration {
    let seconds = status(error)
        .and_then(|status| status.details.as_ref())
        .map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(seconds.min(60).into())
}

/// Formats the message and code of the API server, or else the error with all its causes.
pub(super) fn describe(error: &watcher::Error) -> String {
    if let Some(status) = status(error) {
        return format!("{} ({})", status.message, status.code);
    }
    ErrorChain(error).to_string()
}

/// Returns the status that the API server answered, if it did.
fn status(error: &watcher::Error) -> Option<&Status> {
    let error = match error {
        watcher::Error::WatchError(status) => return Some(status),
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error,
        watcher::Error::NoResourceVersion => return None,
    };
    if let kube::Error::Api(status) = error {
        Some(status)
    } else {
        None
    }
}

/// The failures that were logged since the last success.
#[derive(Debug, Default)]
pub(super) struct LoggedFailures {
    /// The time at which each error was logged.
    logged_at: BTreeMap<String, Instant>,
}

impl LoggedFailures {
    /// The interval after which a persisting failure is logged again.
    const REMIND_INTERVAL: Duration = Duration::from_mins(10);

    /// Records an error as logged; returns whether it is new, or was logged long ago.
    pub(super) fn is_new(&mut self, error: &str, now: Instant) -> bool {
        self.logged_at
            .retain(|_, at| now - *at < Self::REMIND_INTERVAL);
        if self.logged_at.contains_key(error) {
            return false;
        }
        self.logged_at.insert(error.to_owned(), now);
        true
    }

    /// Forgets all errors after a success; returns whether there were any.
    pub(super) fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.logged_at).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("no", "").with_code(code).boxed())
    }

    #[test]
    fn each_failure_has_its_recovery() {
        struct Case {
            error: watcher::Error,
            phase: WatchPhase,
            optional: bool,
            recovery: WatchRecovery,
        }
        let start = |code| watcher::Error::WatchStartFailed(api(code));
        let case = |error, phase, recovery| Case {
            error,
            phase,
            optional: false,
            recovery,
        };
        let list_failed = watcher::Error::InitialListFailed(api(422));
        let cases = [
            case(start(422), WatchPhase::Connecting, WatchRecovery::InPages),
            case(start(400), WatchPhase::Connecting, WatchRecovery::InPages),
            case(start(422), WatchPhase::Watching, WatchRecovery::Relist),
            case(start(410), WatchPhase::Watching, WatchRecovery::Relist),
            case(start(401), WatchPhase::Watching, WatchRecovery::Retry),
            case(start(403), WatchPhase::Watching, WatchRecovery::Retry),
            case(start(429), WatchPhase::Watching, WatchRecovery::Retry),
            case(start(500), WatchPhase::Connecting, WatchRecovery::Retry),
            case(list_failed, WatchPhase::Connecting, WatchRecovery::Retry),
            case(
                watcher::Error::NoResourceVersion,
                WatchPhase::Watching,
                WatchRecovery::Retry,
            ),
            Case {
                optional: true,
                ..case(
                    start(404),
                    WatchPhase::Connecting,
                    WatchRecovery::Unavailable,
                )
            },
            Case {
                optional: true,
                ..case(start(403), WatchPhase::Watching, WatchRecovery::Unavailable)
            },
        ];
        for case in cases {
            let recovery = recovery(&case.error, case.phase, true, case.optional);
            assert_eq!(recovery, case.recovery, "{:?} {:?}", case.error, case.phase);
        }
    }

    #[test]
    fn a_list_in_pages_has_no_fallback() {
        let error = watcher::Error::WatchStartFailed(api(422));
        assert_eq!(
            recovery(&error, WatchPhase::Connecting, false, false),
            WatchRecovery::Retry
        );
    }

    #[test]
    fn a_failure_is_logged_once_until_a_success_or_much_later() {
        let start = Instant::now();
        let mut logged = LoggedFailures::default();
        assert!(logged.is_new("refused", start));
        assert!(logged.is_new("timed out", start));
        assert!(!logged.is_new("refused", start + Duration::from_secs(599)));
        assert!(logged.is_new("refused", start + Duration::from_mins(10)));
        assert!(logged.clear());
        assert!(!logged.clear());
        assert!(logged.is_new("refused", start + Duration::from_secs(601)));
    }

    #[test]
    fn the_message_of_the_api_server_stands_alone() {
        let error = watcher::Error::WatchStartFailed(api(403));
        assert_eq!(describe(&error), "no (403)");
    }

    #[test]
    fn every_cause_is_described() {
        let cause = std::io::Error::other("connection refused");
        let error = watcher::Error::InitialListFailed(kube::Error::ReadEvents(cause));
        let text = describe(&error);
        assert_eq!(text.matches("connection refused").count(), 1, "{text}");
    }
}
