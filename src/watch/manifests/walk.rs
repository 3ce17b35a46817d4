//! The walk of a directory for manifests, and the reading of one file.
//!
//! Names that begin with a dot are ignored: editors and version control use them for their own
//! files, and a mounted `ConfigMap` keeps its generations in `..2024_…`, to which its visible names
//! are links. The walk follows links, and lists each directory once.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::UnreadableManifest;
use super::content::ManifestFormat;
use crate::watch::file_stamp::{FileIdentity, FileStamp};

/// The result of a walk.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The manifests.
    pub(super) files: BTreeSet<PathBuf>,
    /// The directories, including the first one.
    pub(super) directories: BTreeSet<PathBuf>,
    /// The directories that cannot be listed.
    pub(super) unreadable: BTreeSet<PathBuf>,
    /// The error of each directory that cannot be listed.
    pub(super) problems: Vec<UnreadableManifest>,
    /// The canonical paths of the directories that were entered.
    canonical: BTreeSet<PathBuf>,
}

impl Walk {
    /// Walks `directory`.
    ///
    /// `entering` is called with each directory before it is listed, so that a watch set there
    /// misses no later change. It is not called with a second path to the same directory, because
    /// inotify knows a directory by one path only.
    pub(super) fn below(directory: &Path, entering: &mut dyn FnMut(&Path)) -> Self {
        let mut walk = Self::default();
        let mut ahead = vec![directory.to_owned()];
        while let Some(directory) = ahead.pop() {
            match walk.list(&directory, entering) {
                Ok(below) => ahead.extend(below.into_iter().rev()),
                // It was removed during the walk; its watch reports that.
                Err(source) if is_missing(&source) => {}
                Err(source) => {
                    walk.unreadable.insert(directory.clone());
                    walk.problems.push(UnreadableManifest::Read {
                        path: directory,
                        source,
                    });
                }
            }
        }
        walk
    }

    /// Returns whether `path` may exist below a directory that cannot be listed.
    pub(super) fn may_hide(&self, path: &Path) -> bool {
        path.ancestors()
            .any(|above| self.unreadable.contains(above))
    }

    /// Adds the files of `directory` and returns its directories, in order.
    fn list(
        &mut self,
        directory: &Path,
        entering: &mut dyn FnMut(&Path),
    ) -> io::Result<BTreeSet<PathBuf>> {
        let mut below = BTreeSet::new();
        if !self.canonical.insert(directory.canonicalize()?) {
            return Ok(below);
        }
        entering(directory);
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if is_hidden(&path) {
                continue;
            }
            if path.is_dir() {
                below.insert(path);
            } else if format(&path).is_some() {
                self.files.insert(path);
            }
        }
        self.directories.insert(directory.to_owned());
        Ok(below)
    }
}

/// Returns whether a name begins with a dot.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"."))
}

/// Returns the format of a manifest from the extension of its name; `None` for other files.
pub(super) fn format(path: &Path) -> Option<ManifestFormat> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(ManifestFormat::Yaml),
        "json" => Some(ManifestFormat::Json),
        _ => None,
    }
}

/// Returns whether `path` is a manifest by its name.
pub(super) fn is_manifest(path: &Path) -> bool {
    format(path).is_some() && !is_hidden(path)
}

/// Returns whether `path` is a name of Kubernetes' `AtomicWriter`, which mounts a `ConfigMap`.
///
/// The visible links lead through `..data`, which is replaced to change all files at once.
pub(super) fn is_generation(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_bytes);
    name.is_some_and(|name| name.starts_with(b".."))
}

/// Returns whether the file at `path` is a symbolic link or has several names.
pub(super) fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink() || file.nlink() > 1)
}

/// Returns the identity of the file or directory at `path`, if it exists.
pub(super) fn identity(path: &Path) -> Option<FileIdentity> {
    FileStamp::of(path).map(|stamp| stamp.identity)
}

/// Reads the text of the file at `path`; `None` if it does not exist.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    let text = fs::metadata(path).and_then(|metadata| {
        // Opening a pipe would block until it has a writer.
        let is_file = metadata.is_file();
        is_file.then(|| fs::read_to_string(path)).transpose()
    });
    match text {
        Err(error) if is_missing(&error) => Ok(None),
        text => text,
    }
}

/// Returns whether an error means that the file does not exist.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
