//! What the threads of a server share, and what the servers of a cluster share.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::contents::Contents;
use super::events::Events;
use super::state::State;

/// The time for which the real API server waits for a version that it does not have yet
/// (`blockTimeout` of the watch cache).
const FRESH: Duration = Duration::from_secs(3);

/// What all servers of a cluster share.
pub(crate) struct Cluster {
    contents: Mutex<Contents>,
    events: Mutex<Events>,
    /// The number of times that all servers restarted.
    restores: AtomicU64,
    /// Rings after each change by a test, for the watches and connections.
    orders: watch::Sender<()>,
    /// Rings after each change, for the tests.
    progress: watch::Sender<()>,
}

/// The state of a server with notifications of its changes.
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    state: Mutex<State>,
    /// The bytes that were sent over TCP, with TLS and HTTP.
    pub(crate) wire_bytes: AtomicU64,
    /// Whether nothing passes any connection.
    silent: AtomicBool,
    /// The number of times that all open connections fell silent for good.
    silences: AtomicU64,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            contents: Mutex::new(Contents::new()),
            events: Mutex::new(Events::default()),
            restores: AtomicU64::new(0),
            orders: watch::Sender::new(()),
            progress: watch::Sender::new(()),
        }
    }

    pub(crate) fn contents(&self) -> MutexGuard<'_, Contents> {
        locked(&self.contents)
    }

    pub(crate) fn events(&self) -> MutexGuard<'_, Events> {
        locked(&self.events)
    }

    /// Changes the objects.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.contents());
        self.ring();
    }

    /// Writes an Event.
    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut Events) -> T) -> T {
        let result = write(&mut self.events());
        self.progress.send_replace(());
        result
    }

    /// Restores an old version, for which all servers restart.
    pub(crate) fn restore(&self, version: u64) {
        self.contents().restore(version);
        self.restores.fetch_add(1, Relaxed);
        self.ring();
    }

    fn ring(&self) {
        self.orders.send_replace(());
        self.progress.send_replace(());
    }
}

impl Shared {
    pub(crate) fn new(cluster: Arc<Cluster>, token: String) -> Self {
        Self {
            cluster,
            state: Mutex::new(State::new(token)),
            wire_bytes: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            silences: AtomicU64::new(0),
        }
    }

    pub(crate) fn look(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Looks at the objects as this server knows them.
    pub(crate) fn view<T>(&self, look: impl FnOnce(&Contents) -> T) -> T {
        self.view_of(&self.look(), look)
    }

    /// Does the same while the state is locked.
    pub(crate) fn view_of<T>(&self, state: &State, look: impl FnOnce(&Contents) -> T) -> T {
        match &state.lagging {
            Some(old) => look(old),
            None => look(&self.cluster.contents()),
        }
    }

    /// Makes a change that the watches and connections react to.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.look());
        self.cluster.ring();
        result
    }

    /// Records what the server did.
    pub(crate) fn note<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.look());
        self.cluster.progress.send_replace(());
        result
    }

    /// Returns the bell that rings after each change by a test.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.cluster.orders.subscribe()
    }

    /// Waits until `condition` holds by what a test or the server did.
    pub(crate) async fn until(&self, mut condition: impl FnMut(&State) -> bool) {
        let mut bell = self.cluster.progress.subscribe();
        while !condition(&self.look()) {
            bell.changed().await.expect("the bell is ours");
        }
    }

    /// Waits until `condition` holds by what a test did.
    pub(crate) async fn until_ordered(&self, mut condition: impl FnMut(&State) -> bool) {
        let mut bell = self.subscribe();
        while !condition(&self.look()) {
            bell.changed().await.expect("the bell is ours");
        }
    }

    /// Waits for a while until this server knows `version`; returns whether it does.
    pub(crate) async fn is_fresh(&self, version: u64) -> bool {
        let mut bell = self.subscribe();
        let fresh = async {
            while self.view(|contents| contents.version) < version {
                bell.changed().await.expect("the bell is ours");
            }
        };
        timeout(FRESH, fresh).await.is_ok()
    }

    /// Returns how often the server restarted, with all servers or alone.
    pub(crate) fn lives(&self) -> u64 {
        self.lives_of(&self.look())
    }

    /// Waits until the server is down, or restarts after its life `life`.
    pub(crate) async fn until_dead(&self, life: u64) {
        self.until_ordered(|state| state.down || self.lives_of(state) != life)
            .await;
    }

    fn lives_of(&self, state: &State) -> u64 {
        state.restarts + self.cluster.restores.load(Relaxed)
    }

    /// Silences all open connections for good, and new ones until [`Shared::speak`].
    pub(crate) fn fall_silent(&self) {
        self.silences.fetch_add(1, Relaxed);
        self.silent.store(true, Relaxed);
    }

    pub(crate) fn speak(&self) {
        self.silent.store(false, Relaxed);
    }

    pub(crate) fn silences(&self) -> u64 {
        self.silences.load(Relaxed)
    }

    /// Returns whether nothing passes a connection from the time after `silences`.
    pub(crate) fn is_silent_since(&self, silences: u64) -> bool {
        self.silent.load(Relaxed) || self.silences() != silences
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no test panics while it holds the state")
}
