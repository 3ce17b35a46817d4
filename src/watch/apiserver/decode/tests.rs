use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::planner::model::wire::{WireEndpointSlice, WireService};
use crate::planner::model::{Object, RejectReason, Update};

const GOOD: &str = r#"{"metadata": {"name": "good", "namespace": "shop", "resourceVersion": "7",
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "labels": {"app": "shop", "kubernetes.io/service-name": "cart"},
    "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]},
    "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}],
    "selector": {"app": "shop"}, "sessionAffinity": "ClientIP",
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 30}}}}"#;
const BAD: &str = r#"{"metadata": {"name": "bad", "namespace": "shop", "resourceVersion": "8"},
    "spec": {"ports": [{"port": "eighty"}]}}"#;
const BAD_METADATA: &str = r#"{"metadata": {"name": 5}, "spec": {"ports": "none"}}"#;

/// Appends a field of bytes.
fn field(message: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    prost::encoding::bytes::encode(number, &bytes.to_vec(), message);
}

/// Builds the protobuf message of [`GOOD`] by hand, with fields that kube-dnat does not read.
fn good_message() -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, 1, b"app");
    field(&mut entry, 2, b"shop");
    let mut service_name = Vec::new();
    field(&mut service_name, 1, b"kubernetes.io/service-name");
    field(&mut service_name, 2, b"cart");
    let mut created = Vec::new();
    prost::encoding::int64::encode(1, &1_767_225_600, &mut created);
    let mut metadata = Vec::new();
    field(&mut metadata, 1, b"good");
    field(&mut metadata, 2, b"generate-");
    field(&mut metadata, 3, b"shop");
    field(&mut metadata, 5, b"a-uid");
    field(&mut metadata, 6, b"7");
    field(&mut metadata, 8, &created);
    field(&mut metadata, 11, &entry);
    field(&mut metadata, 11, &service_name);
    field(&mut metadata, 17, b"\x0a\x07kubectl");
    let mut port = Vec::new();
    prost::encoding::int32::encode(3, &80, &mut port);
    let mut timeout = Vec::new();
    prost::encoding::int32::encode(1, &30, &mut timeout);
    let mut client_ip = Vec::new();
    field(&mut client_ip, 1, &timeout);
    let mut spec = Vec::new();
    field(&mut spec, 1, &port);
    field(&mut spec, 2, &entry);
    field(&mut spec, 3, b"10.96.0.1");
    field(&mut spec, 4, b"");
    field(&mut spec, 7, b"ClientIP");
    field(&mut spec, 14, &client_ip);
    field(&mut spec, 18, b"10.96.0.1");
    prost::encoding::bool::encode(20, &true, &mut spec);
    let mut service = Vec::new();
    field(&mut service, 1, &metadata);
    field(&mut service, 2, &spec);
    field(&mut service, 3, b"");
    service
}

/// Puts a message into the envelope of an object.
fn envelope(message: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    field(&mut type_meta, 1, b"v1");
    field(&mut type_meta, 2, b"Service");
    let mut envelope = b"k8s\0".to_vec();
    field(&mut envelope, 1, &type_meta);
    field(&mut envelope, 2, message);
    field(&mut envelope, 3, b"");
    field(&mut envelope, 4, b"");
    envelope
}

/// Builds a frame of a watch, without its length.
fn frame(event_type: &str, message: &[u8]) -> Bytes {
    let mut object = Vec::new();
    field(&mut object, 1, &envelope(message));
    let mut frame = Vec::new();
    field(&mut frame, 1, event_type.as_bytes());
    field(&mut frame, 2, &object);
    frame.into()
}

fn decoded(frame: Bytes) -> Result<WatchFrame<WireService>, DecodeError> {
    watch_frame(ContentType::Protobuf, frame)
}

fn applied(frame: WatchFrame<WireService>) -> Update {
    let WatchFrame::Applied(object) = frame else {
        panic!("{frame:?}");
    };
    object.update("node")
}

#[test]
fn protobuf_and_json_decode_to_the_same_object() {
    let from_protobuf = applied(decoded(frame("ADDED", &good_message())).unwrap());
    let json = format!(r#"{{"type": "ADDED", "object": {GOOD}}}"#);
    let from_json = applied(watch_frame(ContentType::Json, json.into()).unwrap());
    assert!(matches!(&from_json.object, Some(Object::Service(_))));
    assert_eq!(from_protobuf, from_json);
}

#[test]
fn a_list_of_protobuf_has_its_version_and_token() {
    let mut metadata = Vec::new();
    field(&mut metadata, 2, b"9");
    field(&mut metadata, 3, b"more");
    let mut list = Vec::new();
    field(&mut list, 1, &metadata);
    field(&mut list, 2, &good_message());
    field(&mut list, 2, &good_message());
    let page: ListPage<WireService> = page(ContentType::Protobuf, envelope(&list).into()).unwrap();
    assert_eq!(page.items.len(), 2);
    assert_eq!(page.version.as_str(), "9");
    assert_eq!(page.next.as_deref(), Some("more"));
}

#[test]
fn a_bookmark_of_protobuf_has_its_version_and_mark() {
    let mut mark = Vec::new();
    field(&mut mark, 1, b"k8s.io/initial-events-end");
    field(&mut mark, 2, b"true");
    for (annotations, expected) in [(vec![], false), (vec![mark], true)] {
        let mut metadata = Vec::new();
        field(&mut metadata, 6, b"12");
        for annotation in &annotations {
            field(&mut metadata, 12, annotation);
        }
        let mut object = Vec::new();
        field(&mut object, 1, &metadata);
        let frame = decoded(frame("BOOKMARK", &object)).unwrap();
        let WatchFrame::Bookmark { version, ends_list } = frame else {
            panic!("{frame:?}");
        };
        assert_eq!((version.as_str(), ends_list), ("12", expected));
    }
}

#[test]
fn an_error_of_protobuf_has_its_code_and_message() {
    let mut object = Vec::new();
    field(&mut object, 3, b"too old");
    prost::encoding::int32::encode(6, &410, &mut object);
    let WatchFrame::Failed(found) = decoded(frame("ERROR", &object)).unwrap() else {
        panic!("not an error");
    };
    assert_eq!((&*found.message, found.code), ("too old", 410));
    let found = status(Some(ContentType::Protobuf), 410, envelope(&object).into());
    assert_eq!(found.message, "too old");
    let proxy = status(None, 502, Bytes::from_static(b"<html>"));
    assert_eq!(proxy.code, 502);
}

#[test]
fn damaged_protobuf_is_an_error() {
    let good = good_message();
    let whole = frame("ADDED", &good);
    for len in 1..whole.len() {
        assert!(
            decoded(whole.slice(..len)).is_err(),
            "{len} of {}",
            whole.len()
        );
    }
    // Wire type 7 does not exist.
    let unknown_wire_type = [&good[..], &[0x7f]].concat();
    assert!(decoded(frame("ADDED", &unknown_wire_type)).is_err());
    assert!(decoded(frame("MOVED", &good)).is_err());
    let mut no_magic = BytesMut::new();
    no_magic.put_slice(&envelope(&good)[1..]);
    assert!(page::<WireService>(ContentType::Protobuf, no_magic.freeze()).is_err());
}

#[test]
fn a_malformed_object_of_json_does_not_affect_the_others_of_a_list() {
    let list = format!(
        r#"{{"kind": "ServiceList", "apiVersion": "v1", "metadata": {{"resourceVersion": "9"}},
            "items": [{BAD}, {GOOD}, {BAD_METADATA}, null]}}"#
    );
    let page: ListPage<WireService> = page(ContentType::Json, list.into()).unwrap();

    let updates: Vec<Update> = page
        .items
        .iter()
        .map(|object| object.update("node"))
        .collect();

    let keys: Vec<&str> = updates.iter().map(|update| &*update.key.name).collect();
    assert_eq!(keys, ["shop/bad", "shop/good", "default/", "default/"]);
    assert!(matches!(
        updates[0].rejected[..],
        [RejectReason::Malformed(_)]
    ));
    assert!(matches!(updates[1].object, Some(Object::Service(_))));
    assert_eq!(updates[2].object, None);
    assert_eq!(updates[3].object, None);
}

#[test]
fn a_malformed_object_of_json_advances_the_resource_version() {
    let event = format!(r#"{{"type": "ADDED", "object": {BAD}}}"#);
    let event: WatchFrame<WireService> = watch_frame(ContentType::Json, event.into()).unwrap();

    let WatchFrame::Applied(object) = event else {
        panic!("{event:?}");
    };
    assert_eq!(object.version().unwrap().as_str(), "8");
    assert_eq!(&*object.key().name, "shop/bad");
}

#[test]
fn a_list_without_items_or_version() {
    let empty = r#"{"metadata": {"resourceVersion": "9"}, "items": null}"#;
    let page: Result<ListPage<WireService>, _> = page(ContentType::Json, empty.into());
    assert_eq!(page.unwrap().items.len(), 0);
    let no_version = super::page::<WireService>(ContentType::Json, r#"{"metadata": {}}"#.into());
    assert!(matches!(no_version, Err(DecodeError::NoVersion)));
}

proptest! {
    #[test]
    fn no_input_is_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        for format in [ContentType::Protobuf, ContentType::Json] {
            drop(watch_frame::<WireEndpointSlice>(format, bytes.clone()));
            drop(page::<WireEndpointSlice>(format, bytes.clone()));
            drop(status(Some(format), 500, bytes.clone()));
        }
    }

    #[test]
    fn no_damage_is_a_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = frame("MODIFIED", &good_message()).to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        drop(decoded(bytes.into()));
    }
}
