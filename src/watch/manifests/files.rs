//! The files of a directory as they were last read, and the objects that change with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{error, info};

use crate::logging::LogEvent;
use crate::planner::model::Update;

use super::UnreadableManifest;
use super::content::Content;
use super::index::Index;
use super::notice::Notice;
use super::problems::ManifestProblems;
use super::rescan::{Rescan, Scan};
use super::walk::{self, Walk};
use crate::watch::file_stamp::{FileIdentity, FileStamp};

/// The directory, its files and their objects.
#[derive(Debug)]
pub(super) struct Files {
    /// The directory of manifests.
    directory: PathBuf,
    /// The identity of the directory when it was last attached.
    identity: Option<FileIdentity>,
    /// The name of this node.
    our_node: Arc<str>,
    /// The objects of all files.
    index: Index,
    /// The files that were read.
    read: BTreeMap<PathBuf, ReadFile>,
    /// The files that have another name, or are links, and so may be written by another name.
    links: BTreeSet<PathBuf>,
    /// The files that were written to and not closed since.
    being_written: BTreeSet<PathBuf>,
    /// Every directory of the last walk.
    directories: BTreeSet<PathBuf>,
    /// The directories of the last walk that cannot be listed.
    unreadable: BTreeSet<PathBuf>,
    /// The files and directories that cannot be read or parsed.
    problems: ManifestProblems,
}

/// The state of a file when it was last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReadFile {
    /// The stamp of the file, if it existed.
    stamp: Option<FileStamp>,
    /// Whether the file could not be read or parsed.
    failed: bool,
}

impl Files {
    /// Builds the state before any file is read.
    pub(super) fn new(directory: PathBuf, our_node: Arc<str>, problems: ManifestProblems) -> Self {
        Self {
            identity: walk::identity(&directory),
            directory,
            our_node,
            index: Index::default(),
            read: BTreeMap::new(),
            links: BTreeSet::new(),
            being_written: BTreeSet::new(),
            directories: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            problems,
        }
    }

    /// Returns the directory of manifests.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Attaches to the directory that has the path now.
    pub(super) fn attach(&mut self) {
        self.identity = walk::identity(&self.directory);
    }

    /// Returns whether the directory exists and is still the same.
    pub(super) fn is_attached(&self) -> bool {
        self.identity.is_some() && self.identity == walk::identity(&self.directory)
    }

    /// Adds to `rescan` the files that `notice` affects.
    pub(super) fn handle(&mut self, notice: Notice, rescan: &mut Rescan) {
        match notice {
            Notice::Lost => rescan.scan(Scan::Everything),
            Notice::Written(path) => {
                self.being_written.insert(path);
            }
            Notice::Closed(path) => {
                self.being_written.remove(&path);
                rescan.written.extend(walk::identity(&path));
                self.add_to(path, rescan);
            }
            Notice::Attributes(path) => {
                if self.read.get(&path).is_some_and(|read| read.failed) {
                    self.add_to(path, rescan);
                } else if self.unreadable.contains(&path) {
                    rescan.scan(Scan::Changed);
                }
            }
            Notice::Created(path) => {
                if walk::is_generation(&path) || path.is_dir() {
                    rescan.scan(Scan::Changed);
                }
                rescan.created.insert(path);
            }
            Notice::Opened(path) => {
                if rescan.created.remove(&path) {
                    self.being_written.insert(path);
                }
            }
            Notice::MovedIn(path) => {
                self.being_written.remove(&path);
                if walk::is_generation(&path) || path.is_dir() {
                    rescan.scan(Scan::Changed);
                }
                self.add_to(path, rescan);
            }
            Notice::Removed(path) => {
                self.being_written.remove(&path);
                rescan.removes = true;
                rescan.detached |= path == self.directory;
                if walk::is_generation(&path) || self.directories.contains(&path) {
                    rescan.scan(Scan::Changed);
                }
                self.add_to(path, rescan);
            }
        }
    }

    /// Reads the files of `rescan` and returns the changed objects.
    ///
    /// Returns `None` and changes nothing if the directory itself is missing. `entering` is as for
    /// [`Walk::below`].
    pub(super) fn read(
        &mut self,
        mut rescan: Rescan,
        entering: &mut dyn FnMut(&Path),
    ) -> Option<Vec<Update>> {
        let mut contents = BTreeMap::new();
        for path in std::mem::take(&mut rescan.created) {
            self.add_to(path, &mut rescan);
        }
        if rescan.scan == Scan::Everything {
            // A notice that a writer closed its file may be among the lost ones.
            self.being_written.clear();
        }
        if rescan.scan > Scan::None {
            let walk = Walk::below(&self.directory, entering);
            self.compare(walk, &mut rescan, &mut contents);
        }
        self.follow_links(&mut rescan);
        for path in rescan.files {
            if !self.is_being_written(&path)
                && let Some(updates) = self.load(&path)
            {
                contents.insert(path.into(), updates);
            }
        }
        let removes = contents.values().any(Vec::is_empty);
        if removes && !self.is_attached() {
            return None;
        }
        Some(self.index.replace(contents))
    }

    /// Compares the files with a walk.
    ///
    /// Keeps in `rescan` the files of `walk` that it names or that changed, and adds removed files
    /// to `contents`, without objects.
    fn compare(
        &mut self,
        walk: Walk,
        rescan: &mut Rescan,
        contents: &mut BTreeMap<Arc<Path>, Vec<Update>>,
    ) {
        let is_removed = |path: &Path| !walk.files.contains(path) && !walk.may_hide(path);
        for path in self.index.files().filter(|path| is_removed(path)) {
            contents.insert(path.clone(), Vec::new());
        }
        self.read.retain(|path, _| !is_removed(path));
        self.links.retain(|path| !is_removed(path));
        self.being_written
            .retain(|path| fs::symlink_metadata(path).is_ok());
        for problem in &walk.problems {
            self.problems.insert(problem.path(), problem.reason());
            report(problem, &self.unreadable);
        }
        rescan.files.retain(|path| walk.files.contains(path));
        for path in walk.files {
            let stamp = self.read.get(&path).and_then(|read| read.stamp);
            if rescan.scan == Scan::Everything || stamp.is_none() || stamp != FileStamp::of(&path) {
                rescan.files.insert(path);
            }
        }
        for path in self.unreadable.difference(&walk.unreadable) {
            if walk.directories.contains(path) {
                self.solved(path);
            }
        }
        self.directories = walk.directories;
        self.unreadable = walk.unreadable;
        let (read, unreadable) = (&self.read, &self.unreadable);
        self.problems
            .retain(|path| read.contains_key(path) || unreadable.contains(path));
    }

    /// Adds to `rescan` the files that were changed by another name.
    fn follow_links(&self, rescan: &mut Rescan) {
        for path in &self.links {
            let stamp = FileStamp::of(path);
            if stamp != self.read.get(path).and_then(|read| read.stamp)
                || stamp.is_some_and(|stamp| rescan.written.contains(&stamp.identity))
            {
                rescan.files.insert(path.clone());
            }
        }
    }

    /// Returns whether a process is writing to the file at `path`, by this or another name.
    fn is_being_written(&self, path: &Path) -> bool {
        if self.being_written.contains(path) {
            return true;
        }
        let file = walk::identity(path);
        let mut names = self.being_written.iter();
        file.is_some() && names.any(|name| walk::identity(name) == file)
    }

    /// Reads the objects of the file at `path`: none if it does not exist.
    ///
    /// Returns `None` if the file cannot be read or parsed, so that its last good content stays.
    fn load(&mut self, path: &Path) -> Option<Vec<Update>> {
        let stamp = FileStamp::of(path);
        if walk::is_link(path) {
            self.links.insert(path.to_owned());
        } else {
            self.links.remove(path);
        }
        let mut record = |failed| {
            self.read
                .insert(path.to_owned(), ReadFile { stamp, failed })
        };
        match super::read_file(path, &self.our_node) {
            Ok(Some(content)) => {
                record(false);
                self.solved(path);
                Some(updates_of(path, content))
            }
            Ok(None) => {
                self.read.remove(path);
                self.problems.remove(path);
                Some(Vec::new())
            }
            Err(problem) => {
                record(true);
                self.problems.insert(path, problem.reason());
                report(&problem, &BTreeSet::new());
                None
            }
        }
    }

    /// Records and logs that a file or directory can be read again, if it had a problem.
    fn solved(&self, path: &Path) {
        if self.problems.remove(path) {
            let file = path.display();
            info!(event = %LogEvent::ManifestReadable, %file, "the manifest is read again");
        }
    }

    /// Adds the file at `path` to `rescan`.
    ///
    /// A directory that the last walk did not enter is new, or known by another path, and needs a
    /// walk.
    fn add_to(&self, path: PathBuf, rescan: &mut Rescan) {
        if !walk::is_manifest(&path) {
            return;
        }
        let directory = path.parent();
        if directory.is_some_and(|directory| self.directories.contains(directory)) {
            rescan.files.insert(path);
        } else {
            rescan.scan(Scan::Changed);
        }
    }
}

/// Returns the objects of a file and logs the ignored ones.
fn updates_of(path: &Path, content: Content) -> Vec<Update> {
    if !content.ignored.is_empty() {
        let kinds: Vec<_> = content
            .ignored
            .iter()
            .map(|(kind, count)| format!("{kind}: {count}"))
            .collect();
        let (file, ignored) = (path.display(), kinds.join(", "));
        info!(event = %LogEvent::ManifestObjectsIgnored, %file, ignored = %ignored, "objects of other kinds are ignored");
    }
    content.updates
}

/// Logs `problem`, unless its path is in `known`.
fn report(problem: &UnreadableManifest, known: &BTreeSet<PathBuf>) {
    match problem {
        UnreadableManifest::Read { path, .. } if known.contains(path) => {}
        UnreadableManifest::Read { path, source } => {
            let file = path.display();
            error!(event = %LogEvent::ManifestUnreadable, error = %source, %file, "cannot read a manifest; its last content remains programmed");
        }
        UnreadableManifest::Syntax { path, error } => {
            let (line, column) = error.position.unzip();
            let file = path.display();
            let error = &error.reason;
            error!(event = %LogEvent::ManifestUnreadable, %error, %file, line, column, "cannot parse a manifest; its last content remains programmed");
        }
    }
}
