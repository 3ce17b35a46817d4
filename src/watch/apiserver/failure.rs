//! Failures of a reader: how to recover from each, and which ones are in the log already.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::connections;
use super::decode::DecodeError;
use super::status::WireStatus;
use crate::logging::ErrorChain;
use crate::planner::model::InterruptReason;

/// The reason why a list or watch ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchFailure {
    /// The API server rejected the request.
    #[error("{} ({})", .0.message, .0.code)]
    Rejected(WireStatus),
    /// The API server ended the watch with an error.
    #[error("{} ({})", .0.message, .0.code)]
    Ended(WireStatus),
    /// The request could not be sent, or the connection broke before the answer.
    #[error(transparent)]
    Connection(kube::Error),
    /// The connection broke within the answer.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The API server closed a watch at once, or a list before its end.
    #[error("the API server closed the watch at once")]
    ClosedAtOnce,
    /// The answer cannot be decoded.
    #[error("cannot decode the answer of the API server: {0}")]
    Malformed(DecodeError),
    /// The answer has a format that nobody asked for.
    #[error("the answer of the API server has content type {0}")]
    MediaType(String),
    /// The API server did not answer in time, or did not end a watch in time.
    #[error("no answer from the API server")]
    Silent,
    /// A streaming list did not continue in time.
    #[error("the streaming list of the API server stalled")]
    Stalled,
    /// A complete list is older than what was seen before.
    #[error("the list of the API server is older than what it served before")]
    Older,
}

impl From<DecodeError> for WatchFailure {
    fn from(error: DecodeError) -> Self {
        match error {
            // The connection closed within a line.
            DecodeError::Json(error) if error.is_eof() => Self::Broken(error.into()),
            DecodeError::Envelope
            | DecodeError::ContentEncoding(_)
            | DecodeError::Protobuf(_)
            | DecodeError::Json(_)
            | DecodeError::EventType(_)
            | DecodeError::TooLarge
            | DecodeError::NoVersion => Self::Malformed(error),
        }
    }
}

impl WatchFailure {
    /// Returns the status that the API server sent, if it did.
    fn status(&self) -> Option<&WireStatus> {
        match self {
            Self::Rejected(status) | Self::Ended(status) => Some(status),
            Self::Connection(_)
            | Self::Broken(_)
            | Self::ClosedAtOnce
            | Self::Malformed(_)
            | Self::MediaType(_)
            | Self::Silent
            | Self::Stalled
            | Self::Older => None,
        }
    }

    /// Returns whether long connections end like this now and then.
    ///
    /// Such a failure matters only if the watch cannot be continued.
    pub(super) fn is_routine(&self) -> bool {
        match self {
            Self::Ended(status) => status.code == 410,
            Self::Broken(_) | Self::ClosedAtOnce => true,
            Self::Rejected(_)
            | Self::Connection(_)
            | Self::Malformed(_)
            | Self::MediaType(_)
            | Self::Silent
            | Self::Stalled
            | Self::Older => false,
        }
    }

    /// Returns whether no API server could be reached to send the request.
    pub(super) fn is_unsent(&self) -> bool {
        matches!(self, Self::Connection(error) if connections::is_unsent(error))
    }

    /// Returns whether the API server rejects the credentials or forbids the request.
    pub(super) fn is_forbidden(&self) -> bool {
        self.status()
            .is_some_and(|status| matches!(status.code, 401 | 403))
    }

    /// Returns the pause that the API server asks for.
    pub(super) fn retry_after(&self) -> Duration {
        self.status()
            .map_or(Duration::ZERO, WireStatus::retry_after)
    }

    /// Returns the reason for the metric.
    pub(super) fn reason(&self) -> InterruptReason {
        match self {
            Self::Rejected(_) | Self::Ended(_) => InterruptReason::Rejected,
            Self::Connection(_) | Self::Broken(_) | Self::ClosedAtOnce => InterruptReason::Closed,
            Self::Malformed(_) | Self::MediaType(_) => InterruptReason::Malformed,
            Self::Silent | Self::Stalled => InterruptReason::Silent,
            Self::Older => InterruptReason::Older,
        }
    }

    /// Returns a text that is equal for failures of one condition, which are logged once.
    pub(super) fn condition(&self) -> String {
        match self.status() {
            // Messages have versions and times.
            Some(status) => status.code.to_string(),
            None => self.describe(),
        }
    }

    /// Formats the message and code of the API server, or else the error with all its causes.
    pub(super) fn describe(&self) -> String {
        ErrorChain(self).to_string()
    }
}

/// The reaction to a failure, after a pause for `Retry` and `Relist`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchRecovery {
    /// Continue from where the reader was.
    Retry,
    /// List again: the API server cannot continue from where the watch broke off.
    Relist,
    /// List in pages: the API server has no streaming lists.
    InPages,
    /// Accept only JSON: the API server cannot answer in protobuf, or not so that it decodes.
    Json,
    /// Continue without this kind, and retry much later.
    Unavailable,
}

/// What a reader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderPhase {
    /// It lists as a stream.
    StreamingList,
    /// It lists in pages, or asks for the newest version.
    Pages,
    /// It has a complete list, and watches.
    Watching,
}

/// The state of a reader when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReaderState {
    /// What the reader was doing.
    pub(super) phase: ReaderPhase,
    /// Whether it accepts protobuf.
    pub(super) protobuf: bool,
    /// Whether kube-dnat can run without the kind.
    pub(super) optional: bool,
    /// The number of consecutive answers before this one that did not decode.
    pub(super) malformed: u32,
}

/// Decides how to recover from a failure.
pub(super) fn recovery(failure: &WatchFailure, state: ReaderState) -> WatchRecovery {
    let code = failure.status().map(|status| status.code);
    let is_rejected = matches!(failure, WatchFailure::Rejected(_));
    let lists_as_stream = state.phase == ReaderPhase::StreamingList;
    let is_listed = state.phase == ReaderPhase::Watching;
    match code {
        Some(403 | 404) if state.optional => WatchRecovery::Unavailable,
        Some(406) if state.protobuf => WatchRecovery::Json,
        // Invalid since 1.19 (resourceVersionMatch is refused for a watch), and with the feature
        // gate WatchList off; a proxy in front of an API server may answer Bad Request.
        Some(400 | 422) if is_rejected && lists_as_stream => WatchRecovery::InPages,
        Some(410) => WatchRecovery::Relist,
        Some(401 | 403 | 408 | 429) => WatchRecovery::Retry,
        Some(400..=499) if is_rejected && is_listed => WatchRecovery::Relist,
        Some(_) => WatchRecovery::Retry,
        None => match failure {
            // One damaged answer may be an accident of its connection.
            WatchFailure::Malformed(_) | WatchFailure::MediaType(_)
                if state.protobuf && state.malformed > 0 =>
            {
                WatchRecovery::Json
            }
            WatchFailure::Stalled if lists_as_stream => WatchRecovery::InPages,
            WatchFailure::Rejected(_)
            | WatchFailure::Ended(_)
            | WatchFailure::Connection(_)
            | WatchFailure::Broken(_)
            | WatchFailure::ClosedAtOnce
            | WatchFailure::Malformed(_)
            | WatchFailure::MediaType(_)
            | WatchFailure::Silent
            | WatchFailure::Stalled
            | WatchFailure::Older => WatchRecovery::Retry,
        },
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

    const LISTING: ReaderState = ReaderState {
        phase: ReaderPhase::StreamingList,
        protobuf: true,
        optional: false,
        malformed: 0,
    };

    const WATCHING: ReaderState = ReaderState {
        phase: ReaderPhase::Watching,
        ..LISTING
    };

    fn rejected(code: u16) -> WatchFailure {
        WatchFailure::Rejected(WireStatus::of_code(code))
    }

    #[test]
    fn each_failure_has_its_recovery() {
        let optional = |state| ReaderState {
            optional: true,
            ..state
        };
        let malformed = || WatchFailure::Malformed(DecodeError::Envelope);
        let again = |state| ReaderState {
            malformed: 1,
            ..state
        };
        let json = |state| ReaderState {
            protobuf: false,
            ..state
        };
        let ended = |code| WatchFailure::Ended(WireStatus::of_code(code));
        for (failure, state, expected) in [
            (rejected(422), LISTING, WatchRecovery::InPages),
            (rejected(400), LISTING, WatchRecovery::InPages),
            (rejected(422), WATCHING, WatchRecovery::Relist),
            (rejected(410), WATCHING, WatchRecovery::Relist),
            (ended(410), WATCHING, WatchRecovery::Relist),
            (ended(400), WATCHING, WatchRecovery::Retry),
            (rejected(401), WATCHING, WatchRecovery::Retry),
            (rejected(403), WATCHING, WatchRecovery::Retry),
            (rejected(429), WATCHING, WatchRecovery::Retry),
            (rejected(500), LISTING, WatchRecovery::Retry),
            (rejected(504), LISTING, WatchRecovery::Retry),
            (rejected(404), optional(LISTING), WatchRecovery::Unavailable),
            (
                rejected(403),
                optional(WATCHING),
                WatchRecovery::Unavailable,
            ),
            (rejected(406), LISTING, WatchRecovery::Json),
            (rejected(406), WATCHING, WatchRecovery::Json),
            (rejected(406), json(WATCHING), WatchRecovery::Relist),
            (malformed(), WATCHING, WatchRecovery::Retry),
            (malformed(), again(WATCHING), WatchRecovery::Json),
            (malformed(), again(json(WATCHING)), WatchRecovery::Retry),
            (WatchFailure::Stalled, LISTING, WatchRecovery::InPages),
            (WatchFailure::Silent, LISTING, WatchRecovery::Retry),
            (WatchFailure::Silent, WATCHING, WatchRecovery::Retry),
            (WatchFailure::Older, LISTING, WatchRecovery::Retry),
        ] {
            assert_eq!(recovery(&failure, state), expected, "{failure} {state:?}");
        }
    }

    #[test]
    fn a_list_in_pages_has_no_fallback() {
        let state = ReaderState {
            phase: ReaderPhase::Pages,
            ..LISTING
        };
        assert_eq!(recovery(&rejected(422), state), WatchRecovery::Retry);
        assert_eq!(
            recovery(&WatchFailure::Stalled, state),
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
    fn the_message_and_the_code_of_the_api_server_are_described() {
        assert_eq!(rejected(403).describe(), "the answer has no Status (403)");
    }

    #[test]
    fn every_cause_is_described() {
        let cause = io::Error::other("connection refused");
        let failure = WatchFailure::Connection(kube::Error::ReadEvents(cause));
        let text = failure.describe();
        assert_eq!(text.matches("connection refused").count(), 1, "{text}");
    }
}
