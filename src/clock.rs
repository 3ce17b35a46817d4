//! The wall clock, which only this module reads.

use std::time::SystemTime;

/// Returns the time of day, for HTTP answers and metrics with a timestamp.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "HTTP answers and metrics have timestamps of the time of day"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}
