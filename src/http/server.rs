//! The HTTP server that all ports share.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::failed::FailedListeners;
use super::listen::{Listeners, listen, listen_everywhere};
use super::slots::{ConnectionSlot, ConnectionSlots, peer};
use crate::relay::{RelayProblems, lacks_resources};

/// The time in which a request must arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The time in which the peer must have received the answer to its request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The maximum length of the body of a request, in bytes.
const MAX_BODY: usize = 64;

/// A response with its whole body.
pub(crate) type HttpResponse = Response<Full<Bytes>>;

/// The state that all ports share.
#[derive(Clone, Debug)]
pub struct Server {
    /// The slots of all connections.
    slots: Arc<ConnectionSlots>,
    /// The runtime that serves this node and nothing else, so that no other request delays a probe.
    own: Handle,
    /// The ports that cannot be served.
    pub(super) failed: FailedListeners,
}

impl Server {
    /// Builds a server without connections; the runtime `own` serves the requests of this node. It
    /// reports the problems of the relay with its own.
    #[must_use]
    pub fn new(own: Handle, relay: RelayProblems) -> Self {
        let slots = ConnectionSlots::new();
        Self {
            slots,
            own,
            failed: FailedListeners::new(relay),
        }
    }

    /// Listens at an address of this node, of its own family only.
    pub(super) fn listen(&self, at: SocketAddr) -> io::Result<Listeners> {
        listen(at, &self.own)
    }

    /// Listens at an address; `0.0.0.0` means both families.
    pub(super) fn listen_everywhere(&self, at: SocketAddr) -> io::Result<Listeners> {
        listen_everywhere(at, &self.own)
    }

    /// Serves requests until the task is aborted; `answer` gets the address of the peer.
    pub(super) async fn serve<A, R>(&self, listeners: Listeners, answer: A)
    where
        A: Fn(SocketAddr, Request<Bytes>) -> R + Clone + Send + 'static,
        R: Future<Output = HttpResponse> + Send + 'static,
    {
        let Listeners { own, other } = listeners;
        // The set aborts its tasks when this future is dropped.
        let mut own_tasks = JoinSet::new();
        if let Some(own) = own {
            let accepting = accept(own, Arc::clone(&self.slots), answer.clone());
            own_tasks.spawn_on(accepting, &self.own);
        }
        accept(other, Arc::clone(&self.slots), answer).await;
    }
}

/// Accepts connections without waiting for any peer: if all slots are in use, the oldest idle
/// connection is closed.
async fn accept<A, R>(listener: TcpListener, slots: Arc<ConnectionSlots>, answer: A)
where
    A: Fn(SocketAddr, Request<Bytes>) -> R + Clone + Send + 'static,
    R: Future<Output = HttpResponse> + Send + 'static,
{
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if lacks_resources(&error) && slots.close_oldest().is_ok() {
                    yield_now().await;
                } else {
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        // A connection that is closed already has no address.
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        let slot = slots.take(peer(remote, local));
        let has_closed_other = slot.has_closed_other;
        tokio::spawn(serve_connection(stream, remote, slot, answer.clone()));
        if has_closed_other {
            // The other connection is closed before the next one is accepted.
            yield_now().await;
        }
    }
}

/// Serves one request; closes the connection of a peer whose request is invalid or too slow.
async fn serve_connection<A, R>(
    stream: TcpStream,
    remote: SocketAddr,
    slot: ConnectionSlot,
    answer: A,
) where
    A: Fn(SocketAddr, Request<Bytes>) -> R + Clone + Send + 'static,
    R: Future<Output = HttpResponse> + Send + 'static,
{
    let ConnectionSlot { holder, closed, .. } = slot;
    let service_holder = Arc::clone(&holder);
    let service = service_fn(move |request| {
        let (answer, holder) = (answer.clone(), Arc::clone(&service_holder));
        async move {
            let response = match collect_body(request).await {
                Some(request) => {
                    holder.request_arrived();
                    answer(remote, request).await
                }
                None => payload_too_large(),
            };
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let serving = async {
        let served = timeout(REQUEST_TIMEOUT, connection.as_mut()).await;
        if served.is_err() && holder.has_request() {
            let _timed_out = timeout(ANSWER_TIMEOUT, connection).await;
        }
    };
    tokio::select! {
        () = serving => {}
        _ = closed => {}
    }
}

/// Reads the body of a request; `None` if it is too long or breaks off.
async fn collect_body(request: Request<Incoming>) -> Option<Request<Bytes>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.ok()?;
    Some(Request::from_parts(head, body.to_bytes()))
}

/// Builds the answer 413.
fn payload_too_large() -> HttpResponse {
    let mut response = HttpResponse::default();
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    response
}
