//! GET requests to the daemon of this node.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::processes;
use crate::config::{HEALTHZ_PORT, METRICS_PORT};

/// The longest wait for a response. A daemon that does not answer within this time is not healthy.
const TIMEOUT: Duration = Duration::from_millis(1_800);

/// The maximum size of a response in bytes.
const MAX_RESPONSE: usize = 64 * 1024 * 1024;

/// Sends a GET request to `http://ADDRESS/path`, and waits. Returns the status code and the body.
///
/// # Errors
/// As for [`http_get`].
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    crate::agent::runtime()?.block_on(http_get(address, path))
}

/// Sends a GET request to `http://ADDRESS/path`. Returns the status code and the body.
///
/// # Errors
/// If the connection fails, or the answer is not complete within [`TIMEOUT`].
async fn http_get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let exchange = async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let request = Request::get(format!("http://{address}{path}")).body(Empty::new())?;
        let response = client.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE).collect();
        let body = body.await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    timeout(TIMEOUT, exchange).await?
}

/// Asks every address at which the daemon can listen for a path. Returns the first answer that is
/// not an error.
///
/// # Errors
/// If no address answers without an error; the error is that of the last one.
pub(super) async fn ask_daemon(path: &str) -> anyhow::Result<String> {
    let daemon = processes::daemons().into_iter().next();
    let mut addresses = daemon
        .map(|daemon| processes::listening_addresses(&daemon))
        .unwrap_or_default();
    if addresses.is_empty() {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        addresses = vec![loopback(METRICS_PORT), loopback(HEALTHZ_PORT)];
    }
    let answers = join_all(addresses.iter().map(|address| http_get(*address, path))).await;
    let mut rejected = None;
    for answer in answers {
        match answer {
            Ok((status, body)) if status.is_success() => return Ok(body),
            answer => rejected = Some(answer),
        }
    }
    match rejected.context("the daemon listens at no address")?? {
        (status, body) if body.is_empty() => bail!("{status}"),
        (status, body) => bail!("{status}: {}", body.trim_end()),
    }
}
