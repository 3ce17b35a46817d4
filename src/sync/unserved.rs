//! The parts of Services that are not programmed, by family. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostics::{ObjectProblems, worded};
use crate::planner::desired::UnservedReason;
use crate::planner::dual::Dual;
use crate::planner::model::ServiceName;

/// A planned Service, and the reasons why parts of it are not served.
pub(super) type PlannedService = (ServiceName, Vec<UnservedReason>);

/// The reasons why parts of Services are not served, by family.
#[derive(Debug)]
pub(super) struct UnservedParts(Dual<BTreeMap<ServiceName, ObjectProblems>>);

impl UnservedParts {
    /// Creates the collection of a node with both families.
    pub(super) fn new() -> Self {
        Self(Dual::both(BTreeMap::new(), BTreeMap::new()))
    }

    /// Removes the IPv6 half.
    pub(super) fn ipv4_only(self) -> Self {
        Self(Dual {
            ipv6: None,
            ..self.0
        })
    }

    /// Replaces the reasons of the planned Services; returns the reasons of each of them in both
    /// families together.
    pub(super) fn replace(
        &mut self,
        planned: Dual<&[PlannedService]>,
    ) -> BTreeMap<ServiceName, ObjectProblems> {
        let mut names = BTreeSet::new();
        for (unserved, services) in self.0.as_mut().zip(planned) {
            for (name, reasons) in services {
                names.insert(name.clone());
                if reasons.is_empty() {
                    unserved.remove(name);
                } else {
                    unserved.insert(name.clone(), worded(reasons));
                }
            }
        }
        names
            .into_iter()
            .map(|name| {
                let problems = self.problems(&name);
                (name, problems)
            })
            .collect()
    }

    /// Removes the reasons of a Service that is deleted.
    pub(super) fn remove(&mut self, service: &ServiceName) {
        for unserved in self.0.as_mut() {
            unserved.remove(service);
        }
    }

    fn problems(&self, service: &ServiceName) -> ObjectProblems {
        self.0
            .as_ref()
            .into_iter()
            .filter_map(|unserved| unserved.get(service))
            .flatten()
            .map(|(problem, reason)| (problem.clone(), *reason))
            .collect()
    }
}
