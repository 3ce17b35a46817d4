//! The endpoints `/healthz`, `/livez` and `/readyz`, with the bodies of kube-proxy
//! (`pkg/proxy/healthcheck/proxy_health.go`).

use std::collections::BTreeMap;
use std::time::SystemTime;

use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::AdminServer;
use super::answers::{json, not_found, text};
use crate::clock;
use crate::http::server::HttpResponse;
use crate::metrics::CodeLabel;

impl AdminServer {
    /// Answers a request at the address for health.
    pub(super) fn health(&self, request: &Request<Bytes>) -> HttpResponse {
        let path = request.uri().path();
        let (counter, eligible) = match path {
            "/healthz" => (&self.metrics.healthz, Some(self.sync_health.is_eligible())),
            "/livez" => (&self.metrics.livez, None),
            "/readyz" => return self.ready(),
            _ => return not_found(),
        };
        let response = self.report(eligible);
        let code = CodeLabel::new(response.status().as_u16());
        counter.get_or_create(&code).inc();
        response
    }

    /// Answers `/readyz`: 200 after the first commit.
    pub(super) fn ready(&self) -> HttpResponse {
        if self.sync_health.committed_at().is_some() {
            text(StatusCode::OK, "ok")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "nothing is programmed yet")
        }
    }

    /// Answers `/healthz`, with the eligibility of the Node, or `/livez`.
    fn report(&self, eligible: Option<bool>) -> HttpResponse {
        let now = clock::now();
        let committed = self.sync_health.committed_at();
        // Unlike kube-proxy, the daemon is unhealthy before the first commit.
        let healthy = committed.is_some() && self.sync_health.is_healthy();
        let updated = if healthy { Some(now) } else { committed };
        let updated = updated.map_or(ZERO_TIME.to_owned(), rfc3339);
        let families = if committed.is_some() {
            self.families
        } else {
            &[]
        };
        let of_family = || FamilyHealth {
            last_updated: updated.clone(),
            healthy,
        };
        let report = HealthReport {
            current_time: rfc3339(now),
            node_eligible: eligible,
            healthy: healthy && eligible.unwrap_or(true),
            status: families
                .iter()
                .map(|family| (family.as_str(), of_family()))
                .collect(),
            last_updated: updated.clone(),
        };
        let code = if report.healthy {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        json(code, &report)
    }
}

/// The body of an answer: `ProxyHealth` of kube-proxy, in its order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthReport {
    /// The time of the last update, or now while the daemon is healthy.
    last_updated: String,
    /// The time of the answer.
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Whether the Node is eligible for load balancers; absent in `/livez`.
    node_eligible: Option<bool>,
    /// Whether the daemon is healthy.
    healthy: bool,
    /// The health of each family.
    status: BTreeMap<&'static str, FamilyHealth>,
}

/// The health of one family in an answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyHealth {
    /// The time of the last update of the family.
    last_updated: String,
    /// Whether the family is healthy.
    healthy: bool,
}

/// The zero value of Go's `time.Time`.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Formats a time as in Kubernetes' API.
fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or(ZERO_TIME.to_owned(), |time| time.to_string())
}
