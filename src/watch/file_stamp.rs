//! What changes with the content of a file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The device and inode number of a file.
pub(super) type FileIdentity = (u64, u64);

/// The metadata that changes with the content of a file, as finely as the clock of its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    /// The device and inode number.
    pub(super) identity: FileIdentity,
    /// The size in bytes.
    size: u64,
    /// The time of the last change of the content, in seconds and nanoseconds.
    modified: (i64, i64),
    /// The time of the last change of the inode, in seconds and nanoseconds.
    changed: (i64, i64),
}

impl FileStamp {
    /// Builds the stamp from the metadata of a file.
    fn new(metadata: &fs::Metadata) -> Self {
        Self {
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Reads the stamp of the file at `path`, if possible.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::new)
    }
}
