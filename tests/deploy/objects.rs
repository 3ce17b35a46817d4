//! The objects of a rendering, and how two renderings differ.

use k8s_openapi::Resource;
use serde::Deserialize;
use serde::de::DeserializeOwned;
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

/// The objects of a rendering.
#[derive(Debug)]
pub(crate) struct Objects(Vec<Value>);

impl Objects {
    /// Reads them. [`crate::tools::validate`] finds what Kubernetes does not know.
    pub(crate) fn read(text: &str) -> Self {
        Self(documents(text))
    }

    /// The values of all.
    pub(crate) fn values(&self) -> &[Value] {
        &self.0
    }

    /// All of a kind.
    pub(crate) fn all<T: DeserializeOwned + Resource>(&self) -> Vec<T> {
        let objects = self.of_kind(T::KIND);
        objects
            .map(|object| serde_json::from_value(object.clone()).unwrap())
            .collect()
    }

    /// All of a kind, also of one that is not Kubernetes'.
    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The only one of a kind.
    pub(crate) fn one<T: DeserializeOwned + Resource>(&self) -> T {
        let mut all = self.all();
        assert_eq!(all.len(), 1, "{self:?}");
        all.remove(0)
    }
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
