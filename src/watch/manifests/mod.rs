//! A directory of manifests in place of an API server: every `.yaml`, `.yml` and `.json` file below
//! it, several documents a file, `kind: List` too. [`read`] takes it as it is now, [`watch`] follows
//! it as it changes.
//!
//! text -> `content` (objects, or where the syntax is wrong) -> `index` (whose word counts) -> events

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::planner::model::{Event, ObjectKind, Update};

mod batch;
mod content;
mod files;
mod follow;
mod index;
mod notice;
mod walk;

pub use content::SyntaxError;
pub use follow::{WatchHandle, watch};

use content::{Content, ManifestFormat, content};
use index::Index;
use walk::Walk;

/// What a set of manifests says.
#[derive(Debug, Default)]
pub struct Listing {
    /// An [`Event::Update`] for each object that says anything to us, then [`Event::Listed`] for
    /// each kind.
    pub events: Vec<Event>,
    /// The files that are left out, and why.
    pub problems: Vec<SkippedManifest>,
    /// How many objects of each kind that is not watched there are, by `apiVersion kind`.
    pub skipped: BTreeMap<String, usize>,
}

/// Why a file or directory is left out.
#[derive(Debug, thiserror::Error)]
pub enum SkippedManifest {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not YAML or JSON.
    #[error("{}:{error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: SyntaxError,
    },
}

/// Why a directory cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    /// It is not there, is no directory, or may not be read.
    #[error("cannot read the directory of manifests {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not report its changes.
    #[error("cannot watch the directory of manifests {}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: notify::Error,
    },
    /// No thread for it.
    #[error("cannot start the thread that follows the manifests")]
    Thread(#[source] io::Error),
}

/// What the manifests below `dir` say now, to the node named `our_node`.
///
/// # Errors
/// If `dir` itself cannot be listed. A file or a directory below that cannot be read is one of
/// [`Listing::problems`].
pub fn read(dir: &Path, our_node: &str) -> Result<Listing, ManifestsError> {
    readable(dir)?;
    let walk = Walk::below(dir, &mut |_| {});
    let mut listing = Listing {
        problems: walk.problems,
        ..Listing::default()
    };
    let mut contents = BTreeMap::new();
    for path in walk.files {
        match file(&path, our_node) {
            Ok(Some(content)) => {
                listing.skip(content.skipped);
                contents.insert(path.into(), content.updates);
            }
            Ok(None) => {}
            Err(problem) => listing.problems.push(problem),
        }
    }
    listing.index(contents);
    Ok(listing)
}

/// What the manifests in `text`, YAML or JSON, say to the node named `our_node`.
///
/// # Errors
/// If `text` is neither.
pub fn read_text(text: &str, our_node: &str) -> Result<Listing, SyntaxError> {
    let format = if text.trim_start().starts_with('{') {
        ManifestFormat::Json
    } else {
        ManifestFormat::Yaml
    };
    let content = content(format, text, our_node)?;
    let mut listing = Listing::default();
    listing.skip(content.skipped);
    listing.index(BTreeMap::from([(Path::new("-").into(), content.updates)]));
    Ok(listing)
}

impl Listing {
    fn skip(&mut self, skipped: BTreeMap<String, usize>) {
        for (kind, count) in skipped {
            *self.skipped.entry(kind).or_default() += count;
        }
    }

    fn index(&mut self, contents: BTreeMap<Arc<Path>, Vec<Update>>) {
        let updates = Index::default().replace(contents);
        self.events.extend(updates.into_iter().map(Event::Update));
        self.events.extend(ObjectKind::ALL.map(Event::Listed));
    }
}

/// That `dir` can be listed.
fn readable(dir: &Path) -> Result<(), ManifestsError> {
    match std::fs::read_dir(dir) {
        Ok(_) => Ok(()),
        Err(source) => Err(ManifestsError::Directory {
            path: dir.to_owned(),
            source,
        }),
    }
}

/// The content of the manifest at `path`; `None` if there is no such file.
fn file(path: &Path, our_node: &str) -> Result<Option<Content>, SkippedManifest> {
    let read = walk::read(path).map_err(|source| SkippedManifest::Read {
        path: path.to_owned(),
        source,
    })?;
    let (Some(text), Some(format)) = (read, walk::format(path)) else {
        return Ok(None);
    };
    let content = content(format, &text, our_node).map_err(|error| SkippedManifest::Syntax {
        path: path.to_owned(),
        error,
    })?;
    Ok(Some(content))
}
