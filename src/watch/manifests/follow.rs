//! A directory of manifests followed as it changes, on a thread of its own.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::logging::LogEvent;
use crate::planner::model::{Event, Events, ObjectKind};

use super::batch::Rescan;
use super::files::Files;
use super::notice::{Filter, Notice};
use super::{ManifestsError, readable};

/// Changes that follow each other faster than this count as one.
const QUIET: Duration = Duration::from_millis(10);
/// A change is not held back for longer than this, and one that takes something away not for less:
/// it may be half of a rename, or an editor that makes the file anew, and then nothing is to go.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// How often to look whether a directory that is gone is there again.
const RETRY: Duration = Duration::from_millis(200);
/// Notices that wait for the thread; when there are more, it looks at every file instead.
const NOTICES: usize = 4096;

/// Follows the manifests below `dir` for the node named `our_node`. First everything that is there
/// goes to `events`, then [`Event::Listed`] for each kind, then what changes: a file written and
/// closed, replaced, moved or removed, and the same of directories and links. What is read at once
/// takes effect at once: a Service is not served before the slices beside it in its file. A file that is being
/// written is not read before its writer closes it; one that is not YAML or JSON keeps its last
/// good content. When `events` is full the thread waits, and changes add up behind it.
///
/// Limits: `dir` itself being removed or moved away leaves its last content in force until there
/// is a directory of that name again; a process that removes the files one by one before it is
/// seen as just that. What a link leads to outside `dir`, and where `dir` itself leads if it is a
/// link, is looked at only when something in `dir` changes. What other machines do to a network
/// file system goes unseen.
///
/// # Errors
/// If `dir` cannot be listed or watched. Later failures are logged and retried.
pub fn watch(
    dir: &Path,
    our_node: Arc<str>,
    events: mpsc::Sender<Events>,
) -> Result<WatchHandle, ManifestsError> {
    let dir = std::path::absolute(dir).map_err(|source| ManifestsError::Directory {
        path: dir.to_owned(),
        source,
    })?;
    let (signals, received) = sync_channel(NOTICES);
    let flags = Arc::new(Flags::default());
    let watcher = watcher(&dir, &signals, &flags)?;
    let follower = Follower {
        files: Files::new(dir, our_node),
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

/// The thread of [`watch`]; it ends when this is dropped, or the receiver of its events.
#[derive(Debug)]
pub struct WatchHandle {
    signals: SyncSender<Signal>,
    flags: Arc<Flags>,
    thread: Option<JoinHandle<()>>,
}

impl WatchHandle {
    /// Ends the thread and waits for it. The receiver of its events must be gone or empty, or the
    /// thread may wait for room in it.
    pub fn stop(mut self) {
        self.signal();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!(event = %LogEvent::ManifestsThreadPanicked, "the thread that follows the manifests panicked");
        }
    }

    fn signal(&self) {
        self.flags.stop.store(true, Ordering::Relaxed);
        // With no room for it the thread has enough to wake up for.
        let _ = self.signals.try_send(Signal::Stop);
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.signal();
    }
}

#[derive(Debug)]
enum Signal {
    Notice(Notice),
    Stop,
}

#[derive(Debug, Default)]
struct Flags {
    /// The thread is to end.
    stop: AtomicBool,
    /// A notice found no room.
    lost: AtomicBool,
}

/// A watch of `dir` that sends what it sees to `signals`. Only `dir` itself: the walk sets a watch
/// on each directory below before it lists it, whereas a recursive one would set it some time
/// after the directory was reported, and miss the files written in between.
fn watcher(
    dir: &Path,
    signals: &SyncSender<Signal>,
    flags: &Arc<Flags>,
) -> Result<RecommendedWatcher, ManifestsError> {
    readable(dir)?;
    let (signals, flags) = (signals.clone(), flags.clone());
    let mut filter = Filter::default();
    let send = move |event: notify::Result<notify::Event>| {
        let notice = match event {
            Ok(event) => filter.pass(event),
            Err(error) => {
                warn!(event = %LogEvent::ManifestsWatchFailed, %error, "notifications of manifest changes were lost");
                Some(Notice::Lost)
            }
        };
        // To wait for room would be a deadlock: the thread waits for this one to set watches.
        if let Some(notice) = notice
            && signals.try_send(Signal::Notice(notice)).is_err()
        {
            flags.lost.store(true, Ordering::Relaxed);
        }
    };
    notify::recommended_watcher(send)
        .and_then(|mut watcher| {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        })
        .map_err(|source| ManifestsError::Watch {
            path: dir.to_owned(),
            source,
        })
}

fn watch_below(watcher: &mut RecommendedWatcher, directory: &Path) {
    match watcher.watch(directory, RecursiveMode::NonRecursive) {
        Ok(()) => {}
        Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
        Err(error) => {
            warn!(event = %LogEvent::ManifestsWatchFailed, %error, directory = %directory.display(), "cannot watch a directory; its changes go unnoticed");
        }
    }
}

struct Follower {
    files: Files,
    watcher: RecommendedWatcher,
    signals: SyncSender<Signal>,
    received: Receiver<Signal>,
    flags: Arc<Flags>,
    events: mpsc::Sender<Events>,
}

/// The thread is to end: it was told so, or nobody listens to it.
struct Stopped;

impl Follower {
    fn run(mut self) {
        // Why it ends makes no difference.
        let Err(Stopped) = self.follow();
    }

    fn follow(&mut self) -> Result<Infallible, Stopped> {
        self.catch_up()?;
        self.send(ObjectKind::ALL.map(Event::Listed).into())?;
        loop {
            let batch = self.batch()?;
            if batch.detached || !self.files.is_there() {
                self.attach()?;
                self.catch_up()?;
            } else if !self.report(batch)? {
                self.catch_up()?;
            }
        }
    }

    /// What the next change and those that follow it closely ask for.
    fn batch(&mut self) -> Result<Rescan, Stopped> {
        let mut batch = Rescan::default();
        let mut signal = self.received.recv().map_err(|_closed| Stopped)?;
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            self.take(signal, &mut batch)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if batch.removes { left } else { QUIET.min(left) };
            match self.received.recv_timeout(wait) {
                Ok(next) => signal = next,
                Err(RecvTimeoutError::Timeout) => return Ok(batch),
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }

    fn take(&mut self, signal: Signal, batch: &mut Rescan) -> Result<(), Stopped> {
        if self.flags.stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        if self.flags.lost.swap(false, Ordering::Relaxed) {
            self.files.note(Notice::Lost, batch);
        }
        match signal {
            Signal::Notice(notice) => self.files.note(notice, batch),
            Signal::Stop => return Err(Stopped),
        }
        Ok(())
    }

    /// Reports every file, as soon as there is a directory to read.
    fn catch_up(&mut self) -> Result<(), Stopped> {
        while !self.report(Rescan::everything())? {
            self.attach()?;
        }
        Ok(())
    }

    /// Reports what `batch` asks for; false if the directory is gone.
    fn report(&mut self, batch: Rescan) -> Result<bool, Stopped> {
        let watcher = &mut self.watcher;
        let updates = self
            .files
            .take_in(batch, &mut |directory| watch_below(watcher, directory));
        let Some(updates) = updates else {
            return Ok(false);
        };
        if !updates.is_empty() {
            self.send(updates.into_iter().map(Event::Update).collect())?;
        }
        Ok(true)
    }

    fn send(&self, events: Events) -> Result<(), Stopped> {
        self.events.blocking_send(events).map_err(|_closed| Stopped)
    }

    /// Watches the directory anew, as soon as there is one.
    fn attach(&mut self) -> Result<(), Stopped> {
        let mut waited = false;
        loop {
            match watcher(self.files.directory(), &self.signals, &self.flags) {
                Ok(watcher) => {
                    self.watcher = watcher;
                    self.files.attach();
                    if waited {
                        info!(event = %LogEvent::ManifestsDirectoryRestored, "the directory of manifests exists again");
                    }
                    return Ok(());
                }
                Err(_) if waited => {}
                Err(error) => {
                    waited = true;
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
