//! Watches the file that `--config` names: when it changes, the daemon exits, to be restarted with
//! the new configuration.

use std::path::{Path, PathBuf};

use tracing::warn;

use super::file_watch::FileWatch;
use super::read::{self, ReadError};
use super::{KubeProxyConfiguration, LenientFields};
use crate::logging::LogEvent;

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
            let watch = match FileWatch::start(&self.path) {
                Ok(watch) => watch,
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
            watch.changed().await;
        }
    }
}
