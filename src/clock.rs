//! The wall clock: the one place that reads it.

use std::time::SystemTime;

/// The time of day, for answers and metrics that carry a timestamp.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "answers over HTTP and metrics carry the time of day"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}
