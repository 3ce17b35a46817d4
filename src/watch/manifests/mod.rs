//! A directory of manifests as a replacement for an API server.
//!
//! The manifests are all `.yaml`, `.yml` and `.json` files below the directory, with several
//! documents in a file and `kind: List` too. [`read`] reads them once, [`watch`] follows their
//! changes.
//!
//! text -> `content` (objects, or the position of a syntax error) -> `index` (precedence) -> events

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::planner::model::{Event, ObjectKind, Update};

mod content;
mod files;
mod follow;
mod index;
mod notice;
mod problems;
mod rescan;
mod walk;
mod watcher;

pub use content::SyntaxError;
pub use follow::{WatchHandle, watch, watch_with};
pub use problems::ManifestProblems;

use content::{Content, ManifestFormat, parse_text};
use index::Index;
use walk::Walk;

/// The objects of a set of manifests.
#[derive(Debug, Default)]
pub struct Listing {
    /// An [`Event::Update`] for each object of the watched kinds, then [`Event::Listed`] for each
    /// kind.
    pub events: Vec<Event>,
    /// The files and directories that cannot be read, with the errors.
    pub problems: Vec<UnreadableManifest>,
    /// The number of ignored objects of each other kind, by `apiVersion kind`.
    pub ignored: BTreeMap<String, usize>,
}

/// The error of a file or directory that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableManifest {
    /// The file system returned an error.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The file is not valid YAML or JSON.
    #[error("{}:{error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The position and the message of the parser.
        error: SyntaxError,
    },
}

impl UnreadableManifest {
    /// Returns the file or directory.
    fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. } | Self::Syntax { path, .. } => path,
        }
    }

    /// Returns the reason, without the path.
    fn reason(&self) -> String {
        match self {
            Self::Read { source, .. } => source.to_string(),
            Self::Syntax { error, .. } => error.to_string(),
        }
    }
}

/// The error of a directory that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    /// The directory does not exist, is no directory, or may not be read.
    #[error("cannot read the directory of manifests {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The kernel does not report changes of the directory.
    #[error("cannot watch the directory of manifests {}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// The error of the kernel's notifications.
        source: notify::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread that follows the manifests")]
    Thread(#[source] io::Error),
}

/// Reads the manifests below `dir` for the node named `our_node`.
///
/// # Errors
/// If `dir` itself cannot be listed. [`Listing::problems`] has the files and directories below that
/// cannot be read.
pub fn read(dir: &Path, our_node: &str) -> Result<Listing, ManifestsError> {
    check_directory(dir)?;
    let walk = Walk::below(dir, &mut |_| {});
    let mut listing = Listing {
        problems: walk.problems,
        ..Listing::default()
    };
    let mut contents = BTreeMap::new();
    for path in walk.files {
        match read_file(&path, our_node) {
            Ok(Some(content)) => {
                listing.add_ignored(content.ignored);
                contents.insert(path.into(), content.updates);
            }
            Ok(None) => {}
            Err(problem) => listing.problems.push(problem),
        }
    }
    listing.index(contents);
    Ok(listing)
}

/// Parses the manifests in `text`, YAML or JSON, for the node named `our_node`.
///
/// # Errors
/// If `text` is neither YAML nor JSON.
pub fn read_text(text: &str, our_node: &str) -> Result<Listing, SyntaxError> {
    let format = if text.trim_start().starts_with('{') {
        ManifestFormat::Json
    } else {
        ManifestFormat::Yaml
    };
    let content = parse_text(format, text, our_node)?;
    let mut listing = Listing::default();
    listing.add_ignored(content.ignored);
    listing.index(BTreeMap::from([(Path::new("-").into(), content.updates)]));
    Ok(listing)
}

impl Listing {
    /// Adds the counts of ignored objects.
    fn add_ignored(&mut self, ignored: BTreeMap<String, usize>) {
        for (kind, count) in ignored {
            *self.ignored.entry(kind).or_default() += count;
        }
    }

    /// Adds the objects of all files as events.
    fn index(&mut self, contents: BTreeMap<Arc<Path>, Vec<Update>>) {
        let updates = Index::default().replace(contents);
        self.events.extend(updates.into_iter().map(Event::Update));
        self.events.extend(ObjectKind::ALL.map(Event::Listed));
    }
}

/// Checks that `dir` can be listed.
///
/// # Errors
/// If it does not exist, is no directory, or may not be read.
pub fn check_directory(dir: &Path) -> Result<(), ManifestsError> {
    match std::fs::read_dir(dir) {
        Ok(_) => Ok(()),
        Err(source) => Err(ManifestsError::Directory {
            path: dir.to_owned(),
            source,
        }),
    }
}

/// Reads the content of the manifest at `path`; `None` if the file does not exist.
fn read_file(path: &Path, our_node: &str) -> Result<Option<Content>, UnreadableManifest> {
    let read = walk::read(path).map_err(|source| UnreadableManifest::Read {
        path: path.to_owned(),
        source,
    })?;
    let (Some(text), Some(format)) = (read, walk::format(path)) else {
        return Ok(None);
    };
    let content =
        parse_text(format, &text, our_node).map_err(|error| UnreadableManifest::Syntax {
            path: path.to_owned(),
            error,
        })?;
    Ok(Some(content))
}
