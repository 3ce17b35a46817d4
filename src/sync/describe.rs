//! What is programmed and why, as JSON. Linear in what exists: for a person who asks.

use serde_json::{Map, Value, json};

use super::{FamilyState, State};
use crate::model::Address;

impl State {
    /// What is programmed of each family, what is not and why.
    #[must_use]
    pub fn describe(&self) -> Value {
        let wrong = self.complaints();
        let wrong: Map<_, _> = wrong
            .map(|(subject, reasons)| {
                let reasons: Vec<_> = reasons.keys().collect();
                (subject.to_string(), json!(reasons))
            })
            .collect();
        json!({
            "everythingListed": self.is_complete(),
            "IPv4": self.ipv4.describe(),
            "IPv6": self.ipv6.describe(),
            "wrong": wrong,
        })
    }
}

impl<A: Address> FamilyState<A> {
    fn describe(&self) -> Value {
        let picture = self.picture();
        let services = picture.contributions().into_iter();
        let services: Map<_, _> = services
            .map(|(name, contribution)| (name.to_string(), contribution.describe()))
            .collect();
        let elements = picture.elements().iter();
        let elements: Map<_, _> = elements
            .map(|(set, count)| (set.to_string(), json!(count)))
            .collect();
        json!({
            "services": services,
            "elements": elements,
            "waiting": names(self.waiting()),
            "leftOut": names(self.left_out()),
        })
    }
}

fn names<T: ToString>(of: impl Iterator<Item = T>) -> Vec<String> {
    of.map(|name| name.to_string()).collect()
}
