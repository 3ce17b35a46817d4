//! The node ports that localhost does not serve, for `/debug/problems`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::planner::model::ServiceName;

/// The problems of each Service. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct RelayProblems(Arc<Mutex<BTreeMap<ServiceName, Vec<String>>>>);

impl RelayProblems {
    /// Replaces the problems.
    pub(super) fn set(&self, problems: BTreeMap<ServiceName, Vec<String>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    /// Returns the problems of each Service.
    #[must_use]
    pub fn list(&self) -> BTreeMap<ServiceName, Vec<String>> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.clone()
    }
}
