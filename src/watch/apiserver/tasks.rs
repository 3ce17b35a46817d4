//! The tasks that drive the connections to one server.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::rt::Executor;
use tokio::task::AbortHandle;

/// The tasks of the connections to one server, which end together.
///
/// hyper drives an HTTP/2 connection in a task of its own, which lasts as long as its streams.
#[derive(Clone, Default)]
pub(super) struct ConnectionTasks(Arc<Mutex<Vec<AbortHandle>>>);

impl ConnectionTasks {
    /// Ends all tasks, and with them their connections.
    pub(super) fn abort(&self) {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(AbortHandle::abort);
    }
}

impl<F> Executor<F> for ConnectionTasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let task = tokio::spawn(task).abort_handle();
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }
}
