//! What the kernel reports of a watched directory, in the words of inotify(7).

use std::path::PathBuf;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};

/// One report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// `IN_CREATE`: a name is new; what stands behind it may still be written.
    Created(PathBuf),
    /// `IN_MODIFY`: someone is writing to the file, and will close it.
    Written(PathBuf),
    /// `IN_CLOSE_WRITE`: a writer of the file is done.
    Closed(PathBuf),
    /// `IN_MOVED_TO`: something complete has taken the name.
    MovedIn(PathBuf),
    /// `IN_MOVED_FROM`, `IN_DELETE`, `IN_MOVE_SELF`, `IN_DELETE_SELF`: the name is gone.
    Gone(PathBuf),
    /// `IN_ATTRIB`: permissions, among others.
    Attributes(PathBuf),
    /// `IN_Q_OVERFLOW`: reports are lost.
    Lost,
}

impl Notice {
    /// The report in `event`; none in one that changes nothing (a file opened or read).
    pub(super) fn of(event: notify::Event) -> Option<Self> {
        if event.need_rescan() {
            return Some(Self::Lost);
        }
        let path = event.paths.into_iter().next()?;
        match event.kind {
            EventKind::Create(_) => Some(Self::Created(path)),
            EventKind::Modify(ModifyKind::Data(_)) => Some(Self::Written(path)),
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Self::Closed(path)),
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Self::MovedIn(path)),
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                Some(Self::Gone(path))
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => Some(Self::Attributes(path)),
            // A rename is reported once more in full, after its two halves.
            EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Any | ModifyKind::Other)
            | EventKind::Access(_)
            | EventKind::Any
            | EventKind::Other => None,
        }
    }
}
