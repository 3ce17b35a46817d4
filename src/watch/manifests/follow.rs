//! The thread that follows a directory of manifests.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::RecommendedWatcher;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::logging::LogEvent;
use crate::planner::model::{Event, Events, ObjectKind};

use super::ManifestsError;
use super::files::Files;
use super::notice::Notice;
use super::problems::ManifestProblems;
use super::rescan::Rescan;
use super::watcher::{Flags, Signal, watch_below, watcher};

/// The pause that ends a series of changes that are read together.
const SETTLE_TIME: Duration = Duration::from_millis(10);
/// The longest delay of a change, and the shortest of a removal.
///
/// A removal may be half of a rename, or an editor that rewrites the file, and then no object is
/// deleted.
const MAX_DELAY: Duration = Duration::from_millis(50);
/// The interval between checks whether a missing directory exists again.
const RETRY: Duration = Duration::from_millis(200);
/// The number of notices that can wait for the thread; if there are more, it reads every file.
const MAX_NOTICES: usize = 4096;

/// Follows the manifests below `dir` for the node named `our_node`.
///
/// First it sends all objects to `events`, then [`Event::Listed`] for each kind, and then changes:
/// a file that is written and closed, replaced, moved or removed, and the same for directories and
/// links. Objects that are read together take effect together: a Service is not programmed before
/// the slices in its file. A file that is being written is not read before its writer closes it. A
/// file that is not YAML or JSON keeps its last good content. If `events` is full the thread waits,
/// and changes accumulate.
///
/// Limits: if `dir` itself is removed or moved away, its last content stays programmed until a
/// directory of that name exists again; but if a process removes the files one by one first, their
/// objects are deleted. The targets of links outside `dir`, and the target of `dir` if it is a
/// link, are checked only when something in `dir` changes. Changes that other machines make to a
/// network file system go unnoticed.
///
/// # Errors
/// If `dir` cannot be listed or watched. Later failures are logged and retried.
pub fn watch(
    dir: &Path,
    our_node: Arc<str>,
    events: mpsc::Sender<Events>,
) -> Result<WatchHandle, ManifestsError> {
    watch_with(dir, our_node, events, ManifestProblems::new(dir.to_owned()))
}

/// Does the same as [`watch`], and records in `problems` what cannot be read or parsed.
///
/// # Errors
/// As [`watch`].
pub fn watch_with(
    dir: &Path,
    our_node: Arc<str>,
    events: mpsc::Sender<Events>,
    problems: ManifestProblems,
) -> Result<WatchHandle, ManifestsError> {
    let dir = std::path::absolute(dir).map_err(|source| ManifestsError::Directory {
        path: dir.to_owned(),
        source,
    })?;
    let (signals, received) = sync_channel(MAX_NOTICES);
    let flags = Arc::new(Flags::default());
    let watcher = watcher(&dir, &signals, &flags)?;
    let follower = Follower {
        files: Files::new(dir, our_node, problems.clone()),
        problems,
        watcher,
        signals: signals.clone(),
        received,
        flags: flags.clone(),
        events,
    };
    let thread = thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(move || follower.run())
        .map_err(ManifestsError::Thread)?;
    Ok(WatchHandle {
        signals,
        flags,
        thread: Some(thread),
    })
}

/// The handle of the thread of [`watch`], which ends when the handle or the receiver is dropped.
#[derive(Debug)]
pub struct WatchHandle {
    /// The channel to the thread.
    signals: SyncSender<Signal>,
    /// The flags of the thread.
    flags: Arc<Flags>,
    /// The thread, until it is joined.
    thread: Option<JoinHandle<()>>,
}

impl WatchHandle {
    /// Stops the thread and waits for it.
    ///
    /// The receiver of its events must be dropped or empty, or the thread may wait for room in it.
    pub fn stop(mut self) {
        self.signal();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!(event = %LogEvent::ManifestsThreadPanicked, "the thread that follows the manifests panicked");
        }
    }

    /// Tells the thread to stop.
    fn signal(&self) {
        self.flags.stop.store(true, Ordering::Relaxed);
        // If the channel is full, the thread wakes up anyway.
        let _ = self.signals.try_send(Signal::Stop);
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.signal();
    }
}

/// The state of the thread.
struct Follower {
    /// The files and their objects.
    files: Files,
    /// What cannot be read or parsed.
    problems: ManifestProblems,
    /// The watcher of the directories.
    watcher: RecommendedWatcher,
    /// The channel to this thread, for the watcher.
    signals: SyncSender<Signal>,
    /// The signals to this thread.
    received: Receiver<Signal>,
    /// The flags that other threads set.
    flags: Arc<Flags>,
    /// The channel of the events.
    events: mpsc::Sender<Events>,
}

/// The thread must end: its handle or the receiver of its events is dropped.
struct Stopped;

/// The outcome of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    /// The changed objects were sent.
    Sent,
    /// The directory does not exist.
    DirectoryMissing,
}

impl Follower {
    /// Runs until the thread must end.
    fn run(mut self) {
        let Err(Stopped) = self.follow();
    }

    /// Reports all files and then their changes.
    fn follow(&mut self) -> Result<Infallible, Stopped> {
        self.report_all()?;
        self.send(ObjectKind::ALL.map(Event::Listed).into())?;
        loop {
            let rescan = self.next_rescan()?;
            if rescan.detached || !self.files.is_attached() {
                self.attach()?;
                self.report_all()?;
            } else if self.report(rescan)? == Report::DirectoryMissing {
                self.report_all()?;
            }
        }
    }

    /// Waits for the next change; returns the files of that change and of those that follow
    /// closely.
    fn next_rescan(&mut self) -> Result<Rescan, Stopped> {
        let mut rescan = Rescan::default();
        let mut signal = self.received.recv().map_err(|_closed| Stopped)?;
        let deadline = Instant::now() + MAX_DELAY;
        loop {
            self.take(signal, &mut rescan)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if rescan.removes {
                left
            } else {
                SETTLE_TIME.min(left)
            };
            match self.received.recv_timeout(wait) {
                Ok(next) => signal = next,
                Err(RecvTimeoutError::Timeout) => return Ok(rescan),
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }

    /// Handles a signal.
    fn take(&mut self, signal: Signal, rescan: &mut Rescan) -> Result<(), Stopped> {
        if self.flags.stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        if self.flags.lost.swap(false, Ordering::Relaxed) {
            self.files.handle(Notice::Lost, rescan);
        }
        match signal {
            Signal::Notice(notice) => self.files.handle(notice, rescan),
            Signal::Stop => return Err(Stopped),
        }
        Ok(())
    }

    /// Reports every file as soon as the directory exists.
    fn report_all(&mut self) -> Result<(), Stopped> {
        while self.report(Rescan::everything())? == Report::DirectoryMissing {
            self.attach()?;
        }
        Ok(())
    }

    /// Reads the files of `rescan` and sends the changed objects.
    fn report(&mut self, rescan: Rescan) -> Result<Report, Stopped> {
        let watcher = &mut self.watcher;
        let updates = self
            .files
            .read(rescan, &mut |directory| watch_below(watcher, directory));
        let Some(updates) = updates else {
            return Ok(Report::DirectoryMissing);
        };
        if !updates.is_empty() {
            self.send(updates.into_iter().map(Event::Update).collect())?;
        }
        Ok(Report::Sent)
    }

    /// Sends events to the receiver.
    fn send(&self, events: Events) -> Result<(), Stopped> {
        self.events.blocking_send(events).map_err(|_closed| Stopped)
    }

    /// Watches the directory again as soon as it exists.
    fn attach(&mut self) -> Result<(), Stopped> {
        let mut waited = false;
        loop {
            match watcher(self.files.directory(), &self.signals, &self.flags) {
                Ok(watcher) => {
                    self.watcher = watcher;
                    self.files.attach();
                    self.problems.remove(self.files.directory());
                    if waited {
                        info!(event = %LogEvent::ManifestsDirectoryRestored, "the directory of manifests exists again");
                    }
                    return Ok(());
                }
                Err(_) if waited => {}
                Err(error) => {
                    waited = true;
                    self.problems
                        .insert(self.files.directory(), error.to_string());
                    warn!(event = %LogEvent::ManifestsDirectoryMissing, %error, "the directory of manifests is missing; its last content remains programmed");
                }
            }
            match self.received.recv_timeout(RETRY) {
                Ok(signal) => self.take(signal, &mut Rescan::default())?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }
}
