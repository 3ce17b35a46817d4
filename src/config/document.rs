//! A YAML or JSON document with every field that is written, also those that are written twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A node of the document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Null, a boolean, a number or text.
    Leaf(Value),
    /// A list.
    List(Vec<Node>),
    /// The fields in their order.
    Fields(Vec<(String, Node)>),
}

/// What kube-proxy's strict decoder refuses and its lenient one passes over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lenience {
    /// Paths of fields that do not exist; those that differ from one that does by their case alone
    /// name it.
    pub unknown: Vec<String>,
    /// Paths of fields that are written more than once: the last counts.
    pub duplicate: Vec<String>,
}

impl Lenience {
    /// Whether the strict decoder had taken it.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.unknown.is_empty() && self.duplicate.is_empty()
    }
}

impl Node {
    /// The document as serde takes it, with the fields of `known` alone; what is left out is added
    /// to `lenience`. Null is as good as unset; an empty object is one with any fields, and an empty
    /// list one with any elements.
    pub(super) fn into_json(self, known: &Value, path: &str, lenience: &mut Lenience) -> Value {
        match self {
            Self::Leaf(Value::String(text)) if known.is_boolean() => {
                yaml_1_1_boolean(&text).map_or(Value::String(text), Value::Bool)
            }
            Self::Leaf(value) => value,
            Self::List(nodes) => {
                let known = known.get(0).unwrap_or(&Value::Null);
                let nodes = nodes.into_iter().enumerate();
                nodes
                    .map(|(i, node)| node.into_json(known, &format!("{path}[{i}]"), lenience))
                    .collect()
            }
            Self::Fields(fields) => {
                let mut object = Map::new();
                for (name, node) in fields {
                    let path = join(path, &name);
                    let known = match known.as_object() {
                        Some(fields) if !fields.is_empty() => {
                            let Some(known) = fields.get(&name) else {
                                lenience.unknown.push(path + &meant(fields, &name));
                                continue;
                            };
                            known
                        }
                        _ => &Value::Null,
                    };
                    if object.contains_key(&name) && !lenience.duplicate.contains(&path) {
                        lenience.duplicate.push(path.clone());
                    }
                    object.insert(name, node.into_json(known, &path, lenience));
                }
                object.retain(|_, value| !value.is_null());
                object.into()
            }
        }
    }

    /// The text of a field of the document itself.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        let Self::Fields(fields) = self else {
            return None;
        };
        match fields.iter().rfind(|(name, _)| name == field) {
            Some((_, Self::Leaf(Value::String(text)))) => Some(text),
            _ => None,
        }
    }
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

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML or JSON document")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value)
            .map(|number| Node::Leaf(number.into()))
            .ok_or_else(|| E::custom("a number that is infinite or none"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Fields(fields))
    }
}
