//! The store of the server: objects as bytes, and the history of their changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::protobuf;
use super::selector::Selector;

/// A kind of object that the server has.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) api_version: &'static str,
    pub(crate) plural: &'static str,
    namespaced: bool,
    /// The JSON pointers of the fields that field selectors can name, besides name and namespace.
    fields: &'static [(&'static str, &'static str)],
}

pub(crate) const KINDS: [Kind; 5] = [
    Kind {
        name: "Service",
        api_version: "v1",
        plural: "services",
        namespaced: true,
        fields: &[
            ("spec.clusterIP", "/spec/clusterIP"),
            ("spec.type", "/spec/type"),
        ],
    },
    Kind {
        name: "EndpointSlice",
        api_version: "discovery.k8s.io/v1",
        plural: "endpointslices",
        namespaced: true,
        fields: &[],
    },
    Kind {
        name: "Node",
        api_version: "v1",
        plural: "nodes",
        namespaced: false,
        fields: &[("spec.unschedulable", "/spec/unschedulable")],
    },
    Kind {
        name: "ServiceCIDR",
        api_version: "networking.k8s.io/v1",
        plural: "servicecidrs",
        namespaced: false,
        fields: &[],
    },
    // Which only the command `check` reads.
    Kind {
        name: "DaemonSet",
        api_version: "apps/v1",
        plural: "daemonsets",
        namespaced: true,
        fields: &[],
    },
];

impl Kind {
    /// Returns the kind of the objects at `path`, and the namespace if the path has one.
    pub(crate) fn at(path: &str) -> Option<(&'static Self, Option<&str>)> {
        KINDS.iter().find_map(|kind| {
            let of_group = path.strip_prefix(&kind.group_path())?;
            if of_group == kind.plural {
                return Some((kind, None));
            }
            let (namespace, plural) = of_group.strip_prefix("namespaces/")?.split_once('/')?;
            (kind.namespaced && plural == kind.plural).then_some((kind, Some(namespace)))
        })
    }

    fn group_path(&self) -> String {
        let api = if self.api_version == "v1" {
            "api"
        } else {
            "apis"
        };
        format!("/{api}/{}/", self.api_version)
    }

    pub(crate) fn has_field(&self, field: &str) -> bool {
        ["metadata.name", "metadata.namespace"].contains(&field)
            || self.fields.iter().any(|(known, _)| *known == field)
    }
}

/// An object at one version.
pub(crate) struct Stored {
    /// The key: `namespace/name`, or `name`.
    pub(crate) key: String,
    pub(crate) json: Bytes,
    /// The message of the object, once a client wanted it: as the real API server, this one encodes
    /// each version of an object once.
    protobuf: OnceLock<Bytes>,
    /// The same in its envelope, for watches.
    enveloped: OnceLock<Bytes>,
    sent: AtomicBool,
    labels: BTreeMap<String, String>,
    fields: BTreeMap<&'static str, String>,
}

impl Stored {
    fn new(kind: &Kind, mut object: Value, version: u64) -> Self {
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        if kind.namespaced {
            metadata.entry("namespace").or_insert(json!("default"));
        }
        let created = json!("2026-01-01T00:00:00Z");
        metadata.entry("creationTimestamp").or_insert(created);
        metadata.insert("resourceVersion".to_owned(), json!(version.to_string()));

        let text = |pointer: &str| object.pointer(pointer).map(unquoted);
        let name = text("/metadata/name").expect("metadata.name");
        let namespace = text("/metadata/namespace");
        let labels = object
            .pointer("/metadata/labels")
            .and_then(Value::as_object);
        let mut fields: BTreeMap<_, _> = kind
            .fields
            .iter()
            .map(|(field, pointer)| (*field, text(pointer).unwrap_or_default()))
            .collect();
        fields.insert("metadata.name", name.clone());
        fields.insert("metadata.namespace", namespace.clone().unwrap_or_default());
        Self {
            key: namespace.map_or(name.clone(), |namespace| format!("{namespace}/{name}")),
            json: serde_json::to_vec(&object).expect("JSON").into(),
            protobuf: OnceLock::new(),
            enveloped: OnceLock::new(),
            sent: AtomicBool::new(false),
            labels: labels
                .into_iter()
                .flatten()
                .map(|(label, value)| (label.clone(), unquoted(value)))
                .collect(),
            fields,
        }
    }

    /// Returns the object at another version, as a deletion sends it.
    fn at(&self, kind: &Kind, version: u64) -> Self {
        Self::new(kind, self.object(), version)
    }

    fn object(&self) -> Value {
        serde_json::from_slice(&self.json).expect("JSON")
    }

    /// Returns the metadata of the object, for metadata requests.
    pub(crate) fn partial_json(&self) -> Bytes {
        let partial = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": self.metadata(),
        });
        serde_json::to_vec(&partial).expect("JSON").into()
    }

    pub(crate) fn metadata(&self) -> Value {
        self.object()["metadata"].take()
    }

    /// Returns the message of the object.
    pub(crate) fn protobuf(&self, kind: &Kind) -> Bytes {
        let encoded = || protobuf::object(kind.name, &self.object()).into();
        self.protobuf.get_or_init(encoded).clone()
    }

    /// Returns the message in its envelope.
    pub(crate) fn enveloped(&self, kind: &Kind) -> Bytes {
        let encoded = || {
            let message = protobuf::object(kind.name, &self.object());
            protobuf::envelope(kind.api_version, kind.name, &message).into()
        };
        self.enveloped.get_or_init(encoded).clone()
    }

    /// Records that a client got this version of the object.
    pub(crate) fn sent(&self) {
        self.sent.store(true, Relaxed);
    }
}

fn unquoted(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The selectors of a request.
#[derive(Default)]
pub(crate) struct Filter {
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Selector,
    pub(crate) fields: Selector,
}

impl Filter {
    pub(crate) fn matches(&self, object: &Stored) -> bool {
        let label = |key: &str| object.labels.get(key).map(String::as_str);
        let field = |key: &str| object.fields.get(key).map(String::as_str);
        let in_namespace = field("metadata.namespace") == self.namespace.as_deref();
        (self.namespace.is_none() || in_namespace)
            && self.labels.matches(label)
            && self.fields.matches(field)
    }
}

/// A change of an object.
#[derive(Clone)]
struct Change {
    version: u64,
    before: Option<Arc<Stored>>,
    after: Option<Arc<Stored>>,
}

/// An event of a watch.
pub(crate) struct Event {
    pub(crate) kind: &'static str,
    pub(crate) object: Arc<Stored>,
}

/// The objects of one kind.
#[derive(Clone, Default)]
pub(crate) struct Collection {
    pub(crate) objects: BTreeMap<String, Arc<Stored>>,
    history: VecDeque<Change>,
}

impl Collection {
    pub(crate) fn apply(&mut self, kind: &Kind, object: Value, version: u64) {
        let after = Arc::new(Stored::new(kind, object, version));
        let before = self.objects.insert(after.key.clone(), Arc::clone(&after));
        self.history.push_back(Change {
            version,
            before,
            after: Some(after),
        });
    }

    pub(crate) fn delete(&mut self, key: &str, version: u64) {
        let before = self.objects.remove(key);
        assert!(before.is_some(), "{key} does not exist");
        self.history.push_back(Change {
            version,
            before,
            after: None,
        });
    }

    /// Compacts the changes up to `version`.
    pub(crate) fn compact(&mut self, version: u64) {
        self.history.retain(|change| change.version > version);
    }

    /// Returns whether a client ever got a version of `key`; compacted ones do not count.
    pub(crate) fn has_sent(&self, key: &str) -> bool {
        let history = self.history.iter();
        let changed = history.flat_map(|change| [&change.before, &change.after]);
        let mut versions = changed.flatten().chain(self.objects.get(key));
        versions.any(|object| object.key == key && object.sent.load(Relaxed))
    }

    /// Reverts the changes after `version`.
    pub(crate) fn restore(&mut self, version: u64) {
        while let Some(change) = self.history.pop_back_if(|it| it.version > version) {
            match (change.before, change.after) {
                (Some(before), _) => self.objects.insert(before.key.clone(), before),
                (None, Some(after)) => self.objects.remove(&after.key),
                (None, None) => unreachable!("a change of no object"),
            };
        }
    }

    /// Returns the changes after `version` for a watch with `filter`.
    ///
    /// An object that does not match any more is deleted, and one that matches now is added.
    pub(crate) fn since(&self, kind: &Kind, version: u64, filter: &Filter) -> Vec<Event> {
        let start = self
            .history
            .partition_point(|change| change.version <= version);
        let seen =
            |object: &Option<Arc<Stored>>| object.clone().filter(|object| filter.matches(object));
        self.history
            .range(start..)
            .filter_map(|change| {
                let (kind, object) = match (seen(&change.before), seen(&change.after)) {
                    (None, None) => return None,
                    (None, Some(after)) => ("ADDED", after),
                    (Some(_), Some(after)) => ("MODIFIED", after),
                    (Some(before), None) => ("DELETED", Arc::new(before.at(kind, change.version))),
                };
                Some(Event { kind, object })
            })
            .collect()
    }
}
