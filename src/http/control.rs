//! The control socket: `kube-dnat drain` and `kube-dnat undrain` ask the daemon through it.
//!
//! It is an abstract Unix socket. It belongs to the network namespace of the node, so it needs neither a
//! file nor a mount, and the daemons of two namespaces do not meet. The kernel names the user of the
//! peer (`SO_PEERCRED`), so no other user can drain the node, as one could through a loopback port.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::admin::{json, not_found, text};
use super::server::HttpResponse;
use crate::logging::LogEvent;
use crate::metrics::Metrics;
use crate::sync::SyncHealth;

/// The name of the socket; the first byte makes it abstract (unix(7)).
pub const SOCKET: &str = "\0kube-dnat/control";

/// The path of the drain: PUT drains the node, DELETE ends that.
pub const DRAIN: &str = "/drain";

/// The time in which a peer must have sent its request and received the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The interval between attempts to bind the socket while it is in use.
const RETRY: Duration = Duration::from_secs(1);

/// The number of connections of users who may not drain the node; further ones are closed.
const MAX_FOREIGN: usize = 8;

/// Whether the node is drained, and whether the request changed that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainAnswer {
    /// Whether the node is drained.
    pub drained: bool,
    /// Whether the request changed that.
    pub changed: bool,
}

/// Whether the other end of the socket is root or the user of this process.
#[must_use]
pub fn is_trusted(peer: UCred) -> bool {
    is_trusted_user(peer.uid(), geteuid().as_raw())
}

/// Whether a user may drain the node of a daemon that runs as `own`.
fn is_trusted_user(user: u32, own: u32) -> bool {
    user == 0 || user == own
}

/// The state that a request changes.
#[derive(Clone)]
struct Control {
    /// The health, which knows whether the node is drained.
    sync_health: Arc<SyncHealth>,
    /// The metric of the drain.
    metrics: Metrics,
}

/// Serves the socket, and retries while another process has it. Does not return.
pub(super) async fn serve(sync_health: Arc<SyncHealth>, metrics: Metrics) -> Infallible {
    let control = Control {
        sync_health,
        metrics,
    };
    let mut failed = false;
    loop {
        match UnixListener::bind(SOCKET) {
            Ok(listener) => {
                if failed {
                    info!(event = %LogEvent::ControlListening, "the control socket is served");
                }
                failed = false;
                let error = accept(&listener, &control).await;
                warn!(event = %LogEvent::ControlListenFailed, %error, "cannot accept at the control socket; retrying");
            }
            Err(error) if !failed => {
                failed = true;
                warn!(event = %LogEvent::ControlListenFailed, %error, "cannot serve the control socket; retrying");
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

/// Answers each connection in a task of its own until an accept fails.
async fn accept(listener: &UnixListener, control: &Control) -> io::Error {
    let foreign = Arc::new(Semaphore::new(MAX_FOREIGN));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return error,
        };
        let Ok(peer) = stream.peer_cred() else {
            continue;
        };
        let permit = Arc::clone(&foreign).try_acquire_owned();
        if !is_trusted(peer) && permit.is_err() {
            continue;
        }
        let held = permit.ok().filter(|_| !is_trusted(peer));
        let answering = answer(stream, peer, control.clone());
        tokio::spawn(async move {
            let _held = held;
            // A peer that sends no request or reads no answer loses its connection.
            let _timed_out = timeout(TIMEOUT, answering).await;
        });
    }
}

/// Answers one request.
async fn answer(stream: UnixStream, peer: UCred, control: Control) {
    let service = service_fn(move |request| {
        let response = control.response(&request, peer);
        ready(Ok::<_, Infallible>(response))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // An error means that the peer is gone or speaks no HTTP.
    let _gone = served.await;
}

impl Control {
    /// Returns the answer to a request.
    fn response(&self, request: &Request<Incoming>, peer: UCred) -> HttpResponse {
        if !is_trusted(peer) {
            return text(StatusCode::FORBIDDEN, "only root can drain a node\n");
        }
        match (request.method(), request.uri().path()) {
            (&Method::PUT, DRAIN) => self.set_drained(true, peer),
            (&Method::DELETE, DRAIN) => self.set_drained(false, peer),
            _ => not_found(),
        }
    }

    /// Drains the node, or ends that.
    fn set_drained(&self, drained: bool, peer: UCred) -> HttpResponse {
        let changed = self.sync_health.set_drained(drained);
        self.metrics.node_drained.set(drained.into());
        let (user, process) = (peer.uid(), peer.pid());
        match (changed, drained) {
            (true, true) => info!(
                event = %LogEvent::NodeDrained, user, process,
                "the node is drained: load-balancer health checks answer 503"
            ),
            (true, false) => info!(
                event = %LogEvent::NodeUndrained, user, process,
                "the node is not drained any more"
            ),
            (false, _) => {}
        }
        json(StatusCode::OK, &DrainAnswer { drained, changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_user_of_the_daemon_are_trusted() {
        for (user, own, expected) in [
            (0, 0, true),
            (0, 1000, true),
            (1000, 1000, true),
            (1000, 0, false),
            (65_534, 0, false),
            (1001, 1000, false),
        ] {
            assert_eq!(is_trusted_user(user, own), expected, "{user} and {own}");
        }
    }
}
