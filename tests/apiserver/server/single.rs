//! Requests that are neither lists, watches nor Events: the version, reviews of rights, and single
//! objects.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Response};
use serde_json::{Value, json};

use super::answer::{Body, with_body};
use super::media::Format;
use super::shared::Shared;
use super::store::Kind;

/// The path of reviews of the client's own rights.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// Answers a request; the error is an HTTP status.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    head: &Parts,
    body: Incoming,
) -> Result<Response<Body>, u16> {
    let media_type = Format::Json.media_type();
    let path = head.uri.path();
    match (&head.method, path) {
        (&Method::GET, "/version") => {
            let version = json!({
                "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
            });
            Ok(with_body(200, media_type, version.to_string().into()))
        }
        (&Method::POST, REVIEWS) => {
            let body = body.collect().await.or(Err(400_u16))?.to_bytes();
            let mut review: Value = serde_json::from_slice(&body).or(Err(400_u16))?;
            let resource = &review["spec"]["resourceAttributes"]["resource"];
            let resource = resource.as_str().ok_or(400_u16)?;
            let allowed = !shared.look().barred.contains_key(resource);
            review["status"] = json!({ "allowed": allowed });
            Ok(with_body(201, media_type, review.to_string().into()))
        }
        (&Method::GET, path) => {
            let (collection, name) = path.rsplit_once('/').ok_or(404_u16)?;
            let (kind, namespace) = Kind::at(collection).ok_or(404_u16)?;
            if let Some(status) = shared.look().barred.get(kind.plural) {
                return Err(*status);
            }
            let key = namespace.map_or(name.to_owned(), |namespace| format!("{namespace}/{name}"));
            let contents = shared.cluster.contents();
            let object = contents.collection(kind.plural).objects.get(&key);
            let object = object.ok_or(404_u16)?;
            Ok(with_body(200, media_type, object.json.clone()))
        }
        _ => Err(404),
    }
}
