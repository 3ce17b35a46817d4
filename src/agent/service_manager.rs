//! Notifications of systemd, for units with `Type=notify` and `WatchdogSec=`.
//!
//! Without `NOTIFY_SOCKET` in the environment, all of them do nothing.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::logging::LogEvent;
use crate::sync::SyncHealth;

/// The shortest pause between two pings, whatever `WATCHDOG_USEC` says.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Reports that the daemon is ready after its first commit, and then pings the watchdog while the
/// sync loop is healthy. Does not return.
///
/// The criteria are those of `/readyz` and `/livez`: systemd restarts what a kubelet would restart.
pub(super) async fn follow(health: Arc<SyncHealth>) -> Infallible {
    notify(&[NotifyState::Status("waiting for the first sync")]);
    health.first_commit().await;
    notify(&[
        NotifyState::Ready,
        NotifyState::Status("running; the first sync is committed"),
    ]);
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return pending().await;
    };
    let mut pings = interval((limit / 2).max(SHORTEST_PAUSE));
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pings.tick().await;
        if health.is_healthy() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Reports that the daemon stops.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Sends a notification. The daemon works without it.
fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(event = %LogEvent::NotifyFailed, %error, "cannot notify the service manager");
    }
}
