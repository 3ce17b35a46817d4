//! The files of a directory as they were last read, and what a change of them changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{error, info};

use crate::logging::LogEvent;
use crate::planner::model::Update;

use super::SkippedManifest;
use super::batch::{Rescan, Scan};
use super::content::Content;
use super::index::Index;
use super::notice::Notice;
use super::walk::{self, Stamp, Walk};

/// The directory, its files, and what they say.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// Which directory that was when it was last attached to.
    identity: Option<walk::FileIdentity>,
    our_node: Arc<str>,
    index: Index,
    read: BTreeMap<PathBuf, ReadFile>,
    /// The files with, or behind, another name, by which they may be written.
    links: BTreeSet<PathBuf>,
    /// Files that have been written to and not closed since.
    being_written: BTreeSet<PathBuf>,
    /// Every directory, as of the last walk.
    directories: BTreeSet<PathBuf>,
    /// The directories among them that could not be listed.
    unreadable: BTreeSet<PathBuf>,
}

/// A file as it was last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReadFile {
    stamp: Option<Stamp>,
    failed: bool,
}

impl Files {
    /// No files yet.
    pub(super) fn new(directory: PathBuf, our_node: Arc<str>) -> Self {
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
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes the directory that is there now for ours.
    pub(super) fn attach(&mut self) {
        self.identity = walk::identity(&self.directory);
    }

    /// Whether the directory is there and still the same one.
    pub(super) fn is_there(&self) -> bool {
        self.identity.is_some() && self.identity == walk::identity(&self.directory)
    }

    /// Adds to `batch` what `notice` asks for.
    pub(super) fn note(&mut self, notice: Notice, batch: &mut Rescan) {
        match notice {
            Notice::Lost => batch.scan(Scan::Everything),
            Notice::Written(path) => {
                self.being_written.insert(path);
            }
            Notice::Closed(path) => {
                self.being_written.remove(&path);
                batch.written.extend(walk::identity(&path));
                self.look_at(path, batch);
            }
            Notice::Attributes(path) => {
                if self.read.get(&path).is_some_and(|read| read.failed) {
                    self.look_at(path, batch);
                } else if self.unreadable.contains(&path) {
                    batch.scan(Scan::Changed);
                }
            }
            Notice::Created(path) => {
                if is_generation(&path) || path.is_dir() {
                    batch.scan(Scan::Changed);
                }
                batch.created.insert(path);
            }
            Notice::Opened(path) => {
                if batch.created.remove(&path) {
                    self.being_written.insert(path);
                }
            }
            Notice::MovedIn(path) => {
                self.being_written.remove(&path);
                if is_generation(&path) || path.is_dir() {
                    batch.scan(Scan::Changed);
                }
                self.look_at(path, batch);
            }
            Notice::Gone(path) => {
                self.being_written.remove(&path);
                batch.removes = true;
                batch.detached |= path == self.directory;
                if is_generation(&path) || self.directories.contains(&path) {
                    batch.scan(Scan::Changed);
                }
                self.look_at(path, batch);
            }
        }
    }

    /// Reads what `batch` names and returns what is different now; `None`, and nothing is changed,
    /// if the directory itself has gone. `entering` is as for [`Walk::below`].
    pub(super) fn take_in(
        &mut self,
        mut batch: Rescan,
        entering: &mut dyn FnMut(&Path),
    ) -> Option<Vec<Update>> {
        let mut contents = BTreeMap::new();
        for path in std::mem::take(&mut batch.created) {
            self.look_at(path, &mut batch);
        }
        if batch.scan == Scan::Everything {
            // The notice that a writer is done may be among the lost ones.
            self.being_written.clear();
        }
        if batch.scan > Scan::None {
            let walk = Walk::below(&self.directory, entering);
            self.compare(walk, &mut batch, &mut contents);
        }
        self.follow_links(&mut batch);
        for path in batch.files {
            if !self.is_being_written(&path)
                && let Some(updates) = self.load(&path)
            {
                contents.insert(path.into(), updates);
            }
        }
        let removes = contents.values().any(Vec::is_empty);
        if removes && !self.is_there() {
            return None;
        }
        Some(self.index.replace(contents))
    }

    /// Leaves in `batch` the files of `walk` that it names or that are not as they were read, and
    /// adds to `contents` the ones that are not in `walk`.
    fn compare(
        &mut self,
        walk: Walk,
        batch: &mut Rescan,
        contents: &mut BTreeMap<Arc<Path>, Vec<Update>>,
    ) {
        let gone = |path: &Path| !walk.files.contains(path) && !walk.may_hide(path);
        for path in self.index.files().filter(|path| gone(path)) {
            contents.insert(path.clone(), Vec::new());
        }
        self.read.retain(|path, _| !gone(path));
        self.links.retain(|path| !gone(path));
        self.being_written
            .retain(|path| fs::symlink_metadata(path).is_ok());
        for problem in &walk.problems {
            report(problem, &self.unreadable);
        }
        batch.files.retain(|path| walk.files.contains(path));
        for path in walk.files {
            let known = self.read.get(&path).and_then(|read| read.stamp);
            if batch.scan == Scan::Everything || known.is_none() || known != Stamp::of(&path) {
                batch.files.insert(path);
            }
        }
        self.directories = walk.directories;
        self.unreadable = walk.unreadable;
    }

    /// Adds to `batch` the files that have changed under another name.
    fn follow_links(&self, batch: &mut Rescan) {
        for path in &self.links {
            let stamp = Stamp::of(path);
            if stamp != self.read.get(path).and_then(|read| read.stamp)
                || stamp.is_some_and(|stamp| batch.written.contains(&stamp.identity))
            {
                batch.files.insert(path.clone());
            }
        }
    }

    /// Whether someone is writing to the file at `path`, by this or another name.
    fn is_being_written(&self, path: &Path) -> bool {
        if self.being_written.contains(path) {
            return true;
        }
        let file = walk::identity(path);
        let mut names = self.being_written.iter();
        file.is_some() && names.any(|name| walk::identity(name) == file)
    }

    /// What the file at `path` says: nothing if there is no such file, `None` if it cannot be read
    /// or makes no sense, so that its last good content counts.
    fn load(&mut self, path: &Path) -> Option<Vec<Update>> {
        let stamp = Stamp::of(path);
        if is_link(path) {
            self.links.insert(path.to_owned());
        } else {
            self.links.remove(path);
        }
        let mut remember = |failed| {
            self.read
                .insert(path.to_owned(), ReadFile { stamp, failed })
        };
        match super::file(path, &self.our_node) {
            Ok(Some(content)) => {
                remember(false);
                Some(told_of_skipped(path, content))
            }
            Ok(None) => {
                self.read.remove(path);
                Some(Vec::new())
            }
            Err(problem) => {
                remember(true);
                report(&problem, &BTreeSet::new());
                None
            }
        }
    }

    /// Adds the file at `path` to `batch`. A directory that the last walk did not enter is new, or
    /// known by another path: only a walk can tell.
    fn look_at(&self, path: PathBuf, batch: &mut Rescan) {
        if !is_manifest(&path) {
            return;
        }
        let directory = path.parent();
        if directory.is_some_and(|directory| self.directories.contains(directory)) {
            batch.files.insert(path);
        } else {
            batch.scan(Scan::Changed);
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    walk::format(path).is_some() && !walk::is_hidden(path)
}

/// Whether `path` is a name of Kubernetes' `AtomicWriter`, which mounts a `ConfigMap`: links lead
/// through `..data`, and it is replaced to change all files at once.
fn is_generation(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_bytes);
    name.is_some_and(|name| name.starts_with(b".."))
}

/// Whether the file at `path` has, or is, another name.
fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink() || file.nlink() > 1)
}

fn told_of_skipped(path: &Path, content: Content) -> Vec<Update> {
    if !content.skipped.is_empty() {
        let kinds: Vec<_> = content
            .skipped
            .iter()
            .map(|(kind, count)| format!("{kind}: {count}"))
            .collect();
        let (file, skipped) = (path.display(), kinds.join(", "));
        info!(event = %LogEvent::ManifestObjectsIgnored, %file, ignored = %skipped, "objects of other kinds are ignored");
    }
    content.updates
}

/// Logs `problem`, unless it is about one of the `known` paths.
fn report(problem: &SkippedManifest, known: &BTreeSet<PathBuf>) {
    match problem {
        SkippedManifest::Read { path, .. } if known.contains(path) => {}
        SkippedManifest::Read { path, source } => {
            let file = path.display();
            error!(event = %LogEvent::ManifestUnreadable, error = %source, %file, "cannot read a manifest; its last content remains programmed");
        }
        SkippedManifest::Syntax { path, error } => {
            let (line, column) = error.position.unzip();
            let file = path.display();
            let error = &error.reason;
            error!(event = %LogEvent::ManifestUnreadable, %error, %file, line, column, "cannot parse a manifest; its last content remains programmed");
        }
    }
}
