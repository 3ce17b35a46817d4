//! The takeover beside the running daemon: tried again until nothing of kube-proxy's is left.

use std::time::Duration;

use tracing::{error, info};

use super::takeover::{Takeover, TakeoverResult};
use crate::kube_proxy::leftovers::removal;
use crate::logging::LogEvent;
use crate::netlink::{Error, Kernel};

/// How long after an attempt the next one comes: at first, and at most.
const FIRST: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_mins(5);

/// Removes it at the right moment, which is after our own first commit, and what stays later. What
/// becomes of it is logged, each thing once. Ends when nothing is left, or kube-proxy works again.
pub async fn remove_and_tell() {
    let mut takeover = Takeover::default();
    let mut found = false;
    let mut told = String::new();
    let mut pause = FIRST;
    loop {
        let TakeoverResult { removed, stays } = attempt(&mut takeover).await;
        found |= !removed.is_empty() || !stays.is_empty();
        if !removed.is_empty() {
            info!(event = %LogEvent::KubeProxyRemoved, removed = removed.join(", "), "removed what kube-proxy left");
        }
        if stays.is_empty() {
            if !found {
                info!(event = %LogEvent::KubeProxyNotFound, "kube-proxy left nothing to remove");
            }
            return;
        }
        let stays: Vec<_> = stays.iter().map(|error| format!("{error:#}")).collect();
        let stays = stays.join("; ");
        if stays != told {
            error!(
                event = %LogEvent::TakeoverFailed,
                error = stays,
                "cannot remove all that kube-proxy left; retrying; kube-dnat's rules are active"
            );
            told = stays;
        }
        tokio::time::sleep(pause).await;
        pause = MOST.min(pause * 2);
        // Where it cannot be told, the next attempt fails likewise.
        if takeover.rules_went && matches!(is_back(), Ok(true)) {
            info!(event = %LogEvent::KubeProxyReturned, "kube-proxy is running again; stopping the takeover");
            return;
        }
    }
}

async fn attempt(takeover: &mut Takeover) -> TakeoverResult {
    match Kernel::open() {
        Ok(mut kernel) => takeover.remove(&mut kernel).await,
        Err(error) => TakeoverResult {
            removed: Vec::new(),
            stays: vec![error.into()],
        },
    }
}

/// Whether kube-proxy made its rules again.
fn is_back() -> Result<bool, Error> {
    let found = removal(&Kernel::open()?.full_ruleset()?);
    Ok(found.has_services())
}
