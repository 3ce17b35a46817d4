//! What a failure of the watcher means, and whether the operator has heard of it.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use kube::core::Status;
use kube::runtime::watcher;
use tokio::time::Instant;

/// What to do about a failure; each but `InPages` after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchRecovery {
    /// Let the watcher try again where it stood.
    Again,
    /// List anew: the API server cannot go on from where the watch broke off.
    Relist,
    /// List in pages: the API server does not know streaming lists.
    InPages,
    /// Go on without this kind, and ask again much later.
    Without,
}

/// Where the watcher stood when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchPhase {
    /// Nothing has come yet.
    Connecting,
    /// The list has begun.
    Listing,
    /// The list is complete.
    Watching,
}

/// What to do about `error`, which the watcher met in `phase` of `streaming` lists or lists in
/// pages.
pub(super) fn remedy(
    error: &watcher::Error,
    phase: WatchPhase,
    streaming: bool,
    optional: bool,
) -> WatchRecovery {
    let code = status(error).map(|status| status.code);
    let at_start = matches!(error, watcher::Error::WatchStartFailed(_));
    match code {
        Some(403 | 404) if optional => WatchRecovery::Without,
        // Invalid since 1.19 (resourceVersionMatch is refused for a watch), and with the feature
        // gate WatchList off; anything in front of an API server may say Bad Request.
        Some(400 | 422) if at_start && streaming && phase != WatchPhase::Watching => {
            WatchRecovery::InPages
        }
        // The watcher itself lists anew only when 410 comes as an event of the watch.
        Some(401 | 403 | 408 | 429) => WatchRecovery::Again,
        Some(400..=499) if at_start && phase == WatchPhase::Watching => WatchRecovery::Relist,
        _ => WatchRecovery::Again,
    }
}

/// Whether the watcher lists anew by itself after `error`.
pub(super) fn loses_place(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::NoResourceVersion => true,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_) => false,
    }
}

/// Whether connections that last end like this now and then: nobody needs to hear of it, unless
/// the watch cannot be taken up again.
pub(super) fn is_routine(error: &watcher::Error) -> bool {
    loses_place(error)
        || matches!(
            error,
            watcher::Error::WatchFailed(kube::Error::ReadEvents(_))
        )
}

/// Whether only an operator can help: the API server refuses who we are or what we ask for.
pub(super) fn is_refusal(error: &watcher::Error) -> bool {
    status(error).is_some_and(|status| matches!(status.code, 401 | 403))
}

/// How long the API server asks us to wait.
pub(super) fn retry_after(error: &watcher::Error) -> Duration {
    let seconds = status(error)
        .and_then(|status| status.details.as_ref())
        .map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(seconds.min(60).into())
}

/// `error` in words: what the API server says, or every cause down to the first.
pub(super) fn text(error: &watcher::Error) -> String {
    if let Some(status) = status(error) {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Many an error's text already ends with that of its cause.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

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

/// The failures that were logged lately.
#[derive(Debug, Default)]
pub(super) struct LoggedFailures {
    last: BTreeMap<String, Instant>,
}

impl LoggedFailures {
    const REMIND: Duration = Duration::from_mins(10);

    /// Whether the operator must hear of `text`: it is new, or was told long ago.
    pub(super) fn is_news(&mut self, text: &str, now: Instant) -> bool {
        self.last.retain(|_, told| now - *told < Self::REMIND);
        if self.last.contains_key(text) {
            return false;
        }
        self.last.insert(text.to_owned(), now);
        true
    }

    /// All is well: the next failure is news. Whether any was told.
    pub(super) fn forget(&mut self) -> bool {
        !std::mem::take(&mut self.last).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("no", "").with_code(code).boxed())
    }

    #[test]
    fn each_failure_has_its_remedy() {
        struct Case {
            error: watcher::Error,
            phase: WatchPhase,
            optional: bool,
            remedy: WatchRecovery,
        }
        let start = |code| watcher::Error::WatchStartFailed(api(code));
        let case = |error, phase, remedy| Case {
            error,
            phase,
            optional: false,
            remedy,
        };
        let list_failed = watcher::Error::InitialListFailed(api(422));
        let cases = [
            case(start(422), WatchPhase::Connecting, WatchRecovery::InPages),
            case(start(400), WatchPhase::Connecting, WatchRecovery::InPages),
            case(start(422), WatchPhase::Watching, WatchRecovery::Relist),
            case(start(410), WatchPhase::Watching, WatchRecovery::Relist),
            case(start(401), WatchPhase::Watching, WatchRecovery::Again),
            case(start(403), WatchPhase::Watching, WatchRecovery::Again),
            case(start(429), WatchPhase::Watching, WatchRecovery::Again),
            case(start(500), WatchPhase::Connecting, WatchRecovery::Again),
            case(list_failed, WatchPhase::Connecting, WatchRecovery::Again),
            case(
                watcher::Error::NoResourceVersion,
                WatchPhase::Watching,
                WatchRecovery::Again,
            ),
            Case {
                optional: true,
                ..case(start(404), WatchPhase::Connecting, WatchRecovery::Without)
            },
            Case {
                optional: true,
                ..case(start(403), WatchPhase::Watching, WatchRecovery::Without)
            },
        ];
        for case in cases {
            let remedy = remedy(&case.error, case.phase, true, case.optional);
            assert_eq!(remedy, case.remedy, "{:?} {:?}", case.error, case.phase);
        }
    }

    #[test]
    fn a_list_in_pages_has_nothing_to_fall_back_to() {
        let error = watcher::Error::WatchStartFailed(api(422));
        assert_eq!(
            remedy(&error, WatchPhase::Connecting, false, false),
            WatchRecovery::Again
        );
    }

    #[test]
    fn a_failure_is_told_once_until_all_is_well_or_much_later() {
        let start = Instant::now();
        let mut told = LoggedFailures::default();
        assert!(told.is_news("refused", start));
        assert!(told.is_news("timed out", start));
        assert!(!told.is_news("refused", start + Duration::from_secs(599)));
        assert!(told.is_news("refused", start + Duration::from_mins(10)));
        assert!(told.forget());
        assert!(!told.forget());
        assert!(told.is_news("refused", start + Duration::from_secs(601)));
    }

    #[test]
    fn what_the_api_server_says_is_told_without_the_layers_around_it() {
        let error = watcher::Error::WatchStartFailed(api(403));
        assert_eq!(text(&error), "no (403)");
    }

    #[test]
    fn every_cause_is_told() {
        let cause = std::io::Error::other("connection refused");
        let error = watcher::Error::InitialListFailed(kube::Error::ReadEvents(cause));
        let text = text(&error);
        assert_eq!(text.matches("connection refused").count(), 1, "{text}");
    }
}
