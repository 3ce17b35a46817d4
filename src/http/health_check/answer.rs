//! The answers of one `healthCheckNodePort`.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};

use super::{Server, SyncHealth};
use crate::http::listen::Listeners;
use crate::planner::model::ServiceName;

/// The health of one Service in one family.
#[derive(Debug)]
pub(super) struct ServiceHealth {
    /// The Service.
    pub(super) service: ServiceName,
    /// The number of ready endpoints on this node.
    pub(super) local_endpoints: AtomicUsize,
    /// The health of the sync loop.
    pub(super) sync_health: Arc<SyncHealth>,
}

impl ServiceHealth {
    /// Builds the answer of kube-proxy's `pkg/proxy/healthcheck/service_health.go`. On a drained node
    /// the answer is 503, and its weight is 0.
    fn response(&self) -> Response<Full<Bytes>> {
        let count = self.local_endpoints.load(Ordering::Relaxed);
        let healthy = self.sync_health.is_healthy();
        let is_drained = self.sync_health.drained_since().is_some();
        // kube-proxy has no such field, so the body has it on a drained node only.
        let drained = if is_drained {
            ",\n\t\"drained\": true"
        } else {
            ""
        };
        let weight = if is_drained { 0 } else { count };
        let (namespace, name) = self.service.as_str().split_once('/').unwrap_or_default();
        let body = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
             \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}{drained}\n}}"
        );
        let mut response = Response::new(Full::from(body));
        if weight == 0 || !healthy {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert("x-load-balancing-endpoint-weight", weight.into());
        response
    }
}

/// Serves the health check until the task is aborted.
pub(super) async fn serve(listeners: Listeners, server: Server, health: Arc<ServiceHealth>) {
    let answer = move |_, _| ready(health.response());
    server.serve(listeners, answer).await;
}
