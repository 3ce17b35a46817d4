//! Converts a YAML document to JSON with known fields, like kube-proxy's lenient decoder.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::yaml::Yaml;

/// The fields that kube-proxy's strict decoder rejects and its lenient decoder ignores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LenientFields {
    /// The paths of unknown fields. A field that differs from a known one only in case names it.
    pub unknown: Vec<String>,
    /// The paths of duplicate fields. The last one takes effect.
    pub duplicate: Vec<String>,
}

impl LenientFields {
    /// Whether the strict decoder accepts the document.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.unknown.is_empty() && self.duplicate.is_empty()
    }
}

/// Converts a document to JSON with only the fields of `known`. Adds the ignored fields to
/// `lenience`.
///
/// Null is the same as unset. In `known`, an empty object allows any fields, and an empty list any
/// elements.
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
        // The number is finite: the parser rejects other numbers.
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

/// Converts the fields of an object.
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
                    lenience.unknown.push(path + &correct_case(fields, &name));
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

/// Returns the text of a top-level field. The last of duplicate fields takes effect.
pub(super) fn text_of<'d>(document: &'d Yaml<'_>, field: &str) -> Option<&'d str> {
    let mut fields = document.fields().iter();
    let (_, value) = fields.rfind(|(name, _)| name == field)?;
    value.text()
}

/// Names the known field that differs from `name` only in case.
fn correct_case(fields: &Map<String, Value>, name: &str) -> String {
    let similar = fields.keys().find(|field| field.eq_ignore_ascii_case(name));
    similar.map_or_else(String::new, |field| format!(" (not {field})"))
}

/// Joins the path of an object and the name of a field.
pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

/// Parses the additional booleans of YAML 1.1, which kube-proxy reads.
fn yaml_1_1_boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}
