//! The latest syncs, for `/debug/overview`.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::sync_once::milliseconds;
use crate::clock;
use crate::metrics::seconds_of;

/// The number of syncs that are kept.
const KEPT: usize = 60;

/// The longest error that is kept, in characters.
const ERROR_LENGTH: usize = 300;

/// One sync.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentSync {
    /// The Unix time of its end, in seconds.
    pub at: f64,
    /// Whether every Service was planned, and not only the changed ones.
    pub full: bool,
    /// The time that it took, in milliseconds.
    pub elapsed_ms: f64,
    /// The time of that in the kernel; `None` if it failed.
    pub kernel_ms: Option<f64>,
    /// The longest time from a change of an endpoint in the API until this commit, if known.
    pub programming_ms: Option<f64>,
    /// The number of netlink operations.
    pub operations: usize,
    /// The error of a failed sync.
    pub error: Option<String>,
}

impl RecentSync {
    /// Returns a sync that ends now, without operations and error.
    #[must_use]
    pub fn new(full: bool, elapsed: Duration) -> Self {
        Self {
            at: seconds_of(clock::now()),
            full,
            elapsed_ms: milliseconds(elapsed),
            kernel_ms: None,
            programming_ms: None,
            operations: 0,
            error: None,
        }
    }
}

/// The latest syncs, which the sync loop adds to and the HTTP servers report.
#[derive(Debug, Default)]
pub struct RecentSyncs(Mutex<VecDeque<RecentSync>>);

impl RecentSyncs {
    /// Adds a sync, and removes the oldest if there are too many.
    pub fn add(&self, mut sync: RecentSync) {
        if let Some(error) = &mut sync.error
            && let Some((end, _)) = error.char_indices().nth(ERROR_LENGTH)
        {
            error.truncate(end);
        }
        let mut syncs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if syncs.len() == KEPT {
            syncs.pop_front();
        }
        syncs.push_back(sync);
    }

    /// Returns the syncs, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<RecentSync> {
        let syncs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_syncs_are_kept_with_short_errors() {
        let recent = RecentSyncs::default();
        for operations in 0..KEPT + 5 {
            recent.add(RecentSync {
                operations,
                error: Some("é".repeat(1000)),
                ..RecentSync::new(false, Duration::from_micros(1500))
            });
        }
        let kept = recent.list();
        let operations: Vec<_> = kept.iter().map(|sync| sync.operations).collect();
        assert_eq!(operations, (5..KEPT + 5).collect::<Vec<_>>());
        assert!((kept[0].elapsed_ms - 1.5).abs() < f64::EPSILON);
        let error = kept[0].error.as_ref().unwrap();
        assert_eq!(error.chars().count(), ERROR_LENGTH);
    }
}
