//! The state as JSON, for `/debug/state` and `/debug/problems`.

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{FamilyState, ServicesView, State};
use crate::planner::model::{Address, ServiceName};

/// A request, which the sync loop serves between two syncs.
#[derive(Debug)]
pub enum DebugRequest {
    /// A request for a part of the state as JSON.
    Json(DebugView, oneshot::Sender<Value>),
    /// A request for all Services in short, unless the state still has this revision. The response
    /// is `None` then.
    Services(Option<u64>, oneshot::Sender<Option<ServicesView>>),
}

/// A part of the state that can be requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DebugView {
    /// Everything that is programmed, pending or skipped, and the problems of each object.
    State,
    /// Only the problems of each object.
    Problems,
    /// What is programmed for one Service, as in `State`, and its endpoints; null if there is no
    /// such Service.
    Service(ServiceName),
}

impl State {
    /// Returns a part of the state as JSON. Its cost is linear in all elements.
    #[must_use]
    pub fn debug(&self, view: DebugView) -> Value {
        match view {
            DebugView::State => json!({
                "everythingListed": self.is_complete(),
                "IPv4": self.families.ipv4.describe(),
                "IPv6": self.families.ipv6.as_ref().map(FamilyState::describe),
                "problems": self.problems(),
            }),
            DebugView::Problems => Value::Object(self.problems()),
            DebugView::Service(name) => self.describe_service(&name),
        }
    }

    pub(super) fn problems(&self) -> Map<String, Value> {
        self.diagnostics()
            .map(|(subject, problems)| {
                let problems: Vec<_> = problems.keys().collect();
                (subject.to_string(), json!(problems))
            })
            .collect()
    }
}

impl<A: Address> FamilyState<A> {
    fn describe(&self) -> Value {
        let applied = self.applied();
        let services: Map<_, _> = applied
            .all_service_elements()
            .into_iter()
            .map(|(name, service_elements)| (name.to_string(), service_elements.describe(name)))
            .collect();
        let elements: Map<_, _> = applied
            .element_counts()
            .iter()
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

fn names<T: ToString>(services: impl Iterator<Item = T>) -> Vec<String> {
    services.map(|name| name.to_string()).collect()
}
