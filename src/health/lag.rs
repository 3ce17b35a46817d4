//! Whether what was reported reaches the kernel.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a change may wait to be committed before we are unhealthy: twice kube-proxy's
/// `syncPeriod` of 30 s, as `pkg/proxy/healthcheck/proxy_health.go` has it.
const PATIENCE: Duration = Duration::from_mins(1);

/// Since when something waits to be committed. Shared by who commits and who tells.
#[derive(Debug, Default)]
pub struct Lag {
    since: Mutex<Option<Instant>>,
}

impl Lag {
    /// Something waits, from now on if not already.
    pub fn waiting(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now);
    }

    /// Everything is committed.
    pub fn committed(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether nothing has waited too long.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_healthy_at(Instant::now())
    }

    fn is_healthy_at(&self, now: Instant) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_none_or(|since| now.saturating_duration_since(since) <= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_for_long_is_unhealthy() {
        let lag = Lag::default();
        let (now, later) = (Instant::now(), Instant::now() + PATIENCE * 2);
        assert!(lag.is_healthy_at(later));
        lag.waiting();
        assert!(lag.is_healthy_at(now));
        assert!(!lag.is_healthy_at(later));
        // It does not begin anew with the next change.
        lag.waiting();
        assert!(!lag.is_healthy_at(later));
        lag.committed();
        assert!(lag.is_healthy_at(later));
    }
}
