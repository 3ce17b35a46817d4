//! The file that `--config` names: when it changes, the process ends, to be started anew with what
//! it holds then.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::warn;

use super::read::{self, ReadError};
use super::{KubeProxyConfiguration, LenientFields};

/// How long a file is left in peace after a report: a writer may not be done.
const SETTLED: Duration = Duration::from_millis(100);

/// A configuration file, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
}

/// Why a file is not followed any longer.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It holds something else.
    #[error("configuration file {} has changed: ending, to be started anew", .0.display())]
    Changed(PathBuf),
    /// It cannot be watched.
    #[error("cannot watch configuration file {}: {source}", .path.display())]
    Unwatchable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
}

impl ConfigFile {
    /// Reads it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Ok(Self {
            path: path.to_owned(),
            text: read::text(path)?,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says, without defaults, and what is passed over in it.
    ///
    /// # Errors
    /// If it is no `KubeProxyConfiguration`.
    pub fn parse(&self) -> Result<(KubeProxyConfiguration, LenientFields), ReadError> {
        read::parse(&self.text, &self.path)
    }

    /// Waits until it holds something else. A file that is gone is waited for: it may be about to
    /// be replaced.
    pub async fn changed(&self) -> FollowError {
        loop {
            let (reports, mut reported) = mpsc::channel(1);
            // Where links lead may have changed since.
            let _watcher = match self.watch(reports) {
                Ok(watcher) => watcher,
                Err(source) => {
                    let path = self.path.clone();
                    return FollowError::Unwatchable { path, source };
                }
            };
            // After the watch began, so that no change falls between.
            match read::text(&self.path) {
                Ok(text) if text == self.text => {}
                Ok(_) => return FollowError::Changed(self.path.clone()),
                Err(error) => warn!(%error, "waiting for the configuration file"),
            }
            // The watcher holds the other end.
            if reported.recv().await.is_none() {
                return std::future::pending().await;
            }
            sleep(SETTLED).await;
        }
    }

    /// Watches the directories that the file and what it links to are in: files of a `ConfigMap`
    /// are replaced by renaming a link beside them.
    fn watch(&self, reports: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |report: notify::Result<_>| {
            let is_read = |event: &notify::Event| event.kind.is_access();
            if !report.as_ref().is_ok_and(is_read) {
                // One report waiting is as good as many.
                let _waiting = reports.try_send(());
            }
        })?;
        let directory = |path: &Path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let here = directory(&self.path);
        watcher.watch(&here, RecursiveMode::NonRecursive)?;
        if let Ok(target) = self.path.canonicalize() {
            let there = directory(&target);
            if here.canonicalize().is_ok_and(|here| here != there) {
                watcher.watch(&there, RecursiveMode::NonRecursive)?;
            }
        }
        Ok(watcher)
    }
}
