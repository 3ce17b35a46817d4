//! Protobuf as the real API server writes it.
//!
//! An object is `k8s`, a zero byte, and `runtime.Unknown` with the message inside
//! (`pkg/runtime/serializer/protobuf` of apimachinery). A watch is a sequence of `WatchEvent`s, each
//! after its length in four bytes (`pkg/util/framer`).

use serde_json::Value;

mod encode;
mod message;
mod meta;
mod nodes;
mod ranges;
mod services;
mod slices;
mod time;
mod wire;

use message::Message;
use wire::data;

/// Returns the message of an object, without its envelope.
pub(crate) fn object(kind: &str, object: &Value) -> Vec<u8> {
    encode::object(message(kind), object)
}

fn message(kind: &str) -> &'static Message {
    match kind {
        "Service" => &services::SERVICE,
        "EndpointSlice" => &slices::ENDPOINT_SLICE,
        "Node" => &nodes::NODE,
        "ServiceCIDR" => &ranges::SERVICE_CIDR,
        "Status" => &meta::STATUS,
        kind => panic!("there is no table of {kind}"),
    }
}

/// Returns the message of a list of such messages.
pub(crate) fn list<'a>(metadata: &Value, items: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    data(&mut bytes, 1, &encode::object(&meta::LIST_META, metadata));
    for item in items {
        data(&mut bytes, 2, item);
    }
    bytes
}

/// Returns the message of an object of which only the metadata is known.
pub(crate) fn partial(metadata: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    data(&mut bytes, 1, &encode::object(&meta::OBJECT_META, metadata));
    bytes
}

/// Puts a message into its envelope, `runtime.Unknown`.
pub(crate) fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    data(&mut type_meta, 1, api_version.as_bytes());
    data(&mut type_meta, 2, kind.as_bytes());
    let mut bytes = b"k8s\0".to_vec();
    data(&mut bytes, 1, &type_meta);
    data(&mut bytes, 2, message);
    data(&mut bytes, 3, b"");
    data(&mut bytes, 4, b"");
    bytes
}

/// Writes a frame of a watch with a `WatchEvent`.
pub(crate) fn event(bytes: &mut Vec<u8>, kind: &str, enveloped: &[u8]) {
    let mut extension = Vec::with_capacity(enveloped.len() + 8);
    data(&mut extension, 1, enveloped);
    let mut event = Vec::with_capacity(extension.len() + 24);
    data(&mut event, 1, kind.as_bytes());
    data(&mut event, 2, &extension);
    frame(bytes, &event);
}

/// Writes a frame: the length in four bytes, and the content.
pub(crate) fn frame(bytes: &mut Vec<u8>, content: &[u8]) {
    let length = u32::try_from(content.len()).expect("a small frame");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(content);
}
