//! The protobuf messages around the objects of an API server.
//!
//! An object or list is `k8s\0` and a `runtime.Unknown` with the object in `raw`
//! (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`). A watch is a sequence of
//! frames, each a length of four bytes and a `WatchEvent`, whose object is again such an envelope
//! (`k8s.io/apimachinery/pkg/util/framer/framer.go`).

use bytes::{Buf, Bytes};
use prost::Message;

use super::decode::DecodeError;

/// The first bytes of an object or list.
const MAGIC: &[u8] = b"k8s\0";

/// An object of any kind (`runtime.Unknown`).
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    /// The kind of the object.
    #[prost(message, required, tag = "1")]
    type_meta: TypeMeta,
    /// The encoded object, as a part of the decoded buffer.
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
    /// The encoding of `raw`, such as a compression; empty for none.
    #[prost(string, tag = "3")]
    content_encoding: String,
}

/// The kind of an object (`runtime.TypeMeta`).
#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    /// The kind.
    #[prost(string, tag = "2")]
    kind: String,
}

/// An event of a watch (`WatchEvent` of `k8s.io/apimachinery/pkg/apis/meta/v1`).
#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchEventMessage {
    /// The type, such as `ADDED`.
    #[prost(string, tag = "1")]
    pub(super) event_type: String,
    /// The object.
    #[prost(message, required, tag = "2")]
    pub(super) object: RawExtension,
}

/// An encoded object in another message (`runtime.RawExtension`).
#[derive(Clone, PartialEq, Message)]
pub(super) struct RawExtension {
    /// The envelope of the object, as a part of the decoded buffer.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) raw: Bytes,
}

/// A list of objects of any kind: all lists have these field numbers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListMessage {
    /// The version and the token of the next page.
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ListMeta,
    /// The encoded objects, as parts of the decoded buffer.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) items: Vec<Bytes>,
}

/// The metadata of a list (`ListMeta` of `k8s.io/apimachinery/pkg/apis/meta/v1`).
#[derive(Clone, PartialEq, Message, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    /// The version of the list.
    #[prost(string, optional, tag = "2")]
    pub(super) resource_version: Option<String>,
    /// The token of the next page, empty on the last one.
    #[prost(string, optional, tag = "3")]
    #[serde(rename = "continue")]
    pub(super) continue_token: Option<String>,
}

/// Removes the envelope of an object.
pub(super) fn open(mut envelope: Bytes) -> Result<Bytes, DecodeError> {
    if !envelope.starts_with(MAGIC) {
        return Err(DecodeError::Envelope);
    }
    envelope.advance(MAGIC.len());
    let unknown = Unknown::decode(envelope)?;
    if !unknown.content_encoding.is_empty() {
        return Err(DecodeError::ContentEncoding(unknown.content_encoding));
    }
    Ok(unknown.raw)
}
