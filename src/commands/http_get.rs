//! A GET request to the daemon of this node.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// The longest wait for a response. A daemon that does not answer within this time is not healthy.
const TIMEOUT: Duration = Duration::from_millis(1_800);

/// The maximum size of a response in bytes.
const MAX_RESPONSE: usize = 64 * 1024 * 1024;

/// Sends a GET request to `http://ADDRESS/path`. Returns the status code and the body.
///
/// # Errors
/// If the connection fails, or the answer is not complete within two seconds.
pub(super) async fn http_get(
    address: SocketAddr,
    path: &str,
) -> anyhow::Result<(StatusCode, String)> {
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
