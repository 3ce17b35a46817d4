//! One `healthCheckNodePort` on one address: a listener, and what it answers.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv6V6Only;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Lag;
use crate::model::ServiceName;

/// How many load balancers may ask at once, and how long one may take to.
const CONNECTIONS: usize = 128;
const PATIENCE: Duration = Duration::from_secs(5);

/// What is told of one Service in one family.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) service: ServiceName,
    pub(super) local_endpoints: AtomicUsize,
    pub(super) lag: Arc<Lag>,
}

impl Health {
    /// The answer, as kube-proxy's `pkg/proxy/healthcheck/service_health.go` gives it.
    fn response(&self) -> Response<Full<Bytes>> {
        let count = self.local_endpoints.load(Ordering::Relaxed);
        let healthy = self.lag.is_healthy();
        let (namespace, name) = self.service.as_str().split_once('/').unwrap_or_default();
        let body = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
             \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
        );
        let mut response = Response::new(Full::from(body));
        if count == 0 || !healthy {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert("x-load-balancing-endpoint-weight", count.into());
        response
    }
}

/// Listens at an address of this node, of its own family only.
pub(super) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = match at {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            setsockopt(&socket, Ipv6V6Only, &true)?;
            socket
        }
    };
    // After a restart, connections of the last process may still linger.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(128)
}

/// Answers whatever is asked, until the task is aborted.
pub(super) async fn serve(listener: TcpListener, health: Arc<Health>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, say: it passes.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let health = Arc::clone(&health);
        tokio::spawn(async move {
            let answer = service_fn(move |_: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(health.response()))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // Who asks wrongly, slowly or not at all gets no answer; there is no more to it.
            let _ended = timeout(PATIENCE, connection).await;
            drop(permit);
        });
    }
}
