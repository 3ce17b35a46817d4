//! Asks the daemon on this node what it tells over HTTP.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// How long an answer may take: /metrics reads the counters of all frontends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer at most.
const ANSWER: usize = 64 * 1024 * 1024;

/// What is answered at `http://ADDRESS/path`.
///
/// # Errors
/// If nothing is.
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let answer = async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let request = Request::get(format!("http://{address}{path}")).body(Empty::new())?;
        let answer = client.request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    crate::agent::runtime()?.block_on(async { tokio::time::timeout(PATIENCE, answer).await? })
}

/// The sum of a metric's samples, whatever their labels, of what is counted in whole numbers.
pub(super) fn sum(metrics: &str, name: &str) -> Option<u64> {
    values(metrics, name).reduce(u64::saturating_add)
}

/// The latest of a metric's samples.
pub(super) fn latest(metrics: &str, name: &str) -> Option<f64> {
    values(metrics, name).reduce(f64::max)
}

/// The value of a label of a metric's first sample.
pub(super) fn label(metrics: &str, name: &str, label: &str) -> Option<String> {
    let line = samples(metrics, name).next()?;
    let (_, rest) = line.split_once(&format!("{label}=\""))?;
    let (value, _) = rest.split_once('"')?;
    Some(value.to_owned())
}

fn samples<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    metrics
        .lines()
        .filter_map(move |line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '{']))
}

fn values<'a, T: FromStr>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = T> {
    samples(metrics, name).filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_told_from_other_metrics() {
        let metrics = "# TYPE a counter\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_other 7\nb 1.5\nb 2.5\n";
        assert_eq!(sum(metrics, "a_total"), Some(5));
        assert_eq!(latest(metrics, "b"), Some(2.5));
        assert_eq!(label(metrics, "a_total", "x").as_deref(), Some("1"));
        assert_eq!(sum(metrics, "a"), None);
    }
}
