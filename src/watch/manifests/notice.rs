//! What the kernel reports of a watched directory, in the words of inotify(7).

use std::collections::VecDeque;
use std::path::PathBuf;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};

/// One report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// `IN_CREATE`: a name is new. A link, of either sort, is complete as it is made.
    Created(PathBuf),
    /// `IN_OPEN` after `IN_CREATE`: the name is new because someone is going to write to it.
    Opened(PathBuf),
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
    /// The report in `event`; none in one that says nothing of a file's content.
    fn of(event: notify::Event) -> Option<Self> {
        if event.need_rescan() {
            return Some(Self::Lost);
        }
        let path = event.paths.into_iter().next()?;
        match event.kind {
            EventKind::Create(_) => Some(Self::Created(path)),
            EventKind::Access(AccessKind::Open(_)) => Some(Self::Opened(path)),
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

/// Which reports are worth waking up for.
#[derive(Debug, Default)]
pub(super) struct Filter {
    previous: Option<Notice>,
    /// The latest names that are new and not known to be opened.
    created: VecDeque<PathBuf>,
}

impl Filter {
    /// How many names may be made between a file's being made and being opened, which is one system
    /// call.
    const CREATED: usize = 64;

    /// The report in `event`, unless it is of a file opened to be read, as we do ourselves, or of
    /// one more piece written to a file.
    pub(super) fn pass(&mut self, event: notify::Event) -> Option<Notice> {
        let notice = Notice::of(event)?;
        match &notice {
            Notice::Created(path) => {
                self.created.truncate(Self::CREATED - 1);
                self.created.push_front(path.clone());
            }
            Notice::Opened(path) => {
                let place = self.created.iter().position(|created| created == path)?;
                self.created.remove(place);
            }
            Notice::Written(_) if self.previous.as_ref() == Some(&notice) => return None,
            Notice::Written(_)
            | Notice::Closed(_)
            | Notice::MovedIn(_)
            | Notice::Gone(_)
            | Notice::Attributes(_)
            | Notice::Lost => {}
        }
        self.previous = Some(notice.clone());
        Some(notice)
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, Flag, MetadataKind, RemoveKind};

    use super::*;

    #[test]
    fn each_event_that_bears_on_content_is_a_notice() {
        let path = || PathBuf::from("/m/a.yaml");
        for (kind, expected) in [
            (
                EventKind::Create(CreateKind::File),
                Some(Notice::Created(path())),
            ),
            (
                EventKind::Create(CreateKind::Folder),
                Some(Notice::Created(path())),
            ),
            (
                EventKind::Modify(ModifyKind::Data(DataChange::Any)),
                Some(Notice::Written(path())),
            ),
            (
                EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)),
                Some(Notice::Attributes(path())),
            ),
            (
                EventKind::Modify(ModifyKind::Name(RenameMode::To)),
                Some(Notice::MovedIn(path())),
            ),
            (
                EventKind::Modify(ModifyKind::Name(RenameMode::From)),
                Some(Notice::Gone(path())),
            ),
            (EventKind::Modify(ModifyKind::Name(RenameMode::Both)), None),
            (
                EventKind::Remove(RemoveKind::File),
                Some(Notice::Gone(path())),
            ),
            (
                EventKind::Access(AccessKind::Close(AccessMode::Write)),
                Some(Notice::Closed(path())),
            ),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), None),
            (
                EventKind::Access(AccessKind::Open(AccessMode::Any)),
                Some(Notice::Opened(path())),
            ),
        ] {
            let event = notify::Event::new(kind).add_path(path());
            assert_eq!(Notice::of(event), expected, "{kind:?}");
        }
        let overflow = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(Notice::of(overflow), Some(Notice::Lost));
    }

    #[test]
    fn a_file_that_is_opened_to_be_read_or_written_piece_by_piece_wakes_nobody() {
        let created = EventKind::Create(CreateKind::File);
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let moved_in = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let mut filter = Filter::default();
        for (kind, path, passes) in [
            (opened, "a", false),
            (created, "a", true),
            (created, "b", true),
            (opened, "a", true),
            (opened, "a", false),
            (written, "a", true),
            (written, "a", false),
            (written, "b", true),
            (written, "a", true),
            (moved_in, "a", true),
            (moved_in, "a", true),
        ] {
            let event = notify::Event::new(kind).add_path(path.into());
            assert_eq!(filter.pass(event).is_some(), passes, "{kind:?} {path}");
        }
    }
}
