//! The decoding of lists, watch events and errors, from protobuf and JSON.

use bytes::Bytes;
use prost::Message;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::{self, ListMessage, ListMeta, WatchEventMessage};
use super::kinds::Watched;
use super::object::WatchedObject;
use super::status::WireStatus;
use super::version::ResourceVersion;
use crate::config::ContentType;
use crate::planner::model::wire::WireMetadata;

/// An answer of the API server that cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    /// A message does not begin like an object.
    #[error("the answer does not begin with the magic number of protobuf objects")]
    Envelope,
    /// An object is compressed.
    #[error("an object has content encoding {0}")]
    ContentEncoding(String),
    /// A message is not valid protobuf.
    #[error("invalid protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A text is not valid JSON.
    #[error("invalid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A watch event has an unknown type.
    #[error("unknown type of watch event: {0}")]
    EventType(String),
    /// A frame or page is larger than 64 MiB.
    #[error("a message is larger than 64 MiB")]
    TooLarge,
    /// A bookmark or an object has no `resourceVersion`.
    #[error("no resourceVersion")]
    NoVersion,
}

/// A decoded event of a watch.
#[derive(Debug)]
pub(super) enum WatchFrame<W> {
    /// An object was added or changed.
    Applied(WatchedObject<W>),
    /// An object was deleted.
    Deleted(WatchedObject<W>),
    /// Everything up to this version was sent.
    Bookmark {
        /// The version.
        version: ResourceVersion,
        /// Whether the bookmark ends a streaming list.
        ends_list: bool,
    },
    /// The API server ends the watch.
    Failed(WireStatus),
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct ListPage<W> {
    /// The objects.
    pub(super) items: Vec<WatchedObject<W>>,
    /// The version of the list.
    pub(super) version: ResourceVersion,
    /// The token of the next page.
    pub(super) next: Option<String>,
}

/// An object of which only the metadata matter.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
struct AnyObject {
    /// The metadata.
    #[prost(message, required, tag = "1")]
    metadata: WireMetadata,
}

/// Decodes a frame of a watch.
pub(super) fn watch_frame<W: Watched>(
    format: ContentType,
    frame: Bytes,
) -> Result<WatchFrame<W>, DecodeError> {
    match format {
        ContentType::Protobuf => {
            let WatchEventMessage { event_type, object } = WatchEventMessage::decode(frame)?;
            let object = envelope::open(object.raw)?;
            match event_type.as_str() {
                "ADDED" | "MODIFIED" => Ok(WatchFrame::Applied(from_protobuf(object)?)),
                "DELETED" => Ok(WatchFrame::Deleted(from_protobuf(object)?)),
                "BOOKMARK" => bookmark(AnyObject::decode(object)?),
                "ERROR" => Ok(WatchFrame::Failed(WireStatus::decode(object)?)),
                _ => Err(DecodeError::EventType(event_type)),
            }
        }
        ContentType::Json => {
            #[derive(Deserialize)]
            struct JsonEvent<'a> {
                #[serde(rename = "type")]
                event_type: String,
                #[serde(borrow)]
                object: &'a RawValue,
            }
            let JsonEvent { event_type, object } = serde_json::from_slice(&frame)?;
            let object = object.get();
            match event_type.as_str() {
                "ADDED" | "MODIFIED" => Ok(WatchFrame::Applied(WatchedObject::from_json(object))),
                "DELETED" => Ok(WatchFrame::Deleted(WatchedObject::from_json(object))),
                "BOOKMARK" => bookmark(serde_json::from_str(object)?),
                "ERROR" => Ok(WatchFrame::Failed(serde_json::from_str(object)?)),
                _ => Err(DecodeError::EventType(event_type)),
            }
        }
    }
}

/// Decodes an object without its envelope.
fn from_protobuf<W: Watched>(object: Bytes) -> Result<WatchedObject<W>, DecodeError> {
    Ok(WatchedObject::from_decoded(W::decode(object)?))
}

/// Reads the version of a bookmark, and whether it ends a streaming list (KEP-3157).
fn bookmark<W>(object: AnyObject) -> Result<WatchFrame<W>, DecodeError> {
    let metadata = object.metadata;
    let version = ResourceVersion::new(metadata.resource_version.as_deref());
    Ok(WatchFrame::Bookmark {
        version: version.ok_or(DecodeError::NoVersion)?,
        ends_list: metadata.annotations.initial_events_end.is_some(),
    })
}

/// Decodes a page of a list.
pub(super) fn page<W: Watched>(
    format: ContentType,
    body: Bytes,
) -> Result<ListPage<W>, DecodeError> {
    let (metadata, items) = match format {
        ContentType::Protobuf => {
            let ListMessage { metadata, items } = ListMessage::decode(envelope::open(body)?)?;
            let items = items.into_iter().map(from_protobuf);
            (metadata, items.collect::<Result<_, _>>()?)
        }
        ContentType::Json => {
            #[derive(Deserialize)]
            struct JsonList<'a> {
                metadata: ListMeta,
                #[serde(borrow)]
                items: Option<Vec<&'a RawValue>>,
            }
            let JsonList { metadata, items } = serde_json::from_slice(&body)?;
            // Go writes `null` for an empty list.
            let items = items.unwrap_or_default().into_iter();
            let items = items.map(|item| WatchedObject::from_json(item.get()));
            (metadata, items.collect())
        }
    };
    let version = ResourceVersion::new(metadata.resource_version.as_deref());
    Ok(ListPage {
        items,
        version: version.ok_or(DecodeError::NoVersion)?,
        next: metadata.continue_token.filter(|token| !token.is_empty()),
    })
}

/// Decodes the body of an answer with an error; proxies answer with anything.
pub(super) fn status(format: Option<ContentType>, code: u16, body: Bytes) -> WireStatus {
    let status = match format {
        Some(ContentType::Protobuf) => envelope::open(body)
            .ok()
            .and_then(|object| WireStatus::decode(object).ok()),
        Some(ContentType::Json) => serde_json::from_slice(&body).ok(),
        None => None,
    };
    let status: Option<WireStatus> = status;
    status
        .filter(|status| status.code == i32::from(code))
        .unwrap_or_else(|| WireStatus::of_code(code))
}

#[cfg(test)]
mod tests;
