//! `/debug/services`: all Services in short, from a snapshot that the requests share.
//!
//! A request never waits for a sync in progress: it gets the last snapshot with its age. However
//! many clients there are, the sync loop spends at most a small part of its time on snapshots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::answers::{json, text};
use super::services_json::ports_json;
use crate::http::failed::FailedListeners;
use crate::http::server::HttpResponse;
use crate::planner::model::ServiceName;
use crate::sync::{DebugRequest, DebugView, ServicesView};

/// The time that a request waits for a new snapshot.
const PATIENCE: Duration = Duration::from_millis(500);

/// The shortest interval between two snapshots.
const INTERVAL: Duration = Duration::from_secs(2);

/// The interval between two snapshots, in multiples of the time that the last one took.
const COST_FACTOR: u32 = 50;

/// The time without requests after which the snapshot is dropped.
const IDLE: Duration = Duration::from_mins(1);

/// The last snapshot of all Services, and its refresh.
#[derive(Debug)]
pub struct Services {
    /// The channel to the sync loop.
    requests: mpsc::Sender<DebugRequest>,
    state: watch::Sender<State>,
}

/// The last snapshot, and when the next one is taken.
#[derive(Debug)]
struct State {
    /// The last snapshot; none before the first one, and without requests.
    last: Option<Snapshot>,
    /// Whether a refresh is in progress.
    is_refreshing: bool,
    /// The earliest time of the next refresh.
    next: Instant,
    /// The time of the last request.
    asked: Instant,
}

/// A snapshot of all Services.
#[derive(Clone, Debug)]
struct Snapshot {
    revision: u64,
    ports: Arc<RawValue>,
    problems: Arc<Map<String, Value>>,
    /// The last time at which it was that of the sync loop.
    confirmed: Instant,
}

/// The answer to a request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    /// Whether the sync loop is busy, so that the snapshot is an older one.
    busy: bool,
    /// The age of the snapshot in seconds; `None` if there is no snapshot.
    age_seconds: Option<f64>,
    /// The revision of the state.
    revision: Option<u64>,
    /// The problems of each object.
    problems: Map<String, Value>,
    /// Each Service port; absent if the client has this revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<&'a RawValue>,
}

impl Services {
    /// Creates the snapshots of a sync loop.
    #[must_use]
    pub fn new(requests: mpsc::Sender<DebugRequest>) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            requests,
            state: watch::Sender::new(State {
                last: None,
                is_refreshing: false,
                next: now,
                asked: now,
            }),
        })
    }

    /// Answers with the last snapshot; without the Services, if it is the one that the client has.
    pub(super) async fn answer(
        self: &Arc<Self>,
        known: Option<u64>,
        failed: &FailedListeners,
    ) -> HttpResponse {
        self.refresh_if_due();
        let (busy, last) = self.state_after_refresh().await;
        let write = {
            let failed = failed.clone();
            move || {
                let mut problems = last
                    .as_ref()
                    .map_or_else(Map::new, |last| Map::clone(&last.problems));
                failed.add_to(&mut problems);
                let revision = last.as_ref().map(|last| last.revision);
                let is_known = known.is_some() && known == revision;
                json(
                    StatusCode::OK,
                    &Answer {
                        busy,
                        age_seconds: last
                            .as_ref()
                            .map(|last| last.confirmed.elapsed().as_secs_f64()),
                        revision,
                        problems,
                        ports: last.as_ref().filter(|_| !is_known).map(|last| &*last.ports),
                    },
                )
            }
        };
        // A large answer takes milliseconds to copy, and a probe must not wait for it.
        spawn_blocking(write)
            .await
            .unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }

    /// Answers with everything about one Service.
    pub(super) async fn answer_one(&self, name: &str) -> HttpResponse {
        let (response, answered) = oneshot::channel();
        let view = DebugView::Service(ServiceName::from_key(&name.into()));
        let ask = async {
            let request = DebugRequest::Json(view, response);
            self.requests.send(request).await.ok()?;
            answered.await.ok()
        };
        match timeout(PATIENCE, ask).await {
            Ok(Some(Value::Null)) => text(StatusCode::NOT_FOUND, "no such Service"),
            Ok(Some(service)) => json(StatusCode::OK, &service),
            Ok(None) => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
            Err(_busy) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "a sync is in progress: retry",
            ),
        }
    }

    /// Waits for a refresh in progress, but no longer than [`PATIENCE`]. Returns whether it is still
    /// in progress, and the last snapshot.
    async fn state_after_refresh(&self) -> (bool, Option<Snapshot>) {
        let mut changes = self.state.subscribe();
        let _busy = timeout(PATIENCE, changes.wait_for(|state| !state.is_refreshing)).await;
        let state = self.state.borrow();
        (state.is_refreshing, state.last.clone())
    }

    /// Starts a refresh unless one is in progress or the last one is recent.
    fn refresh_if_due(self: &Arc<Self>) {
        let now = Instant::now();
        let mut starts = false;
        self.state.send_modify(|state| {
            state.asked = now;
            starts = !state.is_refreshing && now >= state.next;
            state.is_refreshing |= starts;
        });
        if starts {
            let services = Arc::clone(self);
            tokio::spawn(async move {
                let refreshed = services.refresh().await;
                services.end_refresh(refreshed);
                services.drop_when_idle().await;
            });
        }
    }

    /// Ends a refresh; `None` if the sync loop ended.
    fn end_refresh(&self, refreshed: Option<Refreshed>) {
        self.state.send_modify(|state| {
            let mut took = Duration::ZERO;
            match (refreshed, &mut state.last) {
                (Some(Refreshed::New(snapshot, duration)), last) => {
                    *last = Some(snapshot);
                    took = duration;
                }
                (Some(Refreshed::Unchanged(confirmed)), Some(last)) => last.confirmed = confirmed,
                (Some(Refreshed::Unchanged(_)), None) | (None, _) => {}
            }
            state.is_refreshing = false;
            state.next = Instant::now() + INTERVAL.max(took * COST_FACTOR);
        });
    }

    /// Asks the sync loop for a new snapshot; `None` if it ends.
    async fn refresh(&self) -> Option<Refreshed> {
        let known = self.state.borrow().last.as_ref().map(|last| last.revision);
        let (response, answered) = oneshot::channel();
        let request = DebugRequest::Services(known, response);
        self.requests.send(request).await.ok()?;
        let answer = answered.await.ok()?;
        let confirmed = Instant::now();
        let Some(view) = answer else {
            return Some(Refreshed::Unchanged(confirmed));
        };
        let took = view.took;
        let snapshot = spawn_blocking(move || Snapshot::new(view, confirmed));
        Some(Refreshed::New(snapshot.await.ok()??, took))
    }

    /// Drops the snapshot if there was no request for [`IDLE`].
    async fn drop_when_idle(&self) {
        sleep(IDLE).await;
        self.state.send_modify(|state| {
            if state.asked.elapsed() >= IDLE {
                state.last = None;
            }
        });
    }
}

/// The result of a refresh.
#[derive(Debug)]
enum Refreshed {
    /// The last snapshot was that of the sync loop at this time.
    Unchanged(Instant),
    /// A new snapshot, and the time that it took in the sync loop.
    New(Snapshot, Duration),
}

impl Snapshot {
    /// Writes a view as JSON; `None` never happens, since the view has only texts and numbers.
    fn new(view: ServicesView, confirmed: Instant) -> Option<Self> {
        let ports = ports_json(view.ports);
        Some(Self {
            revision: view.revision,
            ports: serde_json::value::to_raw_value(&ports).ok()?.into(),
            problems: Arc::new(view.problems),
            confirmed,
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;

    fn view(revision: u64) -> ServicesView {
        let problems = json!({ "Service shop/cart": ["no port"] });
        ServicesView {
            revision,
            ports: Vec::new(),
            problems: problems.as_object().cloned().unwrap(),
            took: Duration::ZERO,
        }
    }

    async fn ask(services: &Arc<Services>, known: Option<u64>) -> Value {
        let answer = services.answer(known, &FailedListeners::default()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// Ends the pause after the last refresh.
    fn end_pause(services: &Services) {
        services
            .state
            .send_modify(|state| state.next = Instant::now());
    }

    #[tokio::test]
    async fn a_request_gets_the_last_snapshot_while_the_sync_loop_is_busy() {
        let (requests, mut received) = mpsc::channel(1);
        let services = Services::new(requests);
        let busy = ask(&services, None).await;
        assert_eq!(
            (&busy["busy"], &busy["ageSeconds"], busy.get("ports")),
            (&json!(true), &json!(null), None),
            "{busy}"
        );
        let serve = async {
            let Some(DebugRequest::Services(None, response)) = received.recv().await else {
                panic!("no request");
            };
            assert!(response.send(Some(view(7))).is_ok());
            received
        };
        let (first, mut received) = tokio::join!(ask(&services, None), serve);
        assert_eq!(
            (&first["busy"], &first["revision"], &first["ports"]),
            (&json!(false), &json!(7), &json!([])),
            "{first}"
        );
        // The pause has not ended: the sync loop is not asked.
        let again = ask(&services, Some(7)).await;
        assert_eq!((&again["busy"], again.get("ports")), (&json!(false), None));
        assert!(received.try_recv().is_err());
        end_pause(&services);
        let busy = ask(&services, None).await;
        assert_eq!((&busy["busy"], &busy["ports"]), (&json!(true), &json!([])));
        assert_eq!(
            busy["problems"],
            json!({ "Service shop/cart": ["no port"] })
        );
        // One request waits, not one for each client.
        assert!(received.try_recv().is_ok());
        assert!(received.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_service_is_not_waited_for_either() {
        let (requests, mut received) = mpsc::channel(1);
        let services = Services::new(requests);
        let busy = services.answer_one("shop/cart").await;
        assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(received.try_recv().is_ok());
        let serve = async {
            let Some(DebugRequest::Json(view, response)) = received.recv().await else {
                panic!("no request");
            };
            assert_eq!(view, DebugView::Service(ServiceName::new("shop", "web")));
            assert!(response.send(Value::Null).is_ok());
        };
        let (answer, ()) = tokio::join!(services.answer_one("shop/web"), serve);
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
}
