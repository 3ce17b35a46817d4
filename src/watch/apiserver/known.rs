//! The known objects of a kind, from which a relist derives the deleted ones.

use std::sync::Arc;

use foldhash::HashSet;

/// The names of the objects of one kind that were reported and not deleted since.
///
/// A relist that breaks off starts over: the objects that it reported stay known, and only a
/// complete relist shows which objects are deleted.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    /// The known names, without some of the current relist.
    known: HashSet<Arc<str>>,
    /// The names in the current relist, if there is one.
    listed: Option<HashSet<Arc<str>>>,
}

impl KnownNames {
    /// Returns the number of known names.
    pub(super) fn len(&self) -> usize {
        let listed = self.listed.as_ref().map_or(0, HashSet::len);
        self.known.len().max(listed)
    }

    /// Starts a relist, or starts it over.
    pub(super) fn begin(&mut self) {
        self.keep_listed();
        self.listed = Some(HashSet::default());
    }

    /// Adds the name of an object that exists.
    pub(super) fn insert(&mut self, name: &Arc<str>) {
        let names = self.listed.as_mut().unwrap_or(&mut self.known);
        names.insert(Arc::clone(name));
    }

    /// Removes the name of a deleted object.
    pub(super) fn remove(&mut self, name: &str) {
        self.known.remove(name);
        if let Some(listed) = &mut self.listed {
            listed.remove(name);
        }
    }

    /// Removes an object from the current relist: it was deleted after the relist contained it.
    pub(super) fn unlist(&mut self, name: &str) {
        let listed = self.listed.as_mut().and_then(|listed| listed.take(name));
        self.known.extend(listed);
    }

    /// Completes the relist; removes and returns the sorted names that it did not contain.
    pub(super) fn finish(&mut self) -> Vec<Arc<str>> {
        let Some(listed) = &self.listed else {
            return Vec::new();
        };
        let gone = self.known.extract_if(|name| !listed.contains(name));
        let mut names: Vec<_> = gone.collect();
        names.sort_unstable();
        self.keep_listed();
        names
    }

    /// Ends the relist, and keeps the names that it contains.
    fn keep_listed(&mut self) {
        let Some(listed) = self.listed.take() else {
            return;
        };
        if self.known.is_empty() {
            self.known = listed;
        } else {
            self.known.extend(listed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(known: &mut KnownNames, names: &[&str]) {
        for name in names {
            known.insert(&Arc::from(*name));
        }
    }

    fn finish(known: &mut KnownNames) -> Vec<String> {
        known.finish().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_list_deletes_nothing() {
        let mut known = KnownNames::default();
        known.begin();
        insert(&mut known, &["a", "b"]);
        assert_eq!(finish(&mut known), [""; 0]);
    }

    #[test]
    fn an_object_missing_from_a_relist_is_deleted_once() {
        let mut known = KnownNames::default();
        known.begin();
        insert(&mut known, &["a", "b", "c"]);
        known.finish();
        known.begin();
        insert(&mut known, &["b"]);
        assert_eq!(finish(&mut known), ["a", "c"]);
        known.begin();
        insert(&mut known, &["b"]);
        assert_eq!(finish(&mut known), [""; 0]);
    }

    #[test]
    fn a_relist_that_breaks_off_deletes_nothing() {
        let mut known = KnownNames::default();
        known.begin();
        insert(&mut known, &["a", "b"]);
        known.finish();
        known.begin();
        insert(&mut known, &["a"]);
        known.begin();
        insert(&mut known, &["a", "b"]);
        assert_eq!(finish(&mut known), [""; 0]);
    }

    #[test]
    fn an_object_only_in_a_relist_that_broke_off_is_deleted() {
        let mut known = KnownNames::default();
        known.begin();
        insert(&mut known, &["a"]);
        known.finish();
        known.begin();
        insert(&mut known, &["a", "new"]);
        known.begin();
        insert(&mut known, &["a"]);
        assert_eq!(finish(&mut known), ["new"]);
    }

    #[test]
    fn an_object_that_is_deleted_within_a_relist_is_deleted_after_it() {
        let mut known = KnownNames::default();
        known.begin();
        insert(&mut known, &["a", "b"]);
        known.unlist("b");
        known.unlist("unknown");
        assert_eq!(finish(&mut known), ["b"]);
    }

    #[test]
    fn the_names_of_a_relist_that_broke_off_are_counted() {
        let mut known = KnownNames::default();
        known.begin();
        insert(&mut known, &["a", "b"]);
        assert_eq!(known.len(), 2);
        known.begin();
        insert(&mut known, &["c"]);
        assert_eq!(known.len(), 2);
        assert_eq!(finish(&mut known), ["a", "b"]);
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn changes_between_relists_are_tracked() {
        let mut known = KnownNames::default();
        known.begin();
        insert(&mut known, &["a"]);
        known.finish();
        insert(&mut known, &["b"]);
        known.remove("a");
        known.begin();
        assert_eq!(finish(&mut known), ["b"]);
    }
}
