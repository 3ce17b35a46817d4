//! Which objects of a kind are known, so that a relist tells which of them are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The names of the objects of one kind that were reported and are not known to be gone.
///
/// A relist that breaks off is simply begun again: what it had reported stays known, and only a
/// relist that runs to its end says what is gone.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    /// Each name with the relist that saw it last.
    seen: BTreeMap<Arc<str>, u64>,
    relist: u64,
}

impl KnownNames {
    /// A relist begins, or begins again.
    pub(super) fn begin(&mut self) {
        self.relist += 1;
    }

    /// `name` exists.
    pub(super) fn insert(&mut self, name: &Arc<str>) {
        self.seen.insert(Arc::clone(name), self.relist);
    }

    /// `name` is gone.
    pub(super) fn remove(&mut self, name: &str) {
        self.seen.remove(name);
    }

    /// The relist is complete: the names that it did not see, which are forgotten.
    pub(super) fn finish(&mut self) -> Vec<Arc<str>> {
        let relist = self.relist;
        self.seen
            .extract_if(.., |_, seen| *seen != relist)
            .map(|(name, _)| name)
            .collect()
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
    fn nothing_is_gone_after_the_first_list() {
        let mut known = KnownNames::default();
        known.begin();
        insert(&mut known, &["a", "b"]);
        assert_eq!(finish(&mut known), [""; 0]);
    }

    #[test]
    fn what_a_relist_does_not_see_is_gone_once() {
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
    fn a_relist_that_breaks_off_says_nothing_is_gone() {
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
    fn what_only_a_broken_off_relist_saw_is_gone() {
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
    fn changes_between_relists_count() {
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
