//! The kernel's notifications of changes, sent to the thread.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use super::notice::{Filter, Notice};
use super::{ManifestsError, check_directory};
use crate::logging::LogEvent;

/// A message to the thread.
#[derive(Debug)]
pub(super) enum Signal {
    /// A notice from the kernel.
    Notice(Notice),
    /// The request to stop.
    Stop,
}

/// The flags that other threads set.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// Whether the thread must end.
    pub(super) stop: AtomicBool,
    /// Whether a notice was dropped because the channel was full.
    pub(super) lost: AtomicBool,
}

/// Watches `dir` and sends notices to `signals`.
///
/// The watch covers only `dir` itself. The walk watches each directory below before it lists it; a
/// recursive watch would begin some time after the directory was reported, and miss the files that
/// are written in between.
pub(super) fn watcher(
    dir: &Path,
    signals: &SyncSender<Signal>,
    flags: &Arc<Flags>,
) -> Result<RecommendedWatcher, ManifestsError> {
    check_directory(dir)?;
    let (signals, flags) = (signals.clone(), flags.clone());
    let mut filter = Filter::default();
    let send = move |event: notify::Result<notify::Event>| {
        let notice = match event {
            Ok(event) => filter.pass(event),
            Err(error) => {
                warn!(event = %LogEvent::ManifestsWatchFailed, %error, "notifications of manifest changes were lost");
                Some(Notice::Lost)
            }
        };
        // Waiting for room would be a deadlock: the thread waits for this one to set watches.
        if let Some(notice) = notice
            && signals.try_send(Signal::Notice(notice)).is_err()
        {
            flags.lost.store(true, Ordering::Relaxed);
        }
    };
    notify::recommended_watcher(send)
        .and_then(|mut watcher| {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        })
        .map_err(|source| ManifestsError::Watch {
            path: dir.to_owned(),
            source,
        })
}

/// Watches a directory below, if it still exists.
pub(super) fn watch_below(watcher: &mut RecommendedWatcher, directory: &Path) {
    match watcher.watch(directory, RecursiveMode::NonRecursive) {
        Ok(()) => {}
        Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
        Err(error) => {
            warn!(event = %LogEvent::ManifestsWatchFailed, %error, directory = %directory.display(), "cannot watch a directory; its changes go unnoticed");
        }
    }
}
