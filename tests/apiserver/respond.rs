//! Requests and answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::server::{Shared, State, StreamingLists, line};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Answers a request.
pub(crate) async fn respond(request: &Request<Incoming>, shared: Shared) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
    let query = request.uri().query().unwrap_or_default();
    let parameters: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    {
        let mut state = shared.state.lock().unwrap();
        let shown: Vec<_> = parameters
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        state.requests.push(format!("{path}?{}", shown.join("&")));
        let token = request.headers().get("authorization");
        let expected = format!("Bearer {}", state.token);
        if token.is_none_or(|token| token.as_bytes() != expected.as_bytes()) {
            return status(401, "Unauthorized");
        }
        if let Some(code) = state.denied.get(plural.as_str()) {
            return status(*code, "Denied");
        }
        let failing = state.failures.iter().position(|(of, _)| *of == plural);
        if let Some((_, code)) = failing.and_then(|position| state.failures.remove(position)) {
            return status(code, "InternalError");
        }
    }
    let selected = Selected { plural, parameters };
    if selected.parameter("watch") == "true" {
        watch(selected, shared)
    } else {
        list(&selected, &shared.state.lock().unwrap())
    }
}

fn status(code: u16, reason: &str) -> Response<Body> {
    let mut response = json_body(&status_object(code, reason));
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
    response
}

fn status_object(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": format!("{reason}, says the test's server"), "reason": reason, "code": code,
    })
}

fn json_body(value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    let response = Response::builder().header("content-type", "application/json");
    response.body(body).unwrap()
}

/// What a request asks for.
struct Selected {
    plural: String,
    parameters: BTreeMap<String, String>,
}

impl Selected {
    fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// Whether the selectors take the object: `!label`, `field!=value`, `field=value`.
    fn takes(&self, object: &Value) -> bool {
        let labels = self.parameter("labelSelector");
        let by_label = labels
            .split(',')
            .filter(|part| !part.is_empty())
            .all(|part| {
                let label = part.strip_prefix('!').expect("only !label is understood");
                object["metadata"]["labels"][label].is_null()
            });
        let fields = self.parameter("fieldSelector");
        let by_field = fields
            .split(',')
            .filter(|part| !part.is_empty())
            .all(|part| {
                let (path, value) = part.split_once('=').expect("a field selector");
                let (path, negated) = match path.strip_suffix('!') {
                    Some(path) => (path, true),
                    None => (path, false),
                };
                let found = path.split('.').fold(object, |object, key| &object[key]);
                (found.as_str().unwrap_or_default() == value) != negated
            });
        by_label && by_field
    }

    fn objects<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a Value> {
        let objects = state.objects.iter();
        let ours = objects.filter(|((plural, _), _)| *plural == self.plural);
        ours.map(|(_, object)| object)
            .filter(|object| self.takes(object))
    }
}

fn list(selected: &Selected, state: &State) -> Response<Body> {
    let from: usize = selected.parameter("continue").parse().unwrap_or(0);
    if state.broken_pages.is_some_and(|pages| from >= pages) {
        return status(500, "InternalError");
    }
    // Smaller pages than asked for, so that a few objects make several.
    let limit = selected
        .parameter("limit")
        .parse()
        .unwrap_or(usize::MAX)
        .min(2);
    let all: Vec<_> = selected.objects(state).collect();
    let items: Vec<_> = all.iter().skip(from).take(limit).collect();
    let next = from + items.len();
    let more = if next < all.len() {
        next.to_string()
    } else {
        String::new()
    };
    json_body(&json!({
        "kind": "List", "apiVersion": "v1",
        "metadata": {"resourceVersion": state.version.to_string(), "continue": more},
        "items": items,
    }))
}

/// A watch: the changes since a version, then each as it comes, until it is closed.
fn watch(selected: Selected, mut shared: Shared) -> Response<Body> {
    let (lines, received) = mpsc::unbounded_channel();
    let mut last = {
        let state = shared.state.lock().unwrap();
        match begin(&selected, &state, &lines) {
            Ok(version) => version,
            Err(response) => return *response,
        }
    };
    let timeout = selected.parameter("timeoutSeconds").parse().unwrap_or(300);
    let timeout = Duration::from_secs(timeout);
    shared.closed.mark_unchanged();
    tokio::spawn(async move {
        let ended = tokio::time::sleep(timeout);
        tokio::pin!(ended);
        loop {
            let hangs = {
                let state = shared.state.lock().unwrap();
                if !state.hang {
                    for (version, plural, kind, object) in &state.log {
                        if *version > last && *plural == selected.plural && selected.takes(object) {
                            last = *version;
                            let _closed = lines.send(line(kind, object));
                        }
                    }
                }
                state.hang
            };
            tokio::select! {
                _ = shared.changed.changed() => {}
                _ = shared.closed.changed() => return,
                () = lines.closed() => return,
                () = &mut ended, if !hangs => {
                    let _closed = lines.send(bookmark(&selected, last, false));
                    return;
                }
            }
        }
    });
    let frames = stream::unfold(received, |mut received| async {
        let line = received.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), received))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    let response = Response::builder().header("content-type", "application/json");
    response.body(body).unwrap()
}

/// Sends what a watch begins with; returns the version it goes on from.
fn begin(
    selected: &Selected,
    state: &State,
    lines: &mpsc::UnboundedSender<Bytes>,
) -> Result<u64, Box<Response<Body>>> {
    let asked = selected.parameter("sendInitialEvents") == "true";
    if asked && state.streaming == StreamingLists::Refused {
        return Err(Box::new(status(422, "Invalid")));
    }
    let from: u64 = selected.parameter("resourceVersion").parse().unwrap_or(0);
    if from == 0 {
        for object in selected.objects(state) {
            let _closed = lines.send(line("ADDED", object));
        }
        if asked && state.streaming == StreamingLists::Known {
            let _closed = lines.send(bookmark(selected, state.version, true));
        }
        return Ok(state.version);
    }
    if from < state.oldest {
        if !state.gone_by_event {
            return Err(Box::new(status(410, "Expired")));
        }
        let _closed = lines.send(line("ERROR", &status_object(410, "Expired")));
    }
    Ok(from)
}

fn bookmark(selected: &Selected, version: u64, ends_list: bool) -> Bytes {
    let annotations = if ends_list {
        json!({"k8s.io/initial-events-end": "true"})
    } else {
        json!({})
    };
    let object = json!({
        "kind": selected.plural, "apiVersion": "v1",
        "metadata": {"resourceVersion": version.to_string(), "annotations": annotations},
    });
    line("BOOKMARK", &object)
}
