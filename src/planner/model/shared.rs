//! Values that many objects have, each allocated once.

use std::hash::Hash;
use std::sync::Arc;

use foldhash::HashSet;

/// The values in use: most Services have a port with one of a few names, and most endpoints are on
/// one of a few nodes.
#[derive(Debug)]
pub(super) struct Shared<T: ?Sized> {
    /// The values.
    values: HashSet<Arc<T>>,
    /// The number of values at which those that are not in use any more are removed.
    limit: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self {
            values: HashSet::default(),
            limit: 0,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    /// Replaces a value with an equal one that others use, if there is one.
    ///
    /// Takes constant time on average: values are removed when their number has doubled.
    pub(super) fn share(&mut self, value: &mut Arc<T>) {
        if let Some(shared) = self.values.get(value) {
            *value = Arc::clone(shared);
            return;
        }
        if self.values.len() >= self.limit {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.limit = 2 * self.values.len() + 1;
        }
        self.values.insert(Arc::clone(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_allocated_once() {
        let mut names = Shared::<str>::default();
        let (mut one, mut other) = (Arc::from("http"), Arc::from("http"));
        names.share(&mut one);
        names.share(&mut other);
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn values_that_are_not_in_use_are_removed() {
        let mut names = Shared::<str>::default();
        let mut used: Arc<str> = "http".into();
        names.share(&mut used);
        for number in 0..1_000 {
            names.share(&mut number.to_string().into());
        }
        assert!(names.values.len() < 10);
        assert!(names.values.contains("http"));
    }
}
