//! A remark as the API server takes it: `pkg/apis/core/validation/events.go` sets the limits.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::NewEvent;
use super::reason::EventReason;

const CONTROLLER: &str = "kube-dnat";

/// Bytes of a note, and of the name of who reports.
const NOTE: usize = 1024;
const INSTANCE: usize = 128;

/// Bytes of an object's name in front of the 17 that make an Event's name its own.
const NAME: usize = 253 - 17;

/// The Event that says `remark`, made at `at` by the program on `node`.
pub(super) fn event(
    remark: &NewEvent,
    regarding: ObjectReference,
    node: &str,
    at: Timestamp,
) -> Event {
    let reason = remark.reason;
    let kind = if reason.is_warning() {
        "Warning"
    } else {
        "Normal"
    };
    let metadata = ObjectMeta {
        name: Some(name(remark, &regarding, node, at)),
        // What is in no namespace has its Events in this one.
        namespace: Some(regarding.namespace.clone().unwrap_or("default".to_owned())),
        ..ObjectMeta::default()
    };
    Event {
        metadata,
        regarding: Some(regarding),
        type_: Some(kind.to_owned()),
        reason: Some(reason.name().to_owned()),
        action: Some(reason.action().to_owned()),
        note: Some(clip(&remark.note, NOTE, "...")),
        event_time: Some(MicroTime(at)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(clip(node, INSTANCE, "")),
        ..Event::default()
    }
}

/// The object's name, and a number that follows from what is said of which object; by which node, if
/// only it can know; and when, if each time counts.
fn name(remark: &NewEvent, regarding: &ObjectReference, node: &str, at: Timestamp) -> String {
    let is_start = remark.reason == EventReason::Starting;
    let time = is_start.then(|| at.as_nanosecond().to_string());
    let node = remark.reason.is_of_this_node().then_some(node);
    let number = number(&[
        regarding.kind.as_deref().unwrap_or_default(),
        regarding.uid.as_deref().unwrap_or_default(),
        remark.reason.name(),
        &remark.note,
        node.unwrap_or_default(),
        time.as_deref().unwrap_or_default(),
    ]);
    let object = clip(regarding.name.as_deref().unwrap_or_default(), NAME, "");
    let object = object.trim_end_matches(|last: char| !last.is_ascii_alphanumeric());
    format!("{object}.{number:016x}")
}

/// FNV-1a. The same in every process and version, as it has to be.
pub(super) fn number(words: &[&str]) -> u64 {
    let bytes = words.iter().flat_map(|word| {
        let end = [0xff]; // in no text
        word.bytes().chain(end)
    });
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// At most so many bytes of `text`, which then end in `mark`.
fn clip(text: &str, bytes: usize, mark: &str) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes - mark.len());
    text.get(..end).unwrap_or_default().to_owned() + mark
}

#[cfg(test)]
mod tests {
    use super::super::objects::reference;
    use super::*;
    use crate::planner::model::{ObjectKey, ObjectKind};

    fn remark(kind: ObjectKind, name: &str, reason: EventReason, note: &str) -> NewEvent {
        NewEvent {
            object: ObjectKey {
                kind,
                name: name.into(),
            },
            reason,
            note: note.to_owned(),
        }
    }

    fn made(remark: &NewEvent, uid: &str, node: &str, second: i64) -> Event {
        let at = Timestamp::from_second(second).unwrap();
        event(
            remark,
            reference(&remark.object, Some(uid.to_owned())),
            node,
            at,
        )
    }

    #[test]
    fn it_says_who_tells_what_of_which_object() {
        let reason = EventReason::FrontendConflict;
        let remark = remark(ObjectKind::Service, "shop/cart", reason, "taken");
        let event = made(&remark, "u-1", "node-1", 1);
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
    fn what_all_nodes_see_is_one_event_and_what_one_knows_is_its_own() {
        let name = |reason, note, uid, node, second| {
            let remark = remark(ObjectKind::Service, "shop/cart", reason, note);
            made(&remark, uid, node, second).metadata.name.unwrap()
        };
        let seen = name(EventReason::InvalidAddress, "bad", "u-1", "node-1", 1);
        assert_eq!(
            seen,
            name(EventReason::InvalidAddress, "bad", "u-1", "node-2", 2)
        );
        // Something else; of another object of that name; of another sort.
        for other in [
            name(EventReason::InvalidAddress, "worse", "u-1", "node-1", 1),
            name(EventReason::InvalidAddress, "bad", "u-2", "node-1", 1),
            name(EventReason::InvalidObject, "bad", "u-1", "node-1", 1),
        ] {
            assert_ne!(seen, other);
        }
        let refused = |node, second| name(EventReason::RefusedByKernel, "no", "u-1", node, second);
        assert_eq!(refused("node-1", 1), refused("node-1", 2));
        assert_ne!(refused("node-1", 1), refused("node-2", 1));
        let starts = |second| name(EventReason::Starting, "", "u-1", "node-1", second);
        assert_ne!(starts(1), starts(2));
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let long = "a.".repeat(126) + "a";
        let note = "ä".repeat(600);
        let remark = remark(ObjectKind::Node, &long, EventReason::InvalidObject, &note);
        let event = made(&remark, "u-1", &long, 1);
        assert_eq!(event.metadata.namespace.unwrap(), "default");
        let name = event.metadata.name.unwrap();
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
        let note = event.note.unwrap();
        assert!(note.len() <= 1024 && note.ends_with("ä..."), "{note}");
        assert_eq!(event.reporting_instance.unwrap().len(), 128);
    }
}
