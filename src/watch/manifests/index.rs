//! The objects of each file, and the file that takes precedence for each object.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::planner::model::{ObjectKey, RejectReason, Update};

/// The objects of every file.
///
/// If two files hold the same object, the first in the order of paths takes precedence, and within
/// a file the first. The cost of a change depends on the changed files, not on the number of files.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The objects of each file that has any.
    files: BTreeMap<Arc<Path>, Vec<ObjectKey>>,
    /// The updates of each object from all its files, in the order of their paths.
    claims: BTreeMap<ObjectKey, Vec<FileClaim>>,
}

/// The update of an object from one file.
#[derive(Debug)]
struct FileClaim {
    /// The file.
    file: Arc<Path>,
    /// The update that the file has.
    update: Update,
}

impl Index {
    /// Replaces the content of files, which is empty for a removed file; returns the changed
    /// objects in the order of keys.
    ///
    /// An object that moves from one file to another is not deleted in between.
    pub(super) fn replace(&mut self, contents: BTreeMap<Arc<Path>, Vec<Update>>) -> Vec<Update> {
        let mut changed = BTreeSet::new();
        for (file, updates) in &contents {
            changed.extend(self.files.get(file).into_iter().flatten().cloned());
            changed.extend(updates.iter().map(|update| update.key.clone()));
        }
        let before: Vec<Update> = changed.iter().map(|key| self.effective(key)).collect();
        for (file, updates) in contents {
            self.remove(&file);
            self.add(&file, updates);
        }
        let after = changed.iter().map(|key| self.effective(key));
        after
            .zip(before)
            .filter_map(|(after, before)| (after != before).then_some(after))
            .collect()
    }

    /// Iterates over the files that have objects.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.files.keys()
    }

    /// Removes the objects of a file.
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

    /// Adds the objects of a file.
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
            claims.insert(place, FileClaim { file, update });
        }
    }

    /// Returns the update that takes precedence for an object; an empty one if no file has it.
    fn effective(&self, key: &ObjectKey) -> Update {
        let claims = self.claims.get(key).map_or(&[][..], Vec::as_slice);
        let Some((first, others)) = claims.split_first() else {
            return Update {
                key: key.clone(),
                object: None,
                rejected: Vec::new(),
                triggered: None,
            };
        };
        let mut update = first.update.clone();
        update.rejected.extend(others.iter().map(|other| {
            let (first, other) = (first.file.display(), other.file.display());
            let text =
                format!("duplicate object in {first} and {other}: the first takes precedence");
            RejectReason::Contradiction(text.into())
        }));
        update
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::model::{Node, Object, ObjectKind};

    /// The Nodes of a file, written as `name=last octet of its address`.
    fn nodes(text: &str) -> Vec<Update> {
        let node = |text: &str| {
            let (name, octet) = text.split_once('=').unwrap();
            let address = format!("10.0.0.{octet}").parse().unwrap();
            Update {
                key: ObjectKey {
                    kind: ObjectKind::Node,
                    name: name.into(),
                },
                object: Some(Object::Node(Node {
                    addresses: vec![address],
                    ..Node::default()
                })),
                rejected: vec![],
                triggered: None,
            }
        };
        text.split_whitespace().map(node).collect()
    }

    fn shown(update: &Update) -> String {
        let octet = match &update.object {
            Some(Object::Node(node)) => node.addresses[0].to_string().split_off("10.0.0.".len()),
            _ => "deleted".to_owned(),
        };
        let again = update.rejected.iter().map(|fault| format!(" ({fault})"));
        format!("{}={octet}{}", update.key.name, again.collect::<String>())
    }

    fn replaced(index: &mut Index, files: &[(&str, &str)]) -> Vec<String> {
        let contents = files
            .iter()
            .map(|(file, text)| (Path::new(file).into(), nodes(text)))
            .collect();
        index.replace(contents).iter().map(shown).collect()
    }

    #[test]
    fn only_objects_that_differ_are_reported() {
        let mut index = Index::default();
        assert_eq!(replaced(&mut index, &[("a", "x=1 y=2")]), ["x=1", "y=2"]);
        assert_eq!(replaced(&mut index, &[("a", "y=2 x=1")]), [""; 0]);
        assert_eq!(
            replaced(&mut index, &[("a", "x=1 y=3 z=4")]),
            ["y=3", "z=4"]
        );
        assert_eq!(
            replaced(&mut index, &[("a", "z=4")]),
            ["x=deleted", "y=deleted"]
        );
        assert_eq!(replaced(&mut index, &[("a", "")]), ["z=deleted"]);
        assert_eq!(index.files().count(), 0);
        assert!(index.claims.is_empty());
    }

    #[test]
    fn an_object_that_moves_between_files_is_never_deleted() {
        let mut index = Index::default();
        replaced(&mut index, &[("a", "x=1"), ("c", "y=1")]);
        assert_eq!(replaced(&mut index, &[("a", ""), ("b", "x=1")]), [""; 0]);
        assert_eq!(replaced(&mut index, &[("b", "y=1"), ("c", "x=1")]), [""; 0]);
    }

    #[test]
    fn the_first_of_two_files_takes_precedence_until_it_is_removed() {
        let twice = |first: &str, other: &str| {
            format!(" (duplicate object in {first} and {other}: the first takes precedence)")
        };
        let mut index = Index::default();
        replaced(&mut index, &[("b", "x=2")]);
        assert_eq!(
            replaced(&mut index, &[("c", "x=3")]),
            [format!("x=2{}", twice("b", "c"))]
        );
        assert_eq!(
            replaced(&mut index, &[("a", "x=1")]),
            [format!("x=1{}{}", twice("a", "b"), twice("a", "c"))]
        );
        assert_eq!(
            replaced(&mut index, &[("b", "")]),
            [format!("x=1{}", twice("a", "c"))]
        );
        assert_eq!(replaced(&mut index, &[("a", "")]), ["x=3"]);
    }

    #[test]
    fn the_first_of_two_objects_in_a_file_takes_precedence() {
        let mut index = Index::default();
        assert_eq!(
            replaced(&mut index, &[("a", "x=1 x=2")]),
            ["x=1 (duplicate object in a and a: the first takes precedence)"]
        );
        assert_eq!(replaced(&mut index, &[("a", "x=2")]), ["x=2"]);
    }
}
