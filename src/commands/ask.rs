//! Asks the daemon on this node what it tells over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// How long an answer may take: `/debug/wrong` waits for a sync in progress.
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
