//! The answers to requests: authentication, faults and errors.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, Response, header};
use tokio::sync::mpsc::Receiver;

use super::events;
use super::form::status;
use super::media::{Format, negotiate};
use super::resource::Resource;
use super::shared::Shared;
use super::single;
use super::state::{Fault, Request};
use super::store::Kind;

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
    let fault = fault(&shared, &head, plural, has_certificate);
    let encodings = shared.look().encodings;
    let encodings = if events.is_some() {
        encodings.without_protobuf()
    } else {
        encodings
    };
    let media = negotiate(accept(&head), encodings);
    let garbage = match fault {
        Some(Fault::Garbage(garbage)) => Some(garbage),
        Some(Fault::Silence | Fault::Status(_)) | None => None,
    };
    let answer = match (fault, media) {
        (Some(Fault::Silence), _) => std::future::pending().await,
        (Some(Fault::Status(code)), _) => Err(code),
        (Some(Fault::Garbage(_)) | None, None) => Err(406),
        (Some(Fault::Garbage(_)) | None, Some(media)) => match (events, kind) {
            (Some(namespace), _) => created(&shared, namespace, body).await,
            (None, Some((kind, namespace))) => {
                let resource = Resource {
                    shared: Arc::clone(&shared),
                    kind,
                    media,
                    query: pairs(query),
                    garbage,
                };
                resource.answer(namespace).await
            }
            (None, None) => single::answer(&shared, &head, body).await,
        },
    };
    let format = media.map_or(Format::Json, |media| media.format);
    Ok(answer.unwrap_or_else(|code| {
        let status = format.object(&status(code));
        with_body(code, format.media_type(), status.into())
    }))
}

fn accept(head: &Parts) -> &str {
    let accept = head.headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    accept.unwrap_or_default()
}

/// Records a request; returns what it gets instead of its answer.
fn fault(
    shared: &Shared,
    head: &Parts,
    plural: Option<&'static str>,
    has_certificate: bool,
) -> Option<Fault> {
    let query = head.uri.query().unwrap_or_default();
    shared.note(|state| {
        let token = format!("Bearer {}", state.token);
        let given = head.headers.get(header::AUTHORIZATION);
        if !has_certificate && given.is_none_or(|given| given != token.as_str()) {
            return Some(Fault::Status(401));
        }
        let plural = plural?;
        state.requests.push(Request {
            plural,
            query: pairs(query),
            accept: accept(head).to_owned(),
        });
        state.fault(plural, query)
    })
}

async fn created(shared: &Shared, namespace: &str, body: Incoming) -> Result<Response<Body>, u16> {
    let body = body.collect().await.or(Err(400_u16))?.to_bytes();
    let event = shared
        .cluster
        .write(|events| events.create(namespace, &body))?;
    let json = Format::Json.media_type();
    Ok(with_body(201, json, event.to_string().into()))
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

pub(crate) fn with_body(code: u16, media_type: &'static str, body: Bytes) -> Response<Body> {
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

/// Builds an answer whose body is a sequence of frames.
pub(crate) fn with_frames(
    media_type: &'static str,
    mut frames: Receiver<io::Result<Frame<Bytes>>>,
) -> Response<Body> {
    let frames = stream::poll_fn(move |context| frames.poll_recv(context));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    set_type(&mut response, media_type);
    response
}
