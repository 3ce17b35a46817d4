//! Any bytes as the body of an answer of the API server.
//!
//! The first byte chooses the kind of the objects, and protobuf (`@ABC`) or JSON (`PQRS`).

#![no_main]

use kube_dnat::config::ContentType;
use kube_dnat::planner::model::{Event, ObjectKind};
use kube_dnat::watch::apiserver::testing::updates;
use kube_dnat_fuzz::{NODE, facts, sync};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else {
        return;
    };
    let kind = [
        ObjectKind::Service,
        ObjectKind::EndpointSlice,
        ObjectKind::Node,
        ObjectKind::ServiceCidr,
    ][usize::from(choice % 4)];
    let format = if choice & 0x10 == 0 {
        ContentType::Protobuf
    } else {
        ContentType::Json
    };
    let updates = updates(kind, format, body, NODE);
    let events: Vec<_> = updates.into_iter().map(Event::Update).collect();
    sync(facts(), &events, 4);
});
