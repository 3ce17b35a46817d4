//! The manifests below a directory, and one of them read.
//!
//! A name that begins with a dot is passed over: editors and version control put their own files
//! there, and a mounted `ConfigMap` keeps its generations in `..2024_…`, to which the names that
//! count are links. Links are followed, each directory being listed once.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::SkippedManifest;
use super::content::ManifestFormat;

/// What is below a directory.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The manifests.
    pub(super) files: BTreeSet<PathBuf>,
    /// The directories, the first one included.
    pub(super) directories: BTreeSet<PathBuf>,
    /// The directories that could not be listed.
    pub(super) unreadable: BTreeSet<PathBuf>,
    /// Why they could not.
    pub(super) problems: Vec<SkippedManifest>,
    canonical: BTreeSet<PathBuf>,
}

impl Walk {
    /// Everything below `directory`. `entering` is called with each directory before it is listed:
    /// a watch set there misses nothing that comes later. It is not called with a second path to
    /// the same directory, as inotify knows a directory by one only.
    pub(super) fn below(directory: &Path, entering: &mut dyn FnMut(&Path)) -> Self {
        let mut walk = Self::default();
        let mut ahead = vec![directory.to_owned()];
        while let Some(directory) = ahead.pop() {
            match walk.list(&directory, entering) {
                Ok(below) => ahead.extend(below.into_iter().rev()),
                // It went while we looked; whoever watches is told so.
                Err(source) if is_missing(&source) => {}
                Err(source) => {
                    walk.unreadable.insert(directory.clone());
                    walk.problems.push(SkippedManifest::Read {
                        path: directory,
                        source,
                    });
                }
            }
        }
        walk
    }

    /// Whether `path` was not seen for the only reason that a directory above it was not listed.
    pub(super) fn may_hide(&self, path: &Path) -> bool {
        path.ancestors()
            .any(|above| self.unreadable.contains(above))
    }

    /// Takes in the files of `directory` and returns the directories, in order.
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

pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"."))
}

/// How the manifest at `path` is written, `None` if it is no manifest by its name.
pub(super) fn format(path: &Path) -> Option<ManifestFormat> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(ManifestFormat::Yaml),
        "json" => Some(ManifestFormat::Json),
        _ => None,
    }
}

/// Device and inode number.
pub(super) type FileIdentity = (u64, u64);

/// Which file or directory is at `path`, if any is.
pub(super) fn identity(path: &Path) -> Option<FileIdentity> {
    Stamp::of(path).map(|stamp| stamp.identity)
}

/// What changes whenever a file does, as far as the clock of its file system can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) identity: FileIdentity,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn new(metadata: &fs::Metadata) -> Self {
        Self {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp of the file at `path`, if it can be told.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::new)
    }
}

/// The text of the file at `path`; `None` if there is no such file.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    let text = fs::metadata(path).and_then(|metadata| {
        // Opening a pipe would wait for its writer.
        let is_file = metadata.is_file();
        is_file.then(|| fs::read_to_string(path)).transpose()
    });
    match text {
        Err(error) if is_missing(&error) => Ok(None),
        text => text,
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
