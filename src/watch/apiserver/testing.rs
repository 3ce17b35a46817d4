//! The readers and the decoding of answers, for tests that do not have an API server.

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use kube::client::Body;
use tokio::sync::mpsc::Sender;

use super::WatchTimeouts;
use super::answer::frames;
use super::client::ApiClient;
use super::decode::{self, WatchFrame};
use super::kinds::Watched;
use super::object::WatchedObject;
use super::reader;
use crate::config::ContentType;
use crate::planner::model::{Events, ObjectKind, Update, wire};

/// Lists and watches one kind as [`super::watch_with`] does.
pub async fn read(
    kind: ObjectKind,
    client: &ApiClient,
    our_node: &str,
    timeouts: &WatchTimeouts,
    events: &Sender<Events>,
) {
    let read = match kind {
        ObjectKind::Service => reader::read::<wire::WireService>,
        ObjectKind::EndpointSlice => reader::read::<wire::WireEndpointSlice>,
        ObjectKind::Node => reader::read::<wire::WireNode>,
        ObjectKind::ServiceCidr => reader::read::<wire::WireServiceCidr>,
        ObjectKind::Endpoints => return,
    };
    read(client, our_node, timeouts, events).await;
}

/// Decodes a body as an error, as a page of a list and as the frames of a watch, and returns the
/// updates of its objects.
#[must_use]
pub fn updates(kind: ObjectKind, format: ContentType, body: &[u8], our_node: &str) -> Vec<Update> {
    let body = Bytes::copy_from_slice(body);
    let objects = match kind {
        ObjectKind::Service => objects::<wire::WireService>,
        ObjectKind::EndpointSlice => objects::<wire::WireEndpointSlice>,
        ObjectKind::Node => objects::<wire::WireNode>,
        ObjectKind::ServiceCidr => objects::<wire::WireServiceCidr>,
        ObjectKind::Endpoints => return Vec::new(),
    };
    objects(format, &body, our_node)
}

fn objects<W: Watched>(format: ContentType, body: &Bytes, our_node: &str) -> Vec<Update> {
    let mut updates = Vec::new();
    let mut add = |object: &WatchedObject<W>| {
        let update = object.update(our_node);
        debug_assert_eq!(update.key, object.key());
        drop(object.version());
        updates.push(update);
    };
    let _pause = decode::status(Some(format), 410, body.clone()).retry_after();
    if let Ok(page) = decode::page::<W>(format, body.clone()) {
        page.items.iter().for_each(&mut add);
    }
    let body = Body::from(body.to_vec());
    // The body is in memory: each frame is ready.
    let received = frames(format, body).collect::<Vec<_>>().now_or_never();
    for frame in received.into_iter().flatten().flatten() {
        match decode::watch_frame::<W>(format, frame) {
            Ok(WatchFrame::Applied(object) | WatchFrame::Deleted(object)) => add(&object),
            Ok(WatchFrame::Bookmark { .. } | WatchFrame::Failed(_)) => {}
            Err(_) => break,
        }
    }
    updates
}
