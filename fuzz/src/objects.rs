//! The three encodings of an object.

use kube_dnat::manifests::read_text;
use kube_dnat::planner::model::wire::{WireEndpointSlice, WireNode, WireService, WireServiceCidr};
use kube_dnat::planner::model::{Event, Update, parse};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::NODE;

/// Decodes an object from JSON, YAML and protobuf.
///
/// # Panics
/// If the object is of an unknown kind, does not decode, or an encoding has another meaning.
pub fn decoded_alike(object: &Value) -> Update {
    let kind = object["kind"].as_str().expect("a kind");
    let update = match kind {
        "Service" => parse::service(&of_wire::<WireService>(object)),
        "EndpointSlice" => parse::slice(&of_wire::<WireEndpointSlice>(object), NODE),
        "Node" => parse::node(&of_wire::<WireNode>(object), NODE),
        "ServiceCIDR" => parse::service_cidr(&of_wire::<WireServiceCidr>(object)),
        _ => panic!("unknown kind {kind}"),
    };
    // What an ignored object leaves is no event.
    let ignored =
        update.object.is_none() && update.rejected.is_empty() && update.triggered.is_none();
    let expected = (!ignored).then(|| update.clone());
    let yaml = yaml_serde::to_string(object).expect("JSON is representable as YAML");
    assert_eq!(of_text(&yaml), expected, "the same object as YAML");
    let json = object.to_string();
    assert_eq!(of_text(&json), expected, "the same object as JSON");
    update
}

/// Decodes an object from JSON, and once more from its protobuf.
fn of_wire<W>(object: &Value) -> W
where
    W: Message + Default + PartialEq + DeserializeOwned,
{
    let decode = |value: &Value| W::deserialize(value).expect("JSON of a wire type");
    let mut without_time = object.clone();
    if let Some(metadata) = without_time["metadata"].as_object_mut() {
        // A time that was read from JSON is a text, which has no protobuf.
        metadata.remove("creationTimestamp");
    }
    let json = decode(&without_time);
    let protobuf = W::decode(&*json.encode_to_vec()).expect("protobuf of a wire type");
    assert!(json == protobuf, "the same object as protobuf: {object}");
    decode(object)
}

/// Reads the only object of a manifest.
fn of_text(text: &str) -> Option<Update> {
    let listing = read_text(text, NODE).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut updates = listing.events.into_iter().filter_map(|event| match event {
        Event::Update(update) => Some(update),
        Event::Listed(_) | Event::Interrupted(..) | Event::OwnAddresses(_) => None,
    });
    let update = updates.next();
    assert_eq!(updates.next(), None);
    update
}
