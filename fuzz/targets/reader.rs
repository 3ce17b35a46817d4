//! Any bytes as the answers of an API server to the requests of a reader, one after the other.
//!
//! The first byte chooses the kind. An answer has a byte for its status, one for its media type, two
//! for the length of its body, and the body. The clock is paused, so that no pause takes time.

#![no_main]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube_dnat::planner::model::{Event, Events, ObjectKind};
use kube_dnat::watch::apiserver::testing::read;
use kube_dnat::watch::apiserver::{ApiClient, ClientSettings, WatchTimeouts, client};
use kube_dnat_fuzz::{NODE, facts, sync};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc};

const STATUSES: [u16; 12] = [200, 200, 200, 200, 400, 401, 403, 404, 410, 429, 500, 504];

const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/json",
    "text/html",
    "",
];

/// An answer, without its body.
fn answer(status: u8, media_type: u8, body: &[u8]) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_vec()));
    let status_of_table = STATUSES[usize::from(status) % STATUSES.len()];
    *response.status_mut() = status_of_table.try_into().expect("a status of HTTP");
    let media_type = MEDIA_TYPES[usize::from(media_type) % MEDIA_TYPES.len()];
    let headers = response.headers_mut();
    headers.insert("content-type", media_type.parse().expect("a media type"));
    if status >= 0x80 {
        headers.insert("retry-after", u16::from(status & 0x3f).into());
    }
    response
}

/// Splits the answers.
fn answers(mut bytes: &[u8]) -> VecDeque<Response<Body>> {
    let mut answers = VecDeque::new();
    while let [status, media_type, low, high, rest @ ..] = bytes {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (body, after) = rest.split_at(len);
        bytes = after;
        answers.push_back(answer(*status, *media_type, body));
    }
    answers
}

/// The client, without the service that answers its requests. It never connects.
fn unconnected() -> ApiClient {
    static CLIENT: OnceLock<ApiClient> = OnceLock::new();
    let settings = || ClientSettings {
        masters: vec!["http://192.0.2.1:6443".to_owned()],
        ..ClientSettings::default()
    };
    let build = || {
        let runtime = Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(client(&settings())).expect("a client")
    };
    CLIENT.get_or_init(build).clone()
}

/// Reads a kind until there are no more answers, and returns what the reader reports.
async fn events(
    unconnected: ApiClient,
    kind: ObjectKind,
    answers: VecDeque<Response<Body>>,
) -> Vec<Event> {
    let rest = Arc::new((Mutex::new(answers), Notify::new()));
    let of_service = Arc::clone(&rest);
    let service = tower::service_fn(move |_: Request<Body>| {
        let rest = Arc::clone(&of_service);
        async move {
            let next = rest.0.lock().expect("no panic").pop_front();
            match next {
                Some(answer) => Ok::<_, Infallible>(answer),
                None => {
                    rest.1.notify_one();
                    std::future::pending().await
                }
            }
        }
    });
    let client = unconnected.answered_by(Client::new(service, "default"));
    let (sender, mut receiver) = mpsc::channel::<Events>(1 << 16);
    let timeouts = WatchTimeouts::default();
    tokio::select! {
        biased;
        () = rest.1.notified() => {}
        () = read(kind, &client, NODE, &timeouts, &sender) => {}
    }
    drop(sender);
    let mut events = Vec::new();
    while let Some(together) = receiver.recv().await {
        events.extend(together);
    }
    events
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let kind = [
        ObjectKind::Service,
        ObjectKind::EndpointSlice,
        ObjectKind::Node,
        ObjectKind::ServiceCidr,
    ][usize::from(choice % 4)];
    let unconnected = unconnected();
    // Pauses are random.
    fastrand::seed(0);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let events = runtime.block_on(events(unconnected, kind, answers(bytes)));
    let is_listed = |event: &&Event| matches!(event, Event::Listed(_));
    assert!(events.iter().filter(is_listed).count() <= 1, "{events:?}");
    sync(facts(), &events, 4);
});
