//! Changes that are taken in together.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::walk::FileIdentity;

/// What to look at again.
#[derive(Debug, Default)]
pub(super) struct Rescan {
    /// The files that are named.
    pub(super) files: BTreeSet<PathBuf>,
    /// Names that are new and that nobody has opened.
    pub(super) created: BTreeSet<PathBuf>,
    /// What was written, whatever its name: links may lead to it.
    pub(super) written: BTreeSet<FileIdentity>,
    /// Which other files to look for.
    pub(super) scan: Scan,
    /// Whether a name has gone.
    pub(super) removes: bool,
    /// Whether the directory itself has gone or become another one.
    pub(super) detached: bool,
}

/// Which files to look for besides those that are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scan {
    #[default]
    None,
    /// Those that are new, other ones than before, or gone.
    Changed,
    /// All.
    Everything,
}

impl Rescan {
    /// Every file there is.
    pub(super) fn everything() -> Self {
        Self {
            scan: Scan::Everything,
            ..Self::default()
        }
    }

    pub(super) fn scan(&mut self, scan: Scan) {
        self.scan = self.scan.max(scan);
    }
}
