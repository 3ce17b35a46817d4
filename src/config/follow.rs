//! Watches the file that `--config` names: when it changes, the daemon exits, to be restarted with
//! the new configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::warn;

use super::read::{self, ReadError};
use super::{KubeProxyConfiguration, LenientFields};
use crate::logging::LogEvent;

/// The time between a notification and the next read, because the writer may not have finished.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// A configuration file and its contents at the time of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// The path of the file.
    path: PathBuf,
    /// The contents at the time of reading.
    text: String,
}

/// The reason why the daemon stops watching its configuration file.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The contents have changed.
    #[error("configuration file {} changed: exiting to be restarted", .0.display())]
    Changed(PathBuf),
    /// The file cannot be watched.
    #[error("cannot watch configuration file {}: {source}", .path.display())]
    Unwatchable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: notify::Error,
    },
}

impl ConfigFile {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Ok(Self {
            path: path.to_owned(),
            text: read::text(path)?,
        })
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Parses the contents, without defaults. Also returns the fields that only the lenient decoder
    /// accepts.
    ///
    /// # Errors
    /// If the file is not a `KubeProxyConfiguration`.
    pub fn parse(&self) -> Result<(KubeProxyConfiguration, LenientFields), ReadError> {
        read::parse(&self.text, &self.path)
    }

    /// Waits until the contents change. A missing file is not a change, because it may be about to
    /// be replaced.
    pub async fn changed(&self) -> FollowError {
        loop {
            let (notifier, mut notifications) = mpsc::channel(1);
            // A new watcher each time, because links can have new targets.
            let _watcher = match self.watch(notifier) {
                Ok(watcher) => watcher,
                Err(source) => {
                    let path = self.path.clone();
                    return FollowError::Unwatchable { path, source };
                }
            };
            // The read follows the start of the watch, so that no change is missed.
            match read::text(&self.path) {
                Ok(text) if text == self.text => {}
                Ok(_) => return FollowError::Changed(self.path.clone()),
                Err(error) => {
                    warn!(
                        event = %LogEvent::ConfigFileUnreadable,
                        %error, "cannot read the configuration file; retrying when it changes"
                    );
                }
            }
            // The watcher holds the other end of the channel.
            if notifications.recv().await.is_none() {
                return std::future::pending().await;
            }
            sleep(SETTLE_TIME).await;
        }
    }

    /// Watches the directory of the file and that of its link target: the kubelet replaces files of
    /// a `ConfigMap` by renaming a link in their directory.
    fn watch(&self, notifier: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |notification: notify::Result<_>| {
            let is_read = |event: &notify::Event| event.kind.is_access();
            if !notification.as_ref().is_ok_and(is_read) {
                // The channel is full if a notification is pending already.
                let _pending = notifier.try_send(());
            }
        })?;
        let directory = |path: &Path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let own = directory(&self.path);
        watcher.watch(&own, RecursiveMode::NonRecursive)?;
        if let Ok(target) = self.path.canonicalize() {
            let linked = directory(&target);
            if own.canonicalize().is_ok_and(|own| own != linked) {
                watcher.watch(&linked, RecursiveMode::NonRecursive)?;
            }
        }
        Ok(watcher)
    }
}
