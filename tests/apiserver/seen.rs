//! The events that the watches report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use kube_dnat::config::AcceptedTypes;
use kube_dnat::planner::model::{
    Event, Events, InterruptReason, Object, ObjectKey, ObjectKind, RejectReason,
};
use kube_dnat::watch::apiserver::{
    ClientSettings, HttpVersions, WatchTimeouts, client, watch_with,
};
use tokio::sync::mpsc::{Receiver, channel};

pub(crate) const OUR_NODE: &str = "node-1";

/// The longest time that any test waits.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The default timeouts, long enough for a loaded machine; a test shortens those that it needs.
pub(crate) const TIMEOUTS: WatchTimeouts = WatchTimeouts {
    watch: 120,
    answer: DEADLINE,
    streaming_list: DEADLINE,
    first_pause: Duration::from_millis(20),
    unavailable: DEADLINE,
    confirmation: DEADLINE,
    missing_node: Duration::from_hours(1),
    older_lists: DEADLINE,
    fallback: DEADLINE.saturating_mul(10),
};

/// Returns the settings of a client with a kubeconfig.
pub(crate) fn settings(kubeconfig: &Path) -> ClientSettings {
    let (accepted, versions) = if super::FALLBACK {
        (AcceptedTypes::JsonOnly, HttpVersions::Http1Only)
    } else {
        (AcceptedTypes::default(), HttpVersions::default())
    };
    ClientSettings {
        kubeconfig: Some(kubeconfig.to_owned()),
        accepted,
        versions,
        ..ClientSettings::default()
    }
}

/// The events that were reported so far.
pub(crate) struct Seen {
    events: Receiver<Events>,
    pub(crate) objects: BTreeMap<ObjectKey, Object>,
    pub(crate) rejected: BTreeMap<ObjectKey, Vec<RejectReason>>,
    /// Every kind that was reported as listed, once for each report.
    pub(crate) listed: Vec<ObjectKind>,
    /// Every interruption that was reported, in order.
    pub(crate) interrupted: Vec<(ObjectKind, InterruptReason)>,
    /// The similar names of every report that this node has no Node, in order.
    pub(crate) node_missing: Vec<Vec<String>>,
    /// Every object that was reported as deleted or invalid, in order.
    pub(crate) deleted: Vec<String>,
}

impl Seen {
    /// Starts to watch the server of `kubeconfig`.
    pub(crate) async fn watch(kubeconfig: &Path, timeouts: WatchTimeouts) -> Self {
        Self::with(&settings(kubeconfig), timeouts).await
    }

    /// Starts to watch with these settings.
    pub(crate) async fn with(settings: &ClientSettings, timeouts: WatchTimeouts) -> Self {
        let client = client(settings).await.expect("a client");
        let (sender, events) = channel(16);
        tokio::spawn(watch_with(timeouts, client, OUR_NODE.into(), sender));
        Self {
            events,
            objects: BTreeMap::new(),
            rejected: BTreeMap::new(),
            listed: Vec::new(),
            interrupted: Vec::new(),
            node_missing: Vec::new(),
            deleted: Vec::new(),
        }
    }

    /// Starts to watch, and waits for the first lists of all kinds.
    pub(crate) async fn listed(kubeconfig: &Path, timeouts: WatchTimeouts) -> Self {
        Self::listed_with(&settings(kubeconfig), timeouts).await
    }

    /// Starts to watch with these settings, and waits for the first lists of all kinds.
    pub(crate) async fn listed_with(settings: &ClientSettings, timeouts: WatchTimeouts) -> Self {
        let mut seen = Self::with(settings, timeouts).await;
        seen.until("all kinds are listed", |seen| {
            let kinds: BTreeSet<ObjectKind> = seen.listed.iter().copied().collect();
            kinds.len() == 4
        })
        .await;
        seen
    }

    /// Handles events until `condition` holds.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let events = async {
            while !condition(self) {
                let events = self.events.recv().await.expect("the watch continues");
                for event in events {
                    self.handle_event(event);
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, events).await.is_ok();
        assert!(
            in_time,
            "not in time: {what}; listed {:?}, interrupted {:?}, deleted {:?}, objects {:?}",
            self.listed,
            self.interrupted,
            self.deleted,
            self.objects.keys()
        );
    }

    /// Handles events until `condition` holds, and calls `action` every 50 ms meanwhile.
    pub(crate) async fn until_with(
        &mut self,
        what: &str,
        condition: impl Fn(&Self) -> bool,
        action: impl Fn(),
    ) {
        let acting = async {
            loop {
                action();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = self.until(what, condition) => {}
            () = acting => {}
        }
    }

    /// Handles events until a watch was interrupted for this reason.
    pub(crate) async fn until_interrupted(&mut self, kind: ObjectKind, reason: InterruptReason) {
        self.until(reason.name(), |seen| {
            seen.interrupted.contains(&(kind, reason))
        })
        .await;
    }

    /// Handles events until an object exists.
    pub(crate) async fn until_exists(&mut self, kind: ObjectKind, name: &str) {
        self.until(name, |seen| seen.has(kind, name)).await;
    }

    /// Handles events until an object does not exist.
    pub(crate) async fn until_deleted(&mut self, kind: ObjectKind, name: &str) {
        self.until(name, |seen| !seen.has(kind, name)).await;
    }

    pub(crate) fn has(&self, kind: ObjectKind, name: &str) -> bool {
        self.objects.contains_key(&key(kind, name))
    }

    pub(crate) fn names(&self, kind: ObjectKind) -> Vec<&str> {
        let keys = self.objects.keys().filter(|key| key.kind == kind);
        keys.map(|key| &*key.name).collect()
    }

    fn handle_event(&mut self, event: Event) {
        let update = match event {
            Event::Listed(kind) => return self.listed.push(kind),
            Event::Interrupted(kind, reason) => return self.interrupted.push((kind, reason)),
            Event::NodeMissing(similar) => return self.node_missing.push(similar),
            Event::Update(update) => update,
            Event::OwnAddresses(_) => unreachable!("an API server has no own addresses"),
        };
        if !update.rejected.is_empty() {
            self.rejected.insert(update.key.clone(), update.rejected);
        }
        if let Some(object) = update.object {
            self.objects.insert(update.key, object);
        } else {
            self.deleted.push(update.key.to_string());
            self.objects.remove(&update.key);
        }
    }
}

pub(crate) fn key(kind: ObjectKind, name: &str) -> ObjectKey {
    let name = name.into();
    ObjectKey { kind, name }
}
