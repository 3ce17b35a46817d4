//! Which file says what about which object, and whose word counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::model::{ObjectKey, Rejected, Update};

/// The objects of every file. Where two files hold the same object, that of the first in the order
/// of paths counts, and within a file the first. A change costs as much as the files it touches,
/// however many others there are.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The objects that each file holds; a file without any is not here.
    files: BTreeMap<Arc<Path>, Vec<ObjectKey>>,
    /// What the files say about each object, in the order of their paths.
    claims: BTreeMap<ObjectKey, Vec<Claim>>,
}

#[derive(Debug)]
struct Claim {
    file: Arc<Path>,
    update: Update,
}

impl Index {
    /// Takes each file's new content, which is empty for a file that is gone, and returns what is
    /// different now, in the order of keys. An object that moves from one file to another does not
    /// go in between.
    pub(super) fn replace(&mut self, contents: BTreeMap<Arc<Path>, Vec<Update>>) -> Vec<Update> {
        let mut touched = BTreeSet::new();
        for (file, updates) in &contents {
            touched.extend(self.files.get(file).into_iter().flatten().cloned());
            touched.extend(updates.iter().map(|update| update.key.clone()));
        }
        let before: Vec<Update> = touched.iter().map(|key| self.effective(key)).collect();
        for (file, updates) in contents {
            self.remove(&file);
            self.add(&file, updates);
        }
        let after = touched.iter().map(|key| self.effective(key));
        after
            .zip(before)
            .filter_map(|(after, before)| (after != before).then_some(after))
            .collect()
    }

    /// The files that hold any object.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.files.keys()
    }

    fn remove(&mut self, file: &Arc<Path>) {
        for key in self.files.remove(file).unwrap_or_default() {
            if let Some(claims) = self.claims.get_mut(&key) {
                claims.retain(|claim| claim.file != *file);
                if claims.is_empty() {
                    self.claims.remove(&key);
                }
            }
        }
    }

    fn add(&mut self, file: &Arc<Path>, updates: Vec<Update>) {
        if updates.is_empty() {
            return;
        }
        let keys = updates.iter().map(|update| update.key.clone()).collect();
        self.files.insert(file.clone(), keys);
        for update in updates {
            let claims = self.claims.entry(update.key.clone()).or_default();
            let place = claims.partition_point(|claim| claim.file <= *file);
            let file = file.clone();
            claims.insert(place, Claim { file, update });
        }
    }

    /// What counts as the word on the object: an empty one if no file has it.
    fn effective(&self, key: &ObjectKey) -> Update {
        let claims = self.claims.get(key).map_or(&[][..], Vec::as_slice);
        let Some((first, others)) = claims.split_first() else {
            return Update {
                key: key.clone(),
                object: None,
                rejected: Vec::new(),
            };
        };
        let mut update = first.update.clone();
        update.rejected.extend(others.iter().map(|other| {
            let (first, other) = (first.file.display(), other.file.display());
            let text = format!("it is in {first} and again in {other}, of which the first counts");
            Rejected::Contradiction(text.into())
        }));
        update
    }
}
