//! Objects of Kubernetes, read strictly: a field that its type does not have is a mistake.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The documents of a YAML text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let documents = yaml_serde::Deserializer::from_str(text);
    let values = documents.map(|document| {
        // This type refuses a key that is written twice.
        let value = yaml_serde::Value::deserialize(document).unwrap_or_else(|error| {
            panic!("{error}:\n{text}");
        });
        serde_json::to_value(value).unwrap()
    });
    values.filter(|value| !value.is_null()).collect()
}

/// Objects that were read strictly.
#[derive(Debug)]
pub(crate) struct Objects(Vec<Value>);

impl Objects {
    /// Reads them.
    pub(crate) fn read(text: &str) -> Self {
        let objects = documents(text);
        objects.iter().for_each(check);
        Self(objects)
    }

    /// All of a kind.
    pub(crate) fn all<T: DeserializeOwned>(&self) -> Vec<T> {
        let objects = self.0.iter().cloned();
        objects
            .filter_map(|object| serde_json::from_value(object).ok())
            .collect()
    }

    /// The only one of a kind.
    pub(crate) fn one<T: DeserializeOwned>(&self) -> T {
        let mut all = self.all();
        assert_eq!(all.len(), 1, "{self:?}");
        all.remove(0)
    }
}

/// Panics if an object has a field that its type does not have, or one of another type.
pub(crate) fn check(object: &Value) {
    let kind = (object["apiVersion"].as_str(), object["kind"].as_str());
    let lost = match kind {
        (Some("v1"), Some("ConfigMap")) => lost_as::<ConfigMap>(object),
        (Some("v1"), Some("Service")) => lost_as::<Service>(object),
        (Some("v1"), Some("ServiceAccount")) => lost_as::<ServiceAccount>(object),
        (Some("apps/v1"), Some("DaemonSet")) => lost_as::<DaemonSet>(object),
        (Some("rbac.authorization.k8s.io/v1"), Some("ClusterRole")) => {
            lost_as::<ClusterRole>(object)
        }
        (Some("rbac.authorization.k8s.io/v1"), Some("ClusterRoleBinding")) => {
            lost_as::<ClusterRoleBinding>(object)
        }
        _ => panic!("this test does not know {kind:?}: {object}"),
    };
    assert!(lost.is_empty(), "{kind:?} does not have {lost:?}");
}

/// The fields that are not there any more once an object was read as `T`.
fn lost_as<T: DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    let read: T = serde_json::from_value(object.clone())
        .unwrap_or_else(|error| panic!("{error} in {object}"));
    lost(object, &serde_json::to_value(read).unwrap(), "")
}

/// The paths of what one value has and another has not, or another.
pub(crate) fn lost(from: &Value, to: &Value, path: &str) -> Vec<String> {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            let each = from.iter().flat_map(|(key, value)| {
                let path = format!("{path}.{key}");
                match to.get(key) {
                    Some(kept) => lost(value, kept, &path),
                    None => vec![path],
                }
            });
            each.collect()
        }
        (Value::Array(from), Value::Array(to)) if from.len() == to.len() => {
            let pairs = from.iter().zip(to).enumerate();
            let each = pairs.flat_map(|(at, (from, to))| lost(from, to, &format!("{path}[{at}]")));
            each.collect()
        }
        _ if from == to => Vec::new(),
        _ => vec![path.to_owned()],
    }
}

#[test]
fn a_field_that_does_not_exist_is_found() {
    let good =
        "apiVersion: apps/v1\nkind: DaemonSet\nspec: {template: {spec: {hostNetwork: true}}}";
    check(&documents(good)[0]);
    for (bad, path) in [
        (
            good.replace("hostN", "hostn"),
            ".spec.template.spec.hostnetwork",
        ),
        (
            good.replace("true", "null"),
            ".spec.template.spec.hostNetwork",
        ),
        (good.replace("template: ", "templates: "), ".spec.templates"),
    ] {
        assert_eq!(lost_as::<DaemonSet>(&documents(&bad)[0]), [path], "{bad}");
    }
}
