//! The three encodings of an object.

use kube_dnat::manifests::read_text;
use kube_dnat::planner::model::wire::{WireEndpointSlice, WireNode, WireService, WireServiceCidr};
use kube_dnat::planner::model::{Event, Update, parse};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::NODE;

/// Decodes an object from JSON.
///
/// # Panics
/// If the object is of an unknown kind, or does not decode.
pub fn decoded(object: &Value) -> Update {
    match kind(object) {
        "Service" => parse::service(&of_json::<WireService>(object)),
        "EndpointSlice" => parse::slice(&of_json::<WireEndpointSlice>(object), NODE),
        "Node" => parse::node(&of_json::<WireNode>(object), NODE),
        "ServiceCIDR" => parse::service_cidr(&of_json::<WireServiceCidr>(object)),
        kind => panic!("unknown kind {kind}"),
    }
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().expect("a kind")
}

fn of_json<W: DeserializeOwned>(object: &Value) -> W {
    W::deserialize(object).expect("JSON of a wire type")
}

/// Decodes an object from JSON, and again from YAML and protobuf.
///
/// # Panics
/// As [`decoded`], and if an encoding has another meaning.
pub fn decoded_alike(object: &Value) -> Update {
    let update = decoded(object);
    match kind(object) {
        "Service" => check_protobuf::<WireService>(object),
        "EndpointSlice" => check_protobuf::<WireEndpointSlice>(object),
        "Node" => check_protobuf::<WireNode>(object),
        _ => check_protobuf::<WireServiceCidr>(object),
    }
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

/// Decodes an object from its protobuf, too.
fn check_protobuf<W>(object: &Value)
where
    W: Message + Default + PartialEq + DeserializeOwned,
{
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        // A time that was read from JSON is a text, which has no protobuf.
        metadata.remove("creationTimestamp");
    }
    let json: W = of_json(&object);
    let protobuf = W::decode(&*json.encode_to_vec()).expect("protobuf of a wire type");
    assert!(json == protobuf, "the same object as protobuf: {object}");
}

/// Reads the only object of a manifest.
fn of_text(text: &str) -> Option<Update> {
    let listing = read_text(text, NODE).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut updates = listing.events.into_iter().filter_map(|event| match event {
        Event::Update(update) => Some(update),
        Event::Listed(_)
        | Event::Interrupted(..)
        | Event::NodeMissing(_)
        | Event::OwnAddresses(_) => None,
    });
    let update = updates.next();
    assert_eq!(updates.next(), None);
    update
}
