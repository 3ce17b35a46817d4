//! The tasks that the sync loop does at a later time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A task that the sync loop does at a later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Read the tables back, since another process changed them.
    ReadBack,
    /// Retry a failed sync, or the Services that the kernel rejected.
    Retry,
    /// Start the sync that `minSyncPeriod` delays.
    Sync,
    /// Delete the conntrack entries that changes made stale.
    CleanConntrack,
    /// Let the shares of new endpoints grow.
    SlowStart,
    /// Retry to unpin the clients that must lose their endpoint, after a failure.
    ReapClients,
    /// Delete the unused dynamic chains.
    DeleteUnusedChains,
    /// Check whether an affinity map is full.
    CheckAffinityMaps,
}

/// The queue of tasks: at most one of each kind.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    due: BTreeMap<Task, Instant>,
}

impl Tasks {
    /// Schedules a task after a delay, unless it is scheduled already.
    pub(super) fn schedule(&mut self, task: Task, after: Duration) {
        let at = Instant::now() + after;
        self.due.entry(task).or_insert(at);
    }

    /// Replaces the time of a task; `None` removes the task.
    pub(super) fn set(&mut self, task: Task, at: Option<Instant>) {
        match at {
            Some(at) => self.due.insert(task, at),
            None => self.due.remove(&task),
        };
    }

    /// Whether a task is scheduled.
    pub(super) fn is_scheduled(&self, task: Task) -> bool {
        self.due.contains_key(&task)
    }

    /// Waits for the task that is due first, and removes it; waits forever if there is none.
    pub(super) async fn next(&mut self) -> Task {
        let Some((task, at)) = self.first() else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(at).await;
        self.due.remove(&task);
        task
    }

    fn first(&self) -> Option<(Task, Instant)> {
        self.due
            .iter()
            .map(|(task, at)| (*task, *at))
            .min_by_key(|(task, at)| (*at, *task))
    }
}

/// The pause before the first retry.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// The back-off of retries.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The next pause.
    pub(super) pause: Duration,
    /// Whether the last sync failed as a whole, so that no other sync starts before the retry.
    pub(super) is_failing: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            pause: FIRST_RETRY,
            is_failing: false,
        }
    }
}

impl Backoff {
    /// Returns the back-off after a first failure.
    pub(super) fn failing() -> Self {
        Self {
            is_failing: true,
            ..Self::default()
        }
    }

    /// Doubles the pause, up to a limit.
    pub(super) fn lengthen(&mut self, longest: Duration) {
        self.pause = (self.pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_due_once_and_in_the_order_of_time() {
        let mut tasks = Tasks::default();
        tasks.schedule(Task::Retry, Duration::from_secs(2));
        tasks.schedule(Task::Retry, Duration::ZERO);
        tasks.schedule(Task::CheckAffinityMaps, Duration::from_secs(1));
        assert_eq!(tasks.first().unwrap().0, Task::CheckAffinityMaps);
        tasks.set(Task::CheckAffinityMaps, None);
        assert_eq!(tasks.first().unwrap().0, Task::Retry);
        let now = Instant::now();
        tasks.set(Task::Sync, Some(now));
        assert_eq!(tasks.first(), Some((Task::Sync, now)));
        assert!(tasks.is_scheduled(Task::Retry));
        assert!(!tasks.is_scheduled(Task::ReadBack));
    }
}
