//! Events as objects of the API, within the limits of `pkg/apis/core/validation/events.go`.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::NewEvent;
use super::reason::EventReason;

/// The field `reportingController` of every Event.
const CONTROLLER: &str = "kube-dnat";

/// The maximum length of a note, in bytes.
const MAX_NOTE: usize = 1024;

/// The maximum length of the field `reportingInstance`, in bytes.
const MAX_INSTANCE: usize = 128;

/// The maximum length of the object's name in the name of an Event; a dot and 16 digits follow.
const MAX_OBJECT_NAME: usize = 253 - 17;

/// Builds the API object of `new`, recorded at `at` on `node`.
pub(super) fn event(
    new: &NewEvent,
    regarding: ObjectReference,
    node: &str,
    at: Timestamp,
) -> Event {
    let reason = new.reason;
    let kind = if reason.is_warning() {
        "Warning"
    } else {
        "Normal"
    };
    let metadata = ObjectMeta {
        name: Some(name(new, &regarding, node, at)),
        // Events of cluster-scoped objects are in this namespace.
        namespace: Some(regarding.namespace.clone().unwrap_or("default".to_owned())),
        ..ObjectMeta::default()
    };
    Event {
        metadata,
        regarding: Some(regarding),
        type_: Some(kind.to_owned()),
        reason: Some(reason.name().to_owned()),
        action: Some(reason.action().to_owned()),
        note: Some(clip(&new.note, MAX_NOTE, "...")),
        event_time: Some(MicroTime(at)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(clip(node, MAX_INSTANCE, "")),
        ..Event::default()
    }
}

/// Builds the name of an Event: the object's name and a hash.
///
/// The hash covers the object and the note, the node if only this node can know, and the time if
/// each occurrence is an Event of its own.
fn name(new: &NewEvent, regarding: &ObjectReference, node: &str, at: Timestamp) -> String {
    let is_start = new.reason == EventReason::Starting;
    let time = is_start.then(|| at.as_nanosecond().to_string());
    let node = new.reason.is_local().then_some(node);
    let hash = hash(&[
        regarding.kind.as_deref().unwrap_or_default(),
        regarding.uid.as_deref().unwrap_or_default(),
        new.reason.name(),
        &new.note,
        node.unwrap_or_default(),
        time.as_deref().unwrap_or_default(),
    ]);
    let object = clip(
        regarding.name.as_deref().unwrap_or_default(),
        MAX_OBJECT_NAME,
        "",
    );
    let object = object.trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
    format!("{object}.{hash:016x}")
}

/// Hashes words with FNV-1a, which gives the same value in every process and version.
pub(super) fn hash(words: &[&str]) -> u64 {
    let bytes = words.iter().flat_map(|word| {
        let end = [0xff]; // in no text
        word.bytes().chain(end)
    });
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Returns `text`, cut to at most `bytes` bytes that then end in `mark`.
fn clip(text: &str, bytes: usize, mark: &str) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let (kept, _cut) = text.split_at(text.floor_char_boundary(bytes - mark.len()));
    kept.to_owned() + mark
}

#[cfg(test)]
mod tests {
    use super::super::objects::reference;
    use super::*;
    use crate::planner::model::{ObjectKey, ObjectKind};

    fn new_event(kind: ObjectKind, name: &str, reason: EventReason, note: &str) -> NewEvent {
        NewEvent {
            object: ObjectKey {
                kind,
                name: name.into(),
            },
            reason,
            note: note.to_owned(),
        }
    }

    fn built(new: &NewEvent, uid: &str, node: &str, second: i64) -> Event {
        let at = Timestamp::from_second(second).unwrap();
        event(new, reference(&new.object, Some(uid.to_owned())), node, at)
    }

    #[test]
    fn an_event_names_the_reporter_the_object_and_the_reason() {
        let reason = EventReason::FrontendConflict;
        let new = new_event(ObjectKind::Service, "shop/cart", reason, "taken");
        let event = built(&new, "u-1", "node-1", 1);
        let json = serde_json::to_value(&event).unwrap();
        let name = json["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("cart."), "{name}");
        assert_eq!(json["metadata"]["namespace"], "shop");
        let regarding = serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "cart", "uid": "u-1",
        });
        assert_eq!(json["regarding"], regarding);
        for (field, value) in [
            ("type", "Warning"),
            ("reason", "FrontendConflict"),
            ("action", "ClaimFrontend"),
            ("note", "taken"),
            ("reportingController", "kube-dnat"),
            ("reportingInstance", "node-1"),
            ("eventTime", "1970-01-01T00:00:01.000000Z"),
        ] {
            assert_eq!(json[field], value, "{field}");
        }
    }

    #[test]
    fn nodes_share_an_event_unless_only_one_node_sees_the_reason() {
        let name = |reason, note, uid, node, second| {
            let new = new_event(ObjectKind::Service, "shop/cart", reason, note);
            built(&new, uid, node, second).metadata.name.unwrap()
        };
        let seen = name(EventReason::InvalidAddress, "bad", "u-1", "node-1", 1);
        assert_eq!(
            seen,
            name(EventReason::InvalidAddress, "bad", "u-1", "node-2", 2)
        );
        // Another note, another object of that name, another reason.
        for other in [
            name(EventReason::InvalidAddress, "worse", "u-1", "node-1", 1),
            name(EventReason::InvalidAddress, "bad", "u-2", "node-1", 1),
            name(EventReason::InvalidObject, "bad", "u-1", "node-1", 1),
        ] {
            assert_ne!(seen, other);
        }
        let rejected =
            |node, second| name(EventReason::RejectedByKernel, "no", "u-1", node, second);
        assert_eq!(rejected("node-1", 1), rejected("node-1", 2));
        assert_ne!(rejected("node-1", 1), rejected("node-2", 1));
        let starts = |second| name(EventReason::Starting, "", "u-1", "node-1", second);
        assert_ne!(starts(1), starts(2));
    }

    #[test]
    fn long_names_and_notes_are_clipped() {
        let long = "a.".repeat(126) + "a";
        let note = "ä".repeat(600);
        let new = new_event(ObjectKind::Node, &long, EventReason::InvalidObject, &note);
        let event = built(&new, "u-1", &long, 1);
        assert_eq!(event.metadata.namespace.unwrap(), "default");
        let name = event.metadata.name.unwrap();
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
        let note = event.note.unwrap();
        assert!(note.len() <= 1024 && note.ends_with("ä..."), "{note}");
        assert_eq!(event.reporting_instance.unwrap().len(), 128);
    }
}
