//! The endpoints at the address for metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json as value};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use super::AdminServer;
use crate::http::failed::FailedListeners;
use crate::http::server::HttpResponse;
use crate::logging;
use crate::metrics::TextFormat;
use crate::sync::{DebugRequest, DebugView};

/// The number of concurrent reads of the counters; further requests wait.
static READERS: Semaphore = Semaphore::const_new(2);

impl AdminServer {
    /// Answers a request at the address for metrics.
    pub(super) async fn metrics(
        &self,
        from: SocketAddr,
        request: Request<Bytes>,
        failed: &FailedListeners,
    ) -> HttpResponse {
        match (request.method(), request.uri().path()) {
            (&Method::PUT, "/debug/flags/v") => set_verbosity(from, &request),
            (&Method::GET | &Method::HEAD, "/metrics") => {
                self.exposition_response(accepted_format(&request)).await
            }
            (&Method::GET | &Method::HEAD, path) => self.get(path, failed).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
        }
    }

    /// Answers a GET request.
    async fn get(&self, path: &str, failed: &FailedListeners) -> HttpResponse {
        match path {
            "/healthz" => self.ready(),
            "/proxyMode" => text(StatusCode::OK, "nftables"),
            "/configz" => {
                let group = value!({ "kubeproxy.config.k8s.io": self.configuration });
                json(StatusCode::OK, &group)
            }
            "/debug/log" => text(StatusCode::OK, logging::recent()),
            "/debug/status" => json(StatusCode::OK, &self.status()),
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

    /// Asks the sync loop, and adds the failed listeners.
    async fn ask(&self, view: DebugView, failed: &FailedListeners) -> HttpResponse {
        let (response, answered) = oneshot::channel();
        let debug_request = DebugRequest { view, response };
        if self.debug_requests.send(debug_request).await.is_ok()
            && let Ok(mut state) = answered.await
        {
            let problems = match view {
                DebugView::State => state.get_mut("problems"),
                DebugView::Problems => Some(&mut state),
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

/// Builds the answer 404.
pub(super) fn not_found() -> HttpResponse {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Builds an answer of plain text.
pub(super) fn text(status: StatusCode, body: impl Into<String>) -> HttpResponse {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

/// Builds an answer of JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> HttpResponse {
    match serde_json::to_string(body) {
        Ok(body) => with_type(status, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Builds an answer with a content type.
fn with_type(status: StatusCode, content_type: &'static str, body: String) -> HttpResponse {
    let mut response = Response::new(Full::<Bytes>::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
