//! What is programmed and why, as JSON. Linear in what exists: for a person who asks.

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{FamilyState, State};
use crate::planner::model::Address;

/// Asks the crank, which answers between two turns.
#[derive(Debug)]
pub struct DebugRequest {
    /// What is asked.
    pub question: DebugQuestion,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Value>,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugQuestion {
    /// All that is programmed, what is not and why.
    State,
    /// Only what is wrong with which object.
    Wrong,
}

impl State {
    /// The answer, as JSON.
    #[must_use]
    pub fn answer(&self, question: DebugQuestion) -> Value {
        match question {
            DebugQuestion::State => json!({
                "everythingListed": self.is_complete(),
                "IPv4": self.families.ipv4.describe(),
                "IPv6": self.families.ipv6.as_ref().map(FamilyState::describe),
                "wrong": self.wrong(),
            }),
            DebugQuestion::Wrong => Value::Object(self.wrong()),
        }
    }

    fn wrong(&self) -> Map<String, Value> {
        let wrong = self.diagnostics();
        wrong
            .map(|(subject, reasons)| {
                let reasons: Vec<_> = reasons.keys().collect();
                (subject.to_string(), json!(reasons))
            })
            .collect()
    }
}

impl<A: Address> FamilyState<A> {
    fn describe(&self) -> Value {
        let applied = self.applied();
        let services = applied.all_service_elements().into_iter();
        let services: Map<_, _> = services
            .map(|(name, service_elements)| (name.to_string(), service_elements.describe()))
            .collect();
        let elements = applied.elements().iter();
        let elements: Map<_, _> = elements
            .map(|(set, count)| (set.to_string(), json!(count)))
            .collect();
        json!({
            "services": services,
            "elements": elements,
            "pending": names(self.pending()),
            "skipped": names(self.skipped()),
        })
    }
}

fn names<T: ToString>(of: impl Iterator<Item = T>) -> Vec<String> {
    of.map(|name| name.to_string()).collect()
}
