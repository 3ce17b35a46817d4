//! The parser of manifests: from text to objects.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::planner::model::wire::WireMetadata;
use crate::planner::model::{ObjectKind, RejectReason, Update, parse};
use crate::yaml::Yaml;

/// The format of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ManifestFormat {
    /// The manifest is YAML.
    Yaml,
    /// The manifest is JSON.
    Json,
}

/// The objects of a manifest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// The objects of the watched kinds, in the order of the file.
    pub(super) updates: Vec<Update>,
    /// The number of objects of each other kind (`apps/v1 Deployment`).
    pub(super) ignored: BTreeMap<String, usize>,
}

/// The position and the message of a syntax error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The line and column in the file, from 1; `None` if the parser does not report them.
    pub position: Option<(usize, usize)>,
    /// The message of the parser.
    pub reason: String,
}

impl SyntaxError {
    /// Builds the error, with the position only in its own field.
    fn new(position: Option<(usize, usize)>, error: &dyn fmt::Display) -> Self {
        let mut reason = error.to_string();
        if let Some((line, column)) = position {
            reason = reason.replacen(&format!(" at line {line} column {column}"), "", 1);
        }
        Self { position, reason }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "{line}:{column}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for SyntaxError {}

impl From<yaml_serde::Error> for SyntaxError {
    fn from(error: yaml_serde::Error) -> Self {
        let position = error.location().map(|at| (at.line(), at.column()));
        Self::new(position, &error)
    }
}

impl From<serde_json::Error> for SyntaxError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(Some((error.line(), error.column())), &error)
    }
}

/// Parses `text`: any number of documents, each an object or a list of objects.
///
/// The parser keeps a YAML document as events in memory, about ten times its size. A large manifest
/// is better split by `---` or written as JSON.
pub(super) fn parse_text(
    format: ManifestFormat,
    text: &str,
    our_node: &str,
) -> Result<Content, SyntaxError> {
    let mut content = Content::default();
    match format {
        ManifestFormat::Yaml => {
            for document in yaml_serde::Deserializer::from_str(text) {
                Objects::new(our_node, &mut content).deserialize(document)?;
            }
        }
        ManifestFormat::Json => {
            let mut documents = serde_json::Deserializer::from_str(text);
            // `end` skips only white space: an error means that there is another document.
            while documents.end().is_err() {
                Objects::new(our_node, &mut content).deserialize(&mut documents)?;
            }
        }
    }
    Ok(content)
}

/// `apiVersion` and `kind` of an object.
#[derive(Clone, Default)]
struct TypeMeta<'de> {
    /// The value of `apiVersion`.
    api_version: Option<Cow<'de, str>>,
    /// The value of `kind`.
    kind: Option<Cow<'de, str>>,
}

impl TypeMeta<'_> {
    /// Returns the type of the items of a `ServiceList`, which the API server does not repeat in
    /// each.
    fn item_type(&self) -> Self {
        let kind = self
            .kind
            .as_deref()
            .and_then(|kind| kind.strip_suffix("List"));
        Self {
            api_version: self.api_version.clone(),
            kind: kind
                .filter(|kind| !kind.is_empty())
                .map(|kind| Cow::Owned(kind.to_owned())),
        }
    }

    /// Returns whether the object is a list.
    fn is_list(&self) -> bool {
        self.kind
            .as_deref()
            .is_some_and(|kind| kind.ends_with("List"))
    }

    /// Returns whether the type is complete and of a kind that is not watched.
    fn is_ignored(&self) -> bool {
        self.api_version.is_some()
            && self.kind.is_some()
            && !self.is_list()
            && self.watched_kind().is_none()
    }

    /// Returns the kind in the model, if it is watched.
    fn watched_kind(&self) -> Option<ObjectKind> {
        match (self.api_version.as_deref()?, self.kind.as_deref()?) {
            ("v1", "Service") => Some(ObjectKind::Service),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(ObjectKind::EndpointSlice),
            ("v1", "Endpoints") => Some(ObjectKind::Endpoints),
            ("v1", "Node") => Some(ObjectKind::Node),
            ("networking.k8s.io/v1" | "networking.k8s.io/v1beta1", "ServiceCIDR") => {
                Some(ObjectKind::ServiceCidr)
            }
            _ => None,
        }
    }

    /// Returns the name under which ignored objects are counted.
    fn label(&self) -> String {
        match (self.api_version.as_deref(), self.kind.as_deref()) {
            (Some(version), Some(kind)) => format!("{version} {kind}"),
            (None, Some(kind)) => format!("{kind} without apiVersion"),
            (_, None) => "object without kind".to_owned(),
        }
    }
}

/// Adds the objects of a document to `content` while they are read.
///
/// A document is an object, a list of objects (`kind: List`, whose `kind` `kubectl` writes after
/// its `items`), or empty.
struct Objects<'de, 'c> {
    /// The name of this node.
    our_node: &'c str,
    /// The objects that were read so far.
    content: &'c mut Content,
    /// The type that an item has from its list.
    inherited: TypeMeta<'de>,
}

impl<'c> Objects<'_, 'c> {
    /// Builds the reader of one document.
    fn new(our_node: &'c str, content: &'c mut Content) -> Self {
        Self {
            our_node,
            content,
            inherited: TypeMeta::default(),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Objects<'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Objects<'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of Kubernetes or a list of them")
    }

    /// Accepts a text that is empty or has only comments.
    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    /// Accepts a document that is empty or has only comments.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        loop {
            let element = Objects {
                our_node: self.our_node,
                content: self.content,
                inherited: self.inherited.clone(),
            };
            if list.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut meta = self.inherited;
        let mut fields = Vec::new();
        let read_before = self.content.updates.len();
        while let Some(key) = map.next_key::<Yaml>()? {
            match key.text() {
                Some("apiVersion") => meta.api_version = map.next_value::<Yaml>()?.into_text(),
                Some("kind") => meta.kind = map.next_value::<Yaml>()?.into_text(),
                _ if meta.is_ignored() => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some("items") => map.next_value_seed(Objects {
                    our_node: self.our_node,
                    content: self.content,
                    inherited: meta.item_type(),
                })?,
                _ => {
                    let value = map.next_value()?;
                    fields.extend(key.into_text().map(|key| (key, value)));
                }
            }
        }
        if meta.is_list() {
            return Ok(());
        }
        self.content.updates.truncate(read_before);
        match meta.watched_kind() {
            Some(kind) => {
                let update = update(kind, &Yaml::Fields(fields), self.our_node);
                self.content.updates.push(update);
            }
            None => *self.content.ignored.entry(meta.label()).or_default() += 1,
        }
        Ok(())
    }
}

/// Parses an object of a watched kind.
fn update(kind: ObjectKind, object: &Yaml, our_node: &str) -> Update {
    match kind {
        ObjectKind::Service => decoded(kind, object, |service| parse::service(&service)),
        ObjectKind::EndpointSlice => decoded(kind, object, |slice| parse::slice(&slice, our_node)),
        ObjectKind::Endpoints => decoded(kind, object, |endpoints| {
            parse::endpoints(&endpoints, our_node)
        }),
        ObjectKind::Node => decoded(kind, object, |node| parse::node(&node, our_node)),
        ObjectKind::ServiceCidr => decoded(kind, object, |cidr| parse::service_cidr(&cidr)),
    }
}

/// Decodes and parses an object, or rejects it as malformed.
fn decoded<T: DeserializeOwned>(
    kind: ObjectKind,
    object: &Yaml,
    parse: impl FnOnce(T) -> Update,
) -> Update {
    match object.decode() {
        Ok(object) => parse(object),
        Err(error) => Update {
            key: parse::key(kind, &name_and_namespace(object)),
            object: None,
            rejected: vec![RejectReason::Malformed(error.to_string().into())],
            triggered: None,
        },
    }
}

/// Returns name and namespace of an object of which another field does not decode.
fn name_and_namespace(object: &Yaml) -> WireMetadata {
    let text = |key| {
        let value = object.field("metadata")?.field(key)?;
        value.text().map(str::to_owned)
    };
    WireMetadata {
        name: text("name").unwrap_or_default(),
        namespace: text("namespace").unwrap_or_default(),
        ..WireMetadata::default()
    }
}

#[cfg(test)]
mod tests;
