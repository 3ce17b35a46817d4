//! Any bytes as a manifest or as protobuf messages, to the tables in memory.
//!
//! The first byte chooses: `p` begins messages, each a byte for its kind, two for its length, and
//! the message. Everything else is a manifest, YAML or JSON.

#![no_main]

use kube_dnat::manifests::read_text;
use kube_dnat::planner::model::wire::{WireEndpointSlice, WireNode, WireService, WireServiceCidr};
use kube_dnat::planner::model::{Event, Update, parse};
use kube_dnat_fuzz::{NODE, facts, sync};
use libfuzzer_sys::fuzz_target;
use prost::{DecodeError, Message};

/// Decodes a message of one of the kinds.
fn object(kind: u8, message: &[u8]) -> Result<Update, DecodeError> {
    Ok(match kind % 4 {
        0 => parse::service(&WireService::decode(message)?),
        1 => parse::slice(&WireEndpointSlice::decode(message)?, NODE),
        2 => parse::node(&WireNode::decode(message)?, NODE),
        _ => parse::service_cidr(&WireServiceCidr::decode(message)?),
    })
}

fn messages(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let [kind, low, high, rest @ ..] = bytes {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (message, after) = rest.split_at(len);
        bytes = after;
        if let Ok(update) = object(*kind, message) {
            events.push(Event::Update(update));
        }
    }
    events
}

fuzz_target!(|bytes: &[u8]| {
    let events = match bytes {
        [b'p', messages_of_kinds @ ..] => messages(messages_of_kinds),
        _ => match std::str::from_utf8(bytes).map(|text| read_text(text, NODE)) {
            Ok(Ok(listing)) => listing.events,
            Ok(Err(_)) | Err(_) => return,
        },
    };
    sync(facts(), &events, 3);
});
