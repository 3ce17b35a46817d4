//! The error that an API server answers with.

use std::time::Duration;

/// A `Status` of API version `v1` (`k8s.io/apimachinery/pkg/apis/meta/v1`).
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WireStatus {
    /// The message for people.
    #[prost(string, tag = "3")]
    pub(super) message: String,
    /// The details.
    #[prost(message, optional, tag = "5")]
    details: Option<WireStatusDetails>,
    /// The HTTP status.
    #[prost(int32, tag = "6")]
    pub(super) code: i32,
}

/// The `details` of a Status.
#[derive(Clone, PartialEq, prost::Message, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatusDetails {
    /// The pause before the next request, in seconds.
    #[prost(int32, tag = "5")]
    retry_after_seconds: i32,
}

impl WireStatus {
    /// The longest pause that the API server may ask for.
    const LONGEST_PAUSE: Duration = Duration::from_mins(1);

    /// Creates the status of an answer whose body is not one, as proxies send them.
    pub(super) fn of_code(code: u16) -> Self {
        Self {
            message: "the answer has no Status".to_owned(),
            details: None,
            code: code.into(),
        }
    }

    /// Sets the pause from the header `Retry-After`, in seconds.
    pub(super) fn retry_after_header(mut self, seconds: Option<i32>) -> Self {
        if let Some(seconds) = seconds {
            let details = self.details.get_or_insert_default();
            details.retry_after_seconds = details.retry_after_seconds.max(seconds);
        }
        self
    }

    /// Returns the pause that the API server asks for, at most a minute.
    pub(super) fn retry_after(&self) -> Duration {
        let seconds = self
            .details
            .as_ref()
            .map_or(0, |details| details.retry_after_seconds);
        // No number of seconds below zero is a pause.
        let seconds = u64::try_from(seconds).unwrap_or(0);
        Duration::from_secs(seconds).min(Self::LONGEST_PAUSE)
    }
}
