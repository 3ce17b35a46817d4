//! The endpoints at the address for metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde::Serialize;
use serde_json::{Value, json as value};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use super::host::is_for_this_node;
use super::{AdminServer, page};
use crate::http::failed::FailedListeners;
use crate::http::server::HttpResponse;
use crate::logging;
use crate::metrics::TextFormat;
use crate::sync::{DebugRequest, DebugView};

/// The number of concurrent reads of the counters; further requests wait.
static READERS: Semaphore = Semaphore::const_new(2);

/// The paths that monitoring asks for, by whatever name it has for the node. They contain only
/// numbers and the names of Services.
const OF_TOOLS: [&str; 3] = ["/metrics", "/healthz", "/proxyMode"];

/// The answer to a request by a name that is not this node's.
const WRONG_HOST: &str =
    "the header Host names another host: use localhost, an IP address or the name of the node\n";

impl AdminServer {
    /// Answers a request at the address for metrics.
    pub(super) async fn metrics(
        &self,
        from: SocketAddr,
        request: Request<Bytes>,
        failed: &FailedListeners,
    ) -> HttpResponse {
        let path = request.uri().path();
        let is_for_tools = OF_TOOLS.contains(&path);
        if !is_for_tools && !is_for_this_node(from, &request, &self.node) {
            return text(StatusCode::FORBIDDEN, WRONG_HOST);
        }
        match (request.method(), path) {
            (&Method::PUT, "/debug/flags/v") => set_verbosity(from, &request),
            (&Method::GET | &Method::HEAD, "/metrics") => {
                self.exposition_response(accepted_format(&request)).await
            }
            (&Method::GET | &Method::HEAD, _) => self.get(request.uri(), failed).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
        }
    }

    /// Answers a GET request.
    async fn get(&self, uri: &Uri, failed: &FailedListeners) -> HttpResponse {
        match uri.path() {
            "/" => page::response(),
            "/healthz" => self.ready(),
            "/proxyMode" => text(StatusCode::OK, "nftables"),
            "/configz" => {
                let group = value!({ "kubeproxy.config.k8s.io": self.configuration });
                json(StatusCode::OK, &group)
            }
            "/debug/log" => text(StatusCode::OK, logging::recent()),
            "/debug/status" => json(StatusCode::OK, &self.status()),
            "/debug/overview" => json(StatusCode::OK, &self.overview()),
            "/debug/services" => self.services_response(uri, failed).await,
            "/debug/connections" => self.connections_response().await,
            "/debug/state" => self.ask(DebugView::State, failed).await,
            "/debug/problems" => self.ask(DebugView::Problems, failed).await,
            _ => not_found(),
        }
    }

    /// Reads the counters of all frontends on a blocking thread.
    async fn exposition_response(&self, format: TextFormat) -> HttpResponse {
        let exposition = Arc::clone(&self.exposition);
        let permit = READERS.acquire().await;
        let read = move || {
            // The permit is held until the read is done, even if the peer is gone.
            let _permit = permit;
            exposition.text(format)
        };
        match spawn_blocking(read).await {
            Ok(metrics) => with_type(StatusCode::OK, format.content_type(), metrics),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Answers with all Services, or with the one that the query names.
    async fn services_response(&self, uri: &Uri, failed: &FailedListeners) -> HttpResponse {
        if let Some(service) = parameter(uri, "service") {
            return self.services.answer_one(&service).await;
        }
        let known = parameter(uri, "revision").and_then(|known| known.parse().ok());
        self.services.answer(known, failed).await
    }

    /// Reads the counters of all frontends on a blocking thread, as JSON.
    async fn connections_response(&self) -> HttpResponse {
        let Some(connections) = self.connections.clone() else {
            return text(StatusCode::NOT_FOUND, "connections are not counted");
        };
        let permit = READERS.acquire().await;
        let read = move || {
            let _permit = permit;
            json(StatusCode::OK, &*connections.counted())
        };
        spawn_blocking(read)
            .await
            .unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }

    /// Asks the sync loop, and adds the failed listeners.
    async fn ask(&self, view: DebugView, failed: &FailedListeners) -> HttpResponse {
        let (response, answered) = oneshot::channel();
        let debug_request = DebugRequest::Json(view.clone(), response);
        if self.debug_requests.send(debug_request).await.is_ok()
            && let Ok(mut state) = answered.await
        {
            let problems = match view {
                DebugView::State => state.get_mut("problems"),
                DebugView::Problems => Some(&mut state),
                DebugView::Service(_) => None,
            };
            if let Some(problems) = problems.and_then(Value::as_object_mut) {
                failed.add_to(problems);
            }
            return json(StatusCode::OK, &state);
        }
        text(StatusCode::SERVICE_UNAVAILABLE, "shutting down")
    }
}

/// Sets the verbosity of the log for `PUT /debug/flags/v`, as in kube-proxy, but from this node
/// only.
fn set_verbosity(from: SocketAddr, request: &Request<Bytes>) -> HttpResponse {
    if !from.ip().to_canonical().is_loopback() {
        return text(StatusCode::FORBIDDEN, "only allowed from this node");
    }
    let verbosity = std::str::from_utf8(request.body()).ok();
    match verbosity.and_then(|body| body.trim().parse().ok()) {
        Some(verbosity) => {
            logging::set_verbosity(verbosity);
            let message = format!("successfully set klog.logging.verbosity to {verbosity}\n");
            text(StatusCode::OK, message)
        }
        None => text(StatusCode::BAD_REQUEST, "body is not a number"),
    }
}

/// Returns the format of metrics that the headers of a request ask for.
fn accepted_format(request: &Request<Bytes>) -> TextFormat {
    let values = request.headers().get_all(ACCEPT).iter();
    let texts: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
    TextFormat::accepted(&texts.join(","))
}

/// Returns a parameter of the query.
fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let mut parameters = form_urlencoded::parse(uri.query()?.as_bytes());
    let (_, value) = parameters.find(|(key, _)| key == name)?;
    Some(value.into_owned())
}

/// Builds the answer 404.
pub(in crate::http) fn not_found() -> HttpResponse {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Builds an answer of plain text.
pub(in crate::http) fn text(status: StatusCode, body: impl Into<String>) -> HttpResponse {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

/// Builds an answer of JSON.
pub(in crate::http) fn json(status: StatusCode, body: &impl Serialize) -> HttpResponse {
    match serde_json::to_string(body) {
        Ok(body) => with_type(status, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Builds an answer with a content type.
pub(super) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: String,
) -> HttpResponse {
    let mut response = Response::new(Full::<Bytes>::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
