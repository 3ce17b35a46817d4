//! Follows the server as the daemon does, and waits for what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use kube_dnat::model::{Event, Kind, Object, Update};
use kube_dnat::watch::apiserver::{Timing, client, watch};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::server::{Server, TOKEN};

const DEADLINE: Duration = Duration::from_secs(20);

/// What was reported so far.
pub(crate) struct Observer {
    pub(crate) listed: BTreeSet<Kind>,
    /// The objects that count now.
    pub(crate) objects: BTreeMap<String, Object>,
    /// Every report of an object: `+key` or `-key`.
    pub(crate) reports: Vec<String>,
    /// The last report of each object that was left out in part.
    pub(crate) rejected: BTreeMap<String, String>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Observer {
    /// Follows `server`; watches end after `watch` seconds.
    pub(crate) async fn start(server: &Server, watch: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig(folder.path(), TOKEN);
        Self::start_with(&kubeconfig, folder, watch).await
    }

    pub(crate) async fn start_with(
        kubeconfig: &Path,
        folder: tempfile::TempDir,
        seconds: u64,
    ) -> Self {
        let client = client(Some(kubeconfig), None).await.unwrap();
        let (sender, events) = mpsc::channel(16);
        let timing = Timing {
            watch: Duration::from_secs(seconds),
            streaming: Duration::from_secs(1),
        };
        let task = tokio::spawn(watch(client, "node-1".into(), timing, sender));
        Self {
            listed: BTreeSet::new(),
            objects: BTreeMap::new(),
            reports: Vec::new(),
            rejected: BTreeMap::new(),
            events,
            task,
            _folder: folder,
        }
    }

    fn take(&mut self, event: Event) {
        let Update {
            key,
            object,
            rejected,
        } = match event {
            Event::Listed(kind) => {
                self.listed.insert(kind);
                return;
            }
            Event::Update(update) => update,
        };
        let key = key.to_string();
        let sign = if object.is_some() { '+' } else { '-' };
        self.reports.push(format!("{sign}{key}"));
        let rejected: Vec<_> = rejected.iter().map(ToString::to_string).collect();
        if rejected.is_empty() {
            self.rejected.remove(&key);
        } else {
            self.rejected.insert(key.clone(), rejected.join("; "));
        }
        match object {
            Some(object) => self.objects.insert(key, object),
            None => self.objects.remove(&key),
        };
    }

    /// Waits until `done` says so of what was reported.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(DEADLINE, async {
            while !done(self) {
                let event = self.events.recv().await.expect("it goes on for ever");
                self.take(event);
            }
        });
        let in_time = waited.await.is_ok();
        assert!(in_time, "not in time: {what}; reports: {:?}", self.reports);
    }

    /// Waits until Services and slices are listed.
    pub(crate) async fn until_listed(&mut self) {
        let needed = [Kind::Service, Kind::EndpointSlice];
        let done = |observer: &Self| needed.iter().all(|kind| observer.listed.contains(kind));
        self.until("the first lists", done).await;
    }

    /// Waits until the objects that count are these.
    pub(crate) async fn until_objects(&mut self, keys: &[&str]) {
        let expected: BTreeSet<_> = keys.iter().map(ToString::to_string).collect();
        let done =
            |observer: &Self| observer.objects.keys().cloned().collect::<BTreeSet<_>>() == expected;
        self.until(&format!("objects {keys:?}"), done).await;
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A Service with a `ClusterIP`.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
                 "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    })
}

/// A slice of a Service.
pub(crate) fn slice(service: &str, address: &str) -> Value {
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": format!("{service}-1"), "namespace": "shop",
                     "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}
