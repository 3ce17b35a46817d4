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
use super::form::status;
use super::media::{Encodings, Format, Media, negotiate};
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
    let encodings = match shared.look().encodings {
        // The tables have no Events.
        Encodings::All if events.is_some() => Encodings::Json,
        encodings @ (Encodings::All
        | Encodings::Json
        | Encodings::RejectFirst
        | Encodings::RejectAny) => encodings,
    };
    let accept = head.headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let media = negotiate(accept.unwrap_or_default(), encodings);
    let answer = match (fault, media) {
        (Some(Fault::Silence), _) => std::future::pending().await,
        (Some(Fault::Status(code)), _) => Err(code),
        (None, None) => Err(406),
        (None, Some(media)) => match (events, kind) {
            (Some(namespace), _) => created(&shared, namespace, body).await,
            (None, Some((kind, namespace))) => {
                resource(&shared, kind, namespace, media, &pairs(query))
            }
            (None, None) => Err(404),
        },
    };
    let format = media.map_or(Format::Json, |media| media.format);
    Ok(answer.unwrap_or_else(|code| {
        let status = format.object(&status(code));
        with_body(code, format.media_type(), status.into())
    }))
}

async fn created(shared: &Shared, namespace: &str, body: Incoming) -> Result<Response<Body>, u16> {
    let body = body.collect().await.or(Err(400_u16))?.to_bytes();
    let event = shared.note(|state| state.events.create(namespace, &body))?;
    let json = Format::Json.media_type();
    Ok(with_body(201, json, event.to_string().into()))
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
    media: Media,
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
        return watch(shared, kind, media.format, query, filter);
    }
    let limit = text("limit").parse().unwrap_or(usize::MAX);
    shared.note(|state| list(state, kind, &filter, media, limit, text("continue")))
}

/// Builds a page of a list; its continue token has the version and the last object of the page.
fn list(
    state: &mut State,
    kind: &Kind,
    filter: &Filter,
    media: Media,
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
    let text = media.list(kind, &metadata, page.iter().map(|object| &**object));
    let sent = page.iter().filter(|object| object.is_sent_first());
    let sent = sent.map(|object| object.key.clone());
    state.sent.entry(kind.plural).or_default().extend(sent);
    *state.body_bytes.entry(kind.plural).or_default() += text.len() as u64;
    Ok(with_body(200, media.format.media_type(), text.into()))
}

fn watch(
    shared: &Arc<Shared>,
    kind: &'static Kind,
    format: Format,
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
    let watch = Watch::new(Arc::clone(shared), kind, format, filter, bookmarks, frames);
    tokio::spawn(watch.run(begin, seconds.unwrap_or(1800)));
    let frames = stream::poll_fn(move |context| received.poll_recv(context));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    set_type(&mut response, format.stream_type());
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

fn with_body(code: u16, media_type: &'static str, body: Bytes) -> Response<Body> {
    let body = Full::new(body).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = code.try_into().expect("an HTTP status");
    set_type(&mut response, media_type);
    response
}

fn set_type(response: &mut Response<Body>, media_type: &'static str) {
    let media_type = header::HeaderValue::from_static(media_type);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
}

/// Builds a chunk of the answer.
pub(crate) fn frame(text: Vec<u8>) -> Frame<Bytes> {
    Frame::data(text.into())
}
