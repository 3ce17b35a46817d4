//! The notices of inotify(7) about a watched directory.

use std::collections::VecDeque;
use std::path::PathBuf;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};

/// A notice about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// `IN_CREATE`: a name is new. A link, hard or symbolic, is complete at once.
    Created(PathBuf),
    /// `IN_OPEN` after `IN_CREATE`: a process is about to write to the new file.
    Opened(PathBuf),
    /// `IN_MODIFY`: a process is writing to the file, and will close it.
    Written(PathBuf),
    /// `IN_CLOSE_WRITE`: a process that could write to the file closed it.
    Closed(PathBuf),
    /// `IN_MOVED_TO`: a complete file or directory was renamed to this name.
    MovedIn(PathBuf),
    /// `IN_MOVED_FROM`, `IN_DELETE`, `IN_MOVE_SELF`, `IN_DELETE_SELF`: the name was removed.
    Removed(PathBuf),
    /// `IN_ATTRIB`: permissions or other metadata changed.
    Attributes(PathBuf),
    /// `IN_Q_OVERFLOW`: notices were lost.
    Lost,
}

impl Notice {
    /// Converts an event; `None` if it does not affect the content of a file.
    fn from_event(event: notify::Event) -> Option<Self> {
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
                Some(Self::Removed(path))
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => Some(Self::Attributes(path)),
            // A rename is reported again as a whole, after its two halves.
            EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Any | ModifyKind::Other)
            | EventKind::Access(_)
            | EventKind::Any
            | EventKind::Other => None,
        }
    }
}

/// Drops notices that need no reaction.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// The last notice that passed.
    previous: Option<Notice>,
    /// The names that were created last and not opened since.
    created: VecDeque<PathBuf>,
}

impl Filter {
    /// The number of names that can be created while another file is created and opened, which is
    /// one system call.
    const CREATED: usize = 64;

    /// Converts an event, unless it is a file opened to be read, as this process does itself, or a
    /// further write to the same file.
    pub(super) fn pass(&mut self, event: notify::Event) -> Option<Notice> {
        let notice = Notice::from_event(event)?;
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
            | Notice::Removed(_)
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
    fn each_event_that_affects_content_is_a_notice() {
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
                Some(Notice::Removed(path())),
            ),
            (EventKind::Modify(ModifyKind::Name(RenameMode::Both)), None),
            (
                EventKind::Remove(RemoveKind::File),
                Some(Notice::Removed(path())),
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
            assert_eq!(Notice::from_event(event), expected, "{kind:?}");
        }
        let overflow = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(Notice::from_event(overflow), Some(Notice::Lost));
    }

    #[test]
    fn reads_and_further_writes_of_a_file_are_filtered() {
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
