//! Lists, watch events and errors in the encoding of an answer.

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::media::{Format, Media};
use super::protobuf;
use super::store::{Kind, Stored};

impl Media {
    /// Writes a list of objects.
    pub(crate) fn list<'a>(
        self,
        kind: &Kind,
        metadata: &Value,
        objects: impl IntoIterator<Item = &'a Stored>,
    ) -> Vec<u8> {
        let (name, api_version) = if self.partial {
            ("PartialObjectMetadata", "meta.k8s.io/v1")
        } else {
            (kind.name, kind.api_version)
        };
        let items: Vec<Bytes> = objects
            .into_iter()
            .map(|object| match (self.format, self.partial) {
                (Format::Json, false) => object.json.clone(),
                (Format::Json, true) => object.partial_json(),
                (Format::Protobuf, false) => object.protobuf(kind),
                (Format::Protobuf, true) => protobuf::partial(&object.metadata()).into(),
            })
            .collect();
        let name = format!("{name}List");
        match self.format {
            Format::Json => {
                let head = format!(
                    r#"{{"kind":"{name}","apiVersion":"{api_version}","metadata":{metadata},"items":["#
                );
                [head.as_bytes(), &items.join(&b','), b"]}"].concat()
            }
            Format::Protobuf => {
                let list = protobuf::list(metadata, items.iter().map(|item| &**item));
                protobuf::envelope(api_version, &name, &list)
            }
        }
    }
}

impl Format {
    /// Writes an event of a watch with an object.
    pub(crate) fn event(self, text: &mut Vec<u8>, event: &str, kind: &Kind, object: &Stored) {
        match self {
            Self::Json => json_event(text, event, &object.json),
            Self::Protobuf => protobuf::event(text, event, &object.enveloped(kind)),
        }
    }

    /// Writes an event of a watch with an object that is not stored.
    pub(crate) fn event_with(self, text: &mut Vec<u8>, event: &str, object: &Value) {
        let object = self.object(object);
        match self {
            Self::Json => json_event(text, event, &object),
            Self::Protobuf => protobuf::event(text, event, &object),
        }
    }

    /// Writes an object that is not stored.
    pub(crate) fn object(self, object: &Value) -> Vec<u8> {
        match self {
            Self::Json => object.to_string().into_bytes(),
            Self::Protobuf => {
                let field = |name: &str| object[name].as_str().expect("a kind and its API");
                let (kind, api_version) = (field("kind"), field("apiVersion"));
                protobuf::envelope(api_version, kind, &protobuf::object(kind, object))
            }
        }
    }
}

fn json_event(text: &mut Vec<u8>, event: &str, object: &[u8]) {
    text.extend_from_slice(br#"{"type":""#);
    text.extend_from_slice(event.as_bytes());
    text.extend_from_slice(br#"","object":"#);
    text.extend_from_slice(object);
    text.extend_from_slice(b"}\n");
}

/// Builds a `v1` Status.
pub(crate) fn status(code: u16) -> Value {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        406 => "NotAcceptable",
        409 => "AlreadyExists",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        504 => "Timeout",
        _ => "InternalError",
    };
    let details = if code == 429 || code == 504 {
        json!({"retryAfterSeconds": 1})
    } else {
        json!({})
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("the tests' API server says {reason}"), "reason": reason,
        "details": details, "code": code,
    })
}

/// Builds the object of a bookmark.
pub(crate) fn bookmark(kind: &Kind, version: u64, ends_list: bool) -> Value {
    let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
    if ends_list {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata})
}
