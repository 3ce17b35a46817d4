//! Turns a watcher's events into reports: what a new list no longer has is gone, but only once
//! that list is complete.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::runtime::watcher;

use crate::model::{Event, Kind, ObjectKey, Update};

/// What is known of one kind: the names of the objects, nothing else of them.
#[derive(Debug)]
pub(super) struct Relist {
    kind: Kind,
    known: BTreeSet<Arc<str>>,
    /// While a list is under way: the names it had so far.
    listing: Option<BTreeSet<Arc<str>>>,
    listed: bool,
}

impl Relist {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            known: BTreeSet::new(),
            listing: None,
            listed: false,
        }
    }

    /// Whether a list is under way.
    pub(super) fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// Takes in an event; returns what to report.
    pub(super) fn take(&mut self, event: watcher::Event<Update>) -> Vec<Event> {
        match event {
            watcher::Event::Init => {
                // A list that was under way is abandoned: it proves nothing about what it lacked.
                self.listing = Some(BTreeSet::new());
                Vec::new()
            }
            watcher::Event::InitApply(update) => {
                if let Some(listing) = &mut self.listing {
                    listing.insert(Arc::clone(&update.key.name));
                }
                self.apply(update)
            }
            watcher::Event::InitDone => self.complete(),
            watcher::Event::Apply(update) => self.apply(update),
            watcher::Event::Delete(update) => {
                self.known.remove(&update.key.name);
                vec![gone(update.key)]
            }
        }
    }

    fn apply(&mut self, update: Update) -> Vec<Event> {
        self.known.insert(Arc::clone(&update.key.name));
        vec![Event::Update(update)]
    }

    fn complete(&mut self) -> Vec<Event> {
        let listing = self.listing.take().unwrap_or_default();
        let missing = self.known.difference(&listing).cloned();
        let mut events: Vec<_> = missing
            .map(|name| {
                gone(ObjectKey {
                    kind: self.kind,
                    name,
                })
            })
            .collect();
        self.known = listing;
        if !self.listed {
            self.listed = true;
            events.push(Event::Listed(self.kind));
        }
        events
    }
}

fn gone(key: ObjectKey) -> Event {
    Event::Update(Update {
        key,
        object: None,
        rejected: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    use super::*;

    fn object(name: &str) -> Update {
        Update {
            key: ObjectKey {
                kind: Kind::Node,
                name: name.into(),
            },
            // Whether an object says anything does not matter here: a gone one has no rejection.
            object: None,
            rejected: vec![crate::model::Rejected::NoService],
        }
    }

    /// What is reported: `+name`, `-name`, `listed`.
    fn reported(relist: &mut Relist, events: Vec<watcher::Event<Update>>) -> Vec<String> {
        let events = events.into_iter().flat_map(|event| relist.take(event));
        let words = events.map(|event| match event {
            Event::Listed(_) => "listed".to_owned(),
            Event::Update(update) if update.rejected.is_empty() => format!("-{}", update.key.name),
            Event::Update(update) => format!("+{}", update.key.name),
        });
        words.collect()
    }

    #[test]
    fn what_a_new_list_lacks_is_gone_once_it_is_complete() {
        let mut relist = Relist::new(Kind::Node);
        let first = vec![
            Init,
            InitApply(object("a")),
            InitApply(object("b")),
            InitDone,
        ];
        assert_eq!(reported(&mut relist, first), ["+a", "+b", "listed"]);
        let then = vec![Apply(object("c")), Delete(object("a"))];
        assert_eq!(reported(&mut relist, then), ["+c", "-a"]);
        let again = vec![Init, InitApply(object("c")), InitApply(object("d"))];
        assert_eq!(reported(&mut relist, again), ["+c", "+d"]);
        assert_eq!(reported(&mut relist, vec![InitDone]), ["-b"]);
    }

    #[test]
    fn a_list_that_is_abandoned_proves_nothing() {
        let mut relist = Relist::new(Kind::Node);
        let first = vec![
            Init,
            InitApply(object("a")),
            InitApply(object("b")),
            InitDone,
        ];
        reported(&mut relist, first);
        // The list breaks off after c; the next has a and b, and c is gone again.
        let broken = vec![Init, InitApply(object("c")), Init, InitApply(object("a"))];
        assert_eq!(reported(&mut relist, broken), ["+c", "+a"]);
        let rest = vec![InitApply(object("b")), InitDone];
        assert_eq!(reported(&mut relist, rest), ["+b", "-c"]);
    }
}
