//! Sockets that the system does not give the relay.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;
use tracing::warn;

use crate::logging::LogEvent;
use crate::metrics::{Metrics, ProtocolLabel};
use crate::planner::model::Protocol;

/// The interval in which a failure is logged once, over all node ports.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// The failures to open sockets for clients. Clones share them.
#[derive(Clone)]
pub(super) struct SocketFailures {
    /// When a failure was logged last.
    logged: Arc<Mutex<Option<Instant>>>,
    metrics: Metrics,
}

impl SocketFailures {
    /// Creates no failures.
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            logged: Arc::default(),
            metrics,
        }
    }

    /// Counts a failure at a node port, and logs it unless one was logged lately.
    pub(super) fn report(&self, protocol: Protocol, at: SocketAddr, error: &io::Error) {
        let label = ProtocolLabel::new(protocol);
        let failures = &self.metrics.localhost_socket_failures;
        failures.get_or_create(&label).inc();
        if is_due(&self.logged, Instant::now()) {
            warn!(
                event = %LogEvent::LocalhostSocketFailed,
                %error, %at, %protocol,
                "cannot open a socket for a client at localhost"
            );
        }
    }
}

/// Whether a line may be logged now; records that it is.
fn is_due(logged: &Mutex<Option<Instant>>, now: Instant) -> bool {
    let mut logged = logged.lock().unwrap_or_else(PoisonError::into_inner);
    let is_due = logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
    if is_due {
        *logged = Some(now);
    }
    is_due
}

/// Returns whether a socket cannot be opened for lack of file descriptors or memory.
pub(crate) fn lacks_resources(error: &io::Error) -> bool {
    let lacks = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|error| lacks.contains(&Errno::from_raw(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_once_in_an_interval() {
        let (logged, now) = (Mutex::default(), Instant::now());
        assert!(is_due(&logged, now));
        assert!(!is_due(&logged, now));
        assert!(!is_due(&logged, now + LOG_INTERVAL / 2));
        assert!(is_due(&logged, now + LOG_INTERVAL));
        assert!(!is_due(&logged, now + LOG_INTERVAL));
    }
}
