//! The files and directories that cannot be read or parsed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::watch::report::ManifestsReport;

/// The current problems of the manifests. Clones share them.
#[derive(Clone, Debug)]
pub struct ManifestProblems {
    /// The directory of manifests.
    directory: PathBuf,
    /// The reason why a file or directory cannot be read or parsed.
    problems: Arc<Mutex<BTreeMap<PathBuf, String>>>,
}

impl ManifestProblems {
    /// Creates the problems of a directory, of which there are none yet.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            problems: Arc::default(),
        }
    }

    /// Locks the map, which a panic of another thread cannot leave half changed.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, String>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the problem of a path; returns whether there was none before.
    pub(super) fn insert(&self, path: &Path, reason: String) -> bool {
        self.lock().insert(path.to_owned(), reason).is_none()
    }

    /// Records that a path has no problem; returns whether it had one.
    pub(super) fn remove(&self, path: &Path) -> bool {
        self.lock().remove(path).is_some()
    }

    /// Keeps only the problems of some paths.
    pub(super) fn retain(&self, keep: impl Fn(&Path) -> bool) {
        self.lock().retain(|path, _| keep(path));
    }

    /// Reports the problems.
    pub(in crate::watch) fn report(&self) -> ManifestsReport {
        let problems = self.lock();
        let problems = problems
            .iter()
            .map(|(path, reason)| (path.display().to_string(), reason.clone()));
        ManifestsReport {
            directory: self.directory.display().to_string(),
            problems: problems.collect(),
        }
    }
}
