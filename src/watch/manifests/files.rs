//! The files of a directory as they were last read, and what a change of them changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{error, info};

use crate::model::Update;

use super::Problem;
use super::content::Content;
use super::index::Index;
use super::notice::Notice;
use super::walk::{self, Stamp, Walk};

/// The directory, its files, and what they say.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// Which directory that was when it was last attached to.
    identity: Option<walk::Identity>,
    our_node: Arc<str>,
    index: Index,
    read: BTreeMap<PathBuf, Read>,
    /// Files that have been written to and not closed since.
    being_written: BTreeSet<PathBuf>,
    /// Every directory, as of the last walk.
    directories: BTreeSet<PathBuf>,
    /// The directories among them that could not be listed.
    unreadable: BTreeSet<PathBuf>,
}

/// A file as it was last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Read {
    stamp: Option<Stamp>,
    failed: bool,
}

/// What to look at again.
#[derive(Debug, Default)]
pub(super) struct Batch {
    files: BTreeSet<PathBuf>,
    scan: Scan,
    detached: bool,
}

/// Which files to look for besides those that are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Scan {
    #[default]
    None,
    /// Those that are new, other ones than before, or gone.
    Changed,
    /// All.
    Everything,
}

impl Batch {
    /// Every file there is.
    pub(super) fn everything() -> Self {
        Self {
            scan: Scan::Everything,
            ..Self::default()
        }
    }

    /// Whether the directory itself has gone or become another one.
    pub(super) fn is_detached(&self) -> bool {
        self.detached
    }

    fn scan(&mut self, scan: Scan) {
        self.scan = self.scan.max(scan);
    }

    fn file(&mut self, path: PathBuf) {
        if is_manifest(&path) {
            self.files.insert(path);
        }
    }
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
    pub(super) fn note(&mut self, notice: Notice, batch: &mut Batch) {
        match notice {
            Notice::Lost => batch.scan(Scan::Everything),
            Notice::Written(path) => self.hold(path),
            Notice::Closed(path) => {
                self.being_written.remove(&path);
                batch.file(path);
            }
            Notice::Attributes(path) => {
                if self.read.get(&path).is_some_and(|read| read.failed) {
                    batch.file(path);
                } else if self.unreadable.contains(&path) {
                    batch.scan(Scan::Changed);
                }
            }
            Notice::Created(path) => {
                if is_generation(&path) || path.is_dir() {
                    batch.scan(Scan::Changed);
                } else if is_link(&path) {
                    batch.file(path);
                } else {
                    self.hold(path);
                }
            }
            Notice::MovedIn(path) => {
                if is_generation(&path) || path.is_dir() {
                    batch.scan(Scan::Changed);
                }
                batch.file(path);
            }
            Notice::Gone(path) => {
                self.being_written.remove(&path);
                batch.detached |= path == self.directory;
                if is_generation(&path) || self.directories.contains(&path) {
                    batch.scan(Scan::Changed);
                }
                batch.file(path);
            }
        }
    }

    /// Reads what `batch` names and returns what is different now; `None`, and nothing is changed,
    /// if the directory itself has gone. `entering` is as for [`Walk::below`].
    pub(super) fn take_in(
        &mut self,
        mut batch: Batch,
        entering: &mut dyn FnMut(&Path),
    ) -> Option<Vec<Update>> {
        let mut contents = BTreeMap::new();
        if batch.scan == Scan::Everything {
            // The notice that a writer is done may be among the lost ones.
            self.being_written.clear();
        }
        if batch.scan > Scan::None {
            let walk = Walk::below(&self.directory, entering);
            self.compare(walk, &mut batch, &mut contents);
        }
        for path in batch.files {
            if !self.being_written.contains(&path)
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

    /// Adds to `batch` the files of `walk` that are not as they were read, and to `contents` the
    /// ones that it did not find.
    fn compare(
        &mut self,
        walk: Walk,
        batch: &mut Batch,
        contents: &mut BTreeMap<Arc<Path>, Vec<Update>>,
    ) {
        let gone = |path: &Path| !walk.files.contains(path) && !walk.may_hide(path);
        for path in self.index.files().filter(|path| gone(path)) {
            contents.insert(path.clone(), Vec::new());
        }
        self.read.retain(|path, _| !gone(path));
        self.being_written.retain(|path| !gone(path));
        for problem in &walk.problems {
            report(problem, &self.unreadable);
        }
        for path in walk.files {
            let known = self.read.get(&path).and_then(|read| read.stamp);
            if batch.scan == Scan::Everything || known.is_none() || known != Stamp::of(&path) {
                batch.files.insert(path);
            }
        }
        self.directories = walk.directories;
        self.unreadable = walk.unreadable;
    }

    /// What the file at `path` says: nothing if there is no such file, `None` if it cannot be read
    /// or makes no sense, so that its last good content counts.
    fn load(&mut self, path: &Path) -> Option<Vec<Update>> {
        let stamp = Stamp::of(path);
        let mut remember = |failed| self.read.insert(path.to_owned(), Read { stamp, failed });
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

    fn hold(&mut self, path: PathBuf) {
        if is_manifest(&path) {
            self.being_written.insert(path);
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

/// Whether the file at `path` is complete as soon as it has its name: a link of either sort is.
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
        info!(%file, %skipped, "objects of other kinds are skipped");
    }
    content.updates
}

/// Logs `problem`, unless it is about one of the `known` paths.
fn report(problem: &Problem, known: &BTreeSet<PathBuf>) {
    match problem {
        Problem::Read { path, .. } if known.contains(path) => {}
        Problem::Read { path, source } => {
            let file = path.display();
            error!(error = %source, %file, "cannot read a manifest: its last content counts");
        }
        Problem::Syntax { path, error } => {
            let (line, column) = error.position.unzip();
            let file = path.display();
            let error = &error.reason;
            error!(%error, %file, line, column, "cannot read a manifest: its last content counts");
        }
    }
}
