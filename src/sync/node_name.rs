//! The name of this node, and whether the objects know it. Pure.

use std::sync::Arc;

use super::diagnostics::{DiagnosticSubject, ObjectProblems};
use super::health::NodeObject;
use crate::events::EventReason;
use crate::planner::model::Store;

/// The name of this node.
#[derive(Debug)]
pub(super) struct NodeName {
    pub(super) name: Arc<str>,
    pub(super) object: NodeObject,
    /// The most similar names of Nodes, while the API server reports that no Node has the name.
    pub(super) similar: Option<Vec<String>>,
}

impl NodeName {
    /// Returns the subject of the problems of the name.
    pub(super) fn subject(&self) -> DiagnosticSubject {
        DiagnosticSubject::Node(Arc::clone(&self.name))
    }

    /// Returns the problem if the objects, once all are listed, know no node of this name.
    pub(super) fn problems(&self, store: &Store) -> ObjectProblems {
        let problem = match (self.object, &self.similar) {
            (NodeObject::Required, Some(similar)) => Some(missing(similar)),
            (NodeObject::Required, None) => None,
            (NodeObject::Optional, _) => {
                let is_unknown = store.node().is_none() && store.has_only_remote_endpoints();
                let problem = "there is no Node of this name, and no endpoint is on one";
                is_unknown.then(|| problem.to_owned())
            }
        };
        problem
            .map(|problem| {
                let problem = format!("{problem}: is --hostname-override right?");
                (problem, EventReason::UnknownNode)
            })
            .into_iter()
            .collect()
    }
}

/// Describes that the API server shows no Node of this name.
fn missing(similar: &[String]) -> String {
    let problem = "the API server shows no Node of this name, so load balancers are turned away";
    match similar {
        [] => problem.to_owned(),
        [one] => format!("{problem}; the most similar Node is {one}"),
        several => format!(
            "{problem}; the most similar Nodes are {}",
            several.join(", ")
        ),
    }
}
