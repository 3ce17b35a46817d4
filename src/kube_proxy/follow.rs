//! The takeover of a running daemon, which retries until all rules of kube-proxy are removed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{error, info};

use super::takeover::{Takeover, TakeoverResult};
use crate::kube_proxy::leftovers::removal;
use crate::logging::LogEvent;
use crate::netlink::{Error, Kernel};

/// The first pause between two attempts; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_mins(5);

/// The state of a takeover, which `/debug/status` reports. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct TakeoverProgress(Arc<Mutex<Option<String>>>);

impl TakeoverProgress {
    /// Returns what the takeover waits for; `None` if it is done, or was never asked for.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    /// Records that the takeover waits for the first sync.
    pub fn wait_for_first_sync(&self) {
        self.set(Some("the first sync".to_owned()));
    }

    /// Records what the takeover waits for.
    fn set(&self, waits_for: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waits_for;
    }
}

/// Removes what kube-proxy left on the node, and retries what remains.
///
/// Call it after the first commit. It logs each outcome once, and ends when nothing remains or when
/// kube-proxy is running again.
pub async fn take_over(progress: &TakeoverProgress) {
    follow(progress).await;
    progress.set(None);
}

/// Attempts the takeover until nothing remains, or kube-proxy is running again.
async fn follow(progress: &TakeoverProgress) {
    let mut takeover = Takeover::default();
    let mut has_found_any = false;
    let mut logged = String::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let TakeoverResult { removed, failed } = attempt(&mut takeover).await;
        has_found_any |= !removed.is_empty() || !failed.is_empty();
        if !removed.is_empty() {
            info!(event = %LogEvent::KubeProxyRemoved, removed = removed.join(", "), "removed what kube-proxy left");
        }
        if failed.is_empty() {
            if !has_found_any {
                info!(event = %LogEvent::KubeProxyNotFound, "kube-proxy left nothing to remove");
            }
            return;
        }
        let errors: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
        let error = errors.join("; ");
        if error != logged {
            progress.set(Some(format!("the next attempt, after an error: {error}")));
            error!(
                event = %LogEvent::TakeoverFailed,
                error,
                "cannot remove all that kube-proxy left; retrying; kube-dnat's rules are active"
            );
            logged = error;
        }
        tokio::time::sleep(pause).await;
        pause = MAX_PAUSE.min(pause * 2);
        // If the ruleset cannot be read, the next attempt fails as well.
        if takeover.has_removed_rules && matches!(has_rules_again(), Ok(true)) {
            info!(event = %LogEvent::KubeProxyReturned, "kube-proxy is running again; stopping the takeover");
            return;
        }
    }
}

/// Runs one attempt with its own netlink socket.
async fn attempt(takeover: &mut Takeover) -> TakeoverResult {
    match Kernel::open() {
        Ok(mut kernel) => takeover.remove(&mut kernel).await,
        Err(error) => TakeoverResult {
            removed: Vec::new(),
            failed: vec![error.into()],
        },
    }
}

/// Returns whether kube-proxy has written its rules again.
fn has_rules_again() -> Result<bool, Error> {
    let found = removal(&Kernel::open()?.full_ruleset()?);
    Ok(found.has_services())
}
