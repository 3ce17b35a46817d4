//! Names that many objects have, each allocated once.

use std::collections::HashSet;
use std::sync::Arc;

/// The names of ports in use: most Services have one of a few.
#[derive(Debug, Default)]
pub(super) struct SharedNames {
    /// The names.
    names: HashSet<Arc<str>>,
    /// The number of names at which those that are not in use any more are removed.
    limit: usize,
}

impl SharedNames {
    /// Replaces a name with an equal one that others use, if there is one.
    ///
    /// Takes constant time on average: names are removed when their number has doubled.
    pub(super) fn share(&mut self, name: &mut Arc<str>) {
        if let Some(shared) = self.names.get(name) {
            *name = Arc::clone(shared);
            return;
        }
        if self.names.len() >= self.limit {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.limit = 2 * self.names.len() + 1;
        }
        self.names.insert(Arc::clone(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_allocated_once() {
        let mut names = SharedNames::default();
        let (mut one, mut other) = (Arc::from("http"), Arc::from("http"));
        names.share(&mut one);
        names.share(&mut other);
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn names_that_are_not_in_use_are_removed() {
        let mut names = SharedNames::default();
        let mut used: Arc<str> = "http".into();
        names.share(&mut used);
        for number in 0..1_000 {
            names.share(&mut number.to_string().into());
        }
        assert!(names.names.len() < 10);
        assert!(names.names.contains("http"));
    }
}
