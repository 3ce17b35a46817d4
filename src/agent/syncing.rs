//! The thread that syncs the kernel, and the takeover after its first sync.

use std::thread;

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, oneshot, watch};

use super::runtime;
use crate::kube_proxy::{self, TakeoverProgress};
use crate::planner::model::Events;
use crate::sync::{DebugRequest, Syncer};

/// The running thread of a [`Syncer`]. It has its own thread because it blocks during a commit.
pub(super) struct SyncThread {
    /// The handle to wait for the thread.
    thread: thread::JoinHandle<()>,
    /// The channel that tells the thread to stop.
    stop: watch::Sender<bool>,
}

impl SyncThread {
    /// Starts the thread. It syncs the events, and answers the debug requests.
    pub(super) fn start(
        syncer: Syncer,
        events: mpsc::Receiver<Events>,
        debug_requests: mpsc::Receiver<DebugRequest>,
    ) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new()
            .name("sync".to_owned())
            .spawn(move || runtime.block_on(syncer.run(events, debug_requests, stopped)))
            .context("cannot start a thread")?;
        Ok(Self { thread, stop })
    }

    /// Stops the thread after the sync in progress.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        self.thread
            .join()
            .map_err(|_panic| anyhow!("the thread that programs the kernel panicked"))
    }
}

/// Starts a thread that removes kube-proxy's rules when the first sync is reported to the sender.
/// The sync loop does not wait for the thread.
pub(super) fn take_over_later(progress: TakeoverProgress) -> anyhow::Result<oneshot::Sender<()>> {
    let runtime = runtime()?;
    progress.wait_for_first_sync();
    let (first_sync, is_done) = oneshot::channel();
    let take_over = async move {
        // The sender is dropped without a first sync when the daemon exits.
        if is_done.await.is_ok() {
            kube_proxy::take_over(&progress).await;
        }
    };
    thread::Builder::new()
        .name("takeover".to_owned())
        .spawn(move || runtime.block_on(take_over))
        .context("cannot start a thread")?;
    Ok(first_sync)
}
