//! From a document to the fields that exist, with what kube-proxy's lenient decoder passes over.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::yaml::Yaml;

/// What kube-proxy's strict decoder refuses and its lenient one passes over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LenientFields {
    /// Paths of fields that do not exist; those that differ from one that does by their case alone
    /// name it.
    pub unknown: Vec<String>,
    /// Paths of fields that are written more than once: the last counts.
    pub duplicate: Vec<String>,
}

impl LenientFields {
    /// Whether the strict decoder had taken it.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.unknown.is_empty() && self.duplicate.is_empty()
    }
}

/// The document as serde takes it, with the fields of `known` alone; what is left out is added to
/// `lenience`. Null is as good as unset; an empty object is one with any fields, and an empty list
/// one with any elements.
pub(super) fn into_json(
    document: Yaml<'_>,
    known: &Value,
    path: &str,
    lenience: &mut LenientFields,
) -> Value {
    match document {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => value.into(),
        Yaml::Whole(value) => value.into(),
        Yaml::Large(value) => value.into(),
        // It is finite, or the document would not have been read.
        Yaml::Real(value) => value.into(),
        Yaml::Text(text) if known.is_boolean() => {
            yaml_1_1_boolean(&text).map_or(text.into(), Value::Bool)
        }
        Yaml::Text(text) => text.into(),
        Yaml::List(values) => {
            let known = known.get(0).unwrap_or(&Value::Null);
            let values = values.into_iter().enumerate();
            values
                .map(|(i, value)| into_json(value, known, &format!("{path}[{i}]"), lenience))
                .collect()
        }
        Yaml::Fields(fields) => object(fields, known, path, lenience),
    }
}

fn object(
    fields: Vec<(Cow<'_, str>, Yaml<'_>)>,
    known: &Value,
    path: &str,
    lenience: &mut LenientFields,
) -> Value {
    let mut object = Map::new();
    for (name, value) in fields {
        let path = join(path, &name);
        let known = match known.as_object() {
            Some(fields) if !fields.is_empty() => {
                let Some(known) = fields.get(&*name) else {
                    lenience.unknown.push(path + &meant(fields, &name));
                    continue;
                };
                known
            }
            _ => &Value::Null,
        };
        if object.contains_key(&*name) && !lenience.duplicate.contains(&path) {
            lenience.duplicate.push(path.clone());
        }
        let value = into_json(value, known, &path, lenience);
        object.insert(name.into_owned(), value);
    }
    object.retain(|_, value| !value.is_null());
    object.into()
}

/// The text of a field of the document itself; of several, the last counts.
pub(super) fn text_of<'d>(document: &'d Yaml<'_>, field: &str) -> Option<&'d str> {
    let mut fields = document.fields().iter();
    let (_, value) = fields.rfind(|(name, _)| name == field)?;
    value.text()
}

/// Which of the fields differs from `name` by its case alone.
fn meant(fields: &Map<String, Value>, name: &str) -> String {
    let similar = fields.keys().find(|field| field.eq_ignore_ascii_case(name));
    similar.map_or_else(String::new, |field| format!(" (not {field})"))
}

/// The path of a field in the object at `path`.
pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

/// kube-proxy's YAML is of version 1.1, where these words are booleans too.
fn yaml_1_1_boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}
