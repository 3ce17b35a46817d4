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
}

impl NodeName {
    /// Returns the subject of the problems of the name.
    pub(super) fn subject(&self) -> DiagnosticSubject {
        DiagnosticSubject::Node(Arc::clone(&self.name))
    }

    /// Returns the problem if the objects, once all are listed, know no node of this name.
    pub(super) fn problems(&self, store: &Store) -> ObjectProblems {
        let problem = if store.node().is_some() {
            None
        } else if self.object == NodeObject::Required {
            Some("the API server shows no Node of this name, so load balancers are turned away")
        } else if store.has_only_remote_endpoints() {
            Some("there is no Node of this name, and no endpoint is on one")
        } else {
            None
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
