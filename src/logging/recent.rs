//! The most recent lines of the log, which `kube-dnat bugreport` collects.
//!
//! In a Pod the log on standard error belongs to the container runtime, and no command on the node
//! reads it in the same way everywhere.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The maximum size of the kept lines in bytes.
const CAPACITY: usize = 256 * 1024;

/// The kept lines.
static LINES: Mutex<RecentLines> = Mutex::new(RecentLines::new(CAPACITY));

/// Returns the most recent lines of the log as text, oldest first, up to 256 KiB.
#[must_use]
pub fn recent() -> String {
    lock().lines.iter().map(String::as_str).collect()
}

/// Locks the lines. A panic cannot leave them half changed.
fn lock() -> MutexGuard<'static, RecentLines> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A writer of log lines that keeps the most recent ones.
pub(super) struct RecentWriter;

impl io::Write for RecentWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        lock().push(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines up to a total size.
struct RecentLines {
    /// The lines, oldest first.
    lines: VecDeque<String>,
    /// The size of all lines in bytes.
    size: usize,
    /// The maximum size in bytes.
    capacity: usize,
}

impl RecentLines {
    /// Creates an empty collection.
    const fn new(capacity: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            size: 0,
            capacity,
        }
    }

    /// Adds a line, and removes the oldest ones that do not fit any more.
    fn push(&mut self, line: String) {
        self.size += line.len();
        self.lines.push_back(line);
        while self.size > self.capacity
            && let Some(oldest) = self.lines.pop_front()
        {
            self.size -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RecentLines;

    #[test]
    fn the_newest_lines_that_fit_are_kept() {
        let mut recent = RecentLines::new(10);
        for line in ["first\n", "2\n", "3\n"] {
            recent.push(line.to_owned());
        }
        assert_eq!(recent.lines, ["first\n", "2\n", "3\n"]);
        recent.push("4\n".to_owned());
        assert_eq!(recent.lines, ["2\n", "3\n", "4\n"]);
        recent.push("longer than ten\n".to_owned());
        assert!(recent.lines.is_empty());
        assert_eq!(recent.size, 0);
    }
}
