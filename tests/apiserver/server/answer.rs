//! The answers to requests: a list, a watch or an error.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Method, Response, header};
use serde_json::json;
use tokio::sync::mpsc;

use super::events;
use super::selector::Selector;
use super::state::{Fault, Gone, Request, Shared, State, StreamingLists};
use super::store::{Filter, Kind};
use super::watching::{Begin, Watch};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Answers `request` of a client with or without a certificate.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
    has_certificate: bool,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let path = head.uri.path();
    let events = (head.method == Method::POST).then(|| events::namespace(path));
    let events = events.flatten();
    let kind = Kind::at(path).filter(|_| head.method == Method::GET);
    let plural = events.map(|_| events::PLURAL);
    let plural = plural.or(kind.map(|(kind, _)| kind.plural));
    let fault = shared.note(|state| {
        let token = format!("Bearer {}", state.token);
        let given = head.headers.get(header::AUTHORIZATION);
        if !has_certificate && given.is_none_or(|given| given != token.as_str()) {
            return Some(Fault::Status(401));
        }
        let plural = plural?;
        state.requests.push(Request {
            plural,
            query: pairs(query),
        });
        state.fault(plural, query)
    });
    let answer = match fault {
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Status(code)) => Err(code),
        None => match (events, kind) {
            (Some(namespace), _) => created(&shared, namespace, body).await,
            (None, Some((kind, namespace))) => {
                let accept = head.headers.get(header::ACCEPT);
                let accept = accept.and_then(|accept| accept.to_str().ok());
                let partial =
                    accept.is_some_and(|accept| accept.contains("as=PartialObjectMetadataList"));
                resource(&shared, kind, namespace, partial, &pairs(query))
            }
            (None, None) => Err(404),
        },
    };
    Ok(answer.unwrap_or_else(status))
}

async fn created(shared: &Shared, namespace: &str, body: Incoming) -> Result<Response<Body>, u16> {
    let body = body.collect().await.or(Err(400_u16))?.to_bytes();
    let event = shared.note(|state| state.events.create(namespace, &body))?;
    Ok(with_body(201, event.to_string().into()))
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

/// Builds the answer; the error is an HTTP status.
fn resource(
    shared: &Arc<Shared>,
    kind: &'static Kind,
    namespace: Option<&str>,
    partial: bool,
    query: &BTreeMap<String, String>,
) -> Result<Response<Body>, u16> {
    let text = |key: &str| query.get(key).map_or("", String::as_str);
    let selector = |key| Selector::parse(text(key)).ok_or(400_u16);
    let filter = Filter {
        namespace: namespace.map(str::to_owned),
        labels: selector("labelSelector")?,
        fields: selector("fieldSelector")?,
    };
    if !filter.fields.keys().all(|field| kind.has_field(field)) {
        return Err(400);
    }
    if text("watch") == "true" {
        return watch(shared, kind, query, filter);
    }
    let limit = text("limit").parse().unwrap_or(usize::MAX);
    shared.note(|state| list(state, kind, &filter, partial, limit, text("continue")))
}

/// Builds a page of a list; its continue token has the version and the last object of the page.
fn list(
    state: &mut State,
    kind: &Kind,
    filter: &Filter,
    partial: bool,
    limit: usize,
    token: &str,
) -> Result<Response<Body>, u16> {
    let (version, last) = match token.split_once(' ') {
        Some((version, last)) => (version.parse().or(Err(400_u16))?, last),
        None => (state.version, ""),
    };
    if version < state.compacted {
        return Err(410);
    }
    let page: Vec<_> = state
        .collection(kind.plural)
        .objects
        .range(last.to_owned()..)
        .map(|(_, object)| object)
        .filter(|object| object.key != last && filter.matches(object))
        .take(limit.saturating_add(1))
        .cloned()
        .collect();
    let is_last = page.len() <= limit;
    let page = page.get(..limit).unwrap_or(&page);
    let token = match page.last() {
        Some(last) if !is_last => format!("{version} {}", last.key),
        _ => String::new(),
    };
    let metadata = json!({"resourceVersion": version.to_string(), "continue": token});
    let (name, api_version) = if partial {
        ("PartialObjectMetadata", "meta.k8s.io/v1")
    } else {
        (kind.name, kind.api_version)
    };
    let mut text = format!(
        r#"{{"kind":"{name}List","apiVersion":"{api_version}","metadata":{metadata},"items":["#
    )
    .into_bytes();
    for (index, object) in page.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        if partial {
            text.extend_from_slice(&object.partial_json());
        } else {
            text.extend_from_slice(&object.json);
        }
    }
    text.extend_from_slice(b"]}");
    let sent = page.iter().map(|object| object.key.clone());
    state.sent.entry(kind.plural).or_default().extend(sent);
    *state.body_bytes.entry(kind.plural).or_default() += text.len() as u64;
    Ok(with_body(200, text.into()))
}

fn watch(
    shared: &Arc<Shared>,
    kind: &'static Kind,
    query: &BTreeMap<String, String>,
    filter: Filter,
) -> Result<Response<Body>, u16> {
    let begin = begin(&shared.look(), query)?;
    let seconds = query
        .get("timeoutSeconds")
        .and_then(|text| text.parse().ok());
    let bookmarks = query
        .get("allowWatchBookmarks")
        .is_some_and(|text| text == "true");
    let (frames, mut received) = mpsc::channel(16);
    let watch = Watch::new(Arc::clone(shared), kind, filter, bookmarks, frames);
    tokio::spawn(watch.run(begin, seconds.unwrap_or(1800)));
    let frames = stream::poll_fn(move |context| received.poll_recv(context));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    set_json(&mut response);
    Ok(response)
}

/// Returns the start of a watch, by the rules of `ValidateListOptions` in apimachinery.
fn begin(state: &State, query: &BTreeMap<String, String>) -> Result<Begin, u16> {
    let text = |key: &str| query.get(key).map_or("", String::as_str);
    let streams = text("sendInitialEvents") == "true";
    let not_older = text("resourceVersionMatch") == "NotOlderThan";
    match state.streaming_lists {
        StreamingLists::Served if streams != not_older => return Err(422),
        StreamingLists::Refused if streams || not_older => return Err(422),
        StreamingLists::Served if streams => return Ok(Begin::List { marked: true }),
        StreamingLists::Served | StreamingLists::Refused | StreamingLists::Ignored => {}
    }
    match text("resourceVersion") {
        "" | "0" => Ok(Begin::List { marked: false }),
        version => {
            let version = version.parse().or(Err(400_u16))?;
            match state.gone {
                Gone::Status if version < state.compacted => Err(410),
                Gone::Status | Gone::Event => Ok(Begin::After(version)),
            }
        }
    }
}

fn status(code: u16) -> Response<Body> {
    with_body(code, status_json(code).into())
}

/// Builds a `v1` Status.
pub(crate) fn status_json(code: u16) -> String {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "AlreadyExists",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let details = if code == 429 {
        json!({"retryAfterSeconds": 1})
    } else {
        json!({})
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("the tests' API server says {reason}"), "reason": reason,
        "details": details, "code": code,
    })
    .to_string()
}

fn with_body(code: u16, body: Bytes) -> Response<Body> {
    let body = Full::new(body).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = code.try_into().expect("an HTTP status");
    set_json(&mut response);
    response
}

fn set_json(response: &mut Response<Body>) {
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
}

/// Builds a chunk of the answer.
pub(crate) fn frame(text: Vec<u8>) -> Frame<Bytes> {
    Frame::data(text.into())
}
