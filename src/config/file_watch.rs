//! Notifications of changes of one file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// The time between a notification and the next read, because the writer may not have finished.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// A watch on a file, which notices one change.
///
/// It starts before the file is read, so that no change is missed. The next change needs a new
/// watch, because links can have new targets.
pub struct FileWatch {
    /// The watcher, which ends when it is dropped.
    _watcher: RecommendedWatcher,
    /// The notifications.
    notifications: mpsc::Receiver<()>,
}

impl FileWatch {
    /// Watches the directory of the file and that of its link target: the kubelet replaces files of
    /// a `ConfigMap` by renaming a link in their directory.
    ///
    /// # Errors
    /// If the directory does not exist, or the kernel has no watch left.
    pub fn start(path: &Path) -> notify::Result<Self> {
        let (notifier, notifications) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |notification: notify::Result<_>| {
            let is_read = |event: &notify::Event| event.kind.is_access();
            if !notification.as_ref().is_ok_and(is_read) {
                // The channel is full if a notification is pending already.
                let _pending = notifier.try_send(());
            }
        })?;
        let own = directory(path);
        watcher.watch(&own, RecursiveMode::NonRecursive)?;
        if let Ok(target) = path.canonicalize() {
            let linked = directory(&target);
            if own.canonicalize().is_ok_and(|own| own != linked) {
                watcher.watch(&linked, RecursiveMode::NonRecursive)?;
            }
        }
        Ok(Self {
            _watcher: watcher,
            notifications,
        })
    }

    /// Waits until the file may have changed.
    pub async fn changed(mut self) {
        // The watcher holds the other end of the channel.
        if self.notifications.recv().await.is_none() {
            return std::future::pending().await;
        }
        sleep(SETTLE_TIME).await;
    }
}

/// Returns the directory of a file.
fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
