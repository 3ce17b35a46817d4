//! The files to read again after notices from the kernel.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::watch::file_stamp::FileIdentity;

/// The files to read again after one or more notices.
#[derive(Debug, Default)]
pub(super) struct Rescan {
    /// The files that notices name.
    pub(super) files: BTreeSet<PathBuf>,
    /// The names that were created and not opened since.
    pub(super) created: BTreeSet<PathBuf>,
    /// The files that were written, by identity, since links may lead to them.
    pub(super) written: BTreeSet<FileIdentity>,
    /// The other files to look for.
    pub(super) scan: Scan,
    /// Whether a name was removed.
    pub(super) removes: bool,
    /// Whether the directory itself was removed or replaced.
    pub(super) detached: bool,
}

/// The extent of the search for files that no notice names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scan {
    /// No search.
    #[default]
    None,
    /// A search for files that are new, changed or removed.
    Changed,
    /// A search that reads every file.
    Everything,
}

impl Rescan {
    /// Builds a rescan of every file.
    pub(super) fn everything() -> Self {
        Self {
            scan: Scan::Everything,
            ..Self::default()
        }
    }

    /// Extends the search to `scan`.
    pub(super) fn scan(&mut self, scan: Scan) {
        self.scan = self.scan.max(scan);
    }
}
