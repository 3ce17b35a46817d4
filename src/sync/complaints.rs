//! What was said of which object, so that it is said once.

use std::collections::{BTreeMap, BTreeSet};

use super::state::Complaint;

/// What is wrong now with each object, as last said.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: BTreeMap<String, BTreeSet<String>>,
}

impl Complaints {
    /// Takes in all that is wrong with `object` now; returns what was not said before.
    pub(super) fn now(&mut self, object: &str, reasons: Vec<String>) -> Vec<Complaint> {
        if reasons.is_empty() {
            self.said.remove(object);
            return Vec::new();
        }
        let reasons: BTreeSet<_> = reasons.into_iter().collect();
        let before = self.said.insert(object.to_owned(), reasons.clone());
        reasons
            .difference(&before.unwrap_or_default())
            .map(|reason| Complaint {
                object: object.to_owned(),
                reason: reason.clone(),
            })
            .collect()
    }

    /// All that is wrong, by object.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        let said = self.said.iter();
        said.map(|(object, reasons)| (object.as_str(), reasons))
    }

    /// Takes in that `object` is gone.
    pub(super) fn forget(&mut self, object: &str) {
        self.said.remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(complaints: Vec<Complaint>) -> Vec<String> {
        complaints
            .into_iter()
            .map(|complaint| complaint.reason)
            .collect()
    }

    #[test]
    fn a_thing_is_said_once_until_it_is_mended() {
        let mut complaints = Complaints::default();
        let mut now = |list: &[&str]| {
            let list = list.iter().map(ToString::to_string).collect();
            reasons(complaints.now("Service shop/cart", list))
        };
        assert_eq!(now(&["port"]), ["port"]);
        assert_eq!(now(&["port"]), [""; 0]);
        assert_eq!(now(&["port", "address"]), ["address"]);
        assert_eq!(now(&[]), [""; 0]);
        assert_eq!(now(&["port"]), ["port"]);
    }
}
