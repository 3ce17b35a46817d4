//! What listens, and whatever it answers.

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
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::failed::FailedListeners;
use super::listen::{Listeners, listen, listen_everywhere};
use super::slots::{ConnectionSlot, ConnectionSlots, is_own};

/// How long a request may take to arrive, and after that its answer to be made and taken.
const ARRIVES: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait when nothing can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a request's body.
const BODY: usize = 64;

/// What is answered.
pub(crate) type HttpResponse = Response<Full<Bytes>>;

/// What all our ports share.
#[derive(Clone, Debug)]
pub struct Server {
    slots: Arc<ConnectionSlots>,
    /// The runtime that answers this node: it does nothing else, so that a probe waits for nobody.
    own: Handle,
    pub(super) failed: FailedListeners,
}

impl Server {
    /// Nobody is connected. What this node asks is answered by the runtime `own`.
    #[must_use]
    pub fn new(own: Handle) -> Self {
        let slots = ConnectionSlots::new();
        Self {
            slots,
            own,
            failed: FailedListeners::default(),
        }
    }

    /// Listens at an address of this node, of its own family only.
    pub(super) fn listen(&self, at: SocketAddr) -> io::Result<Listeners> {
        listen(at, &self.own)
    }

    /// Listens at an address; at `0.0.0.0` in both families.
    pub(super) fn listen_everywhere(&self, at: SocketAddr) -> io::Result<Listeners> {
        listen_everywhere(at, &self.own)
    }

    /// Answers whatever is asked, until the task is aborted. Who asks is told by its address.
    pub(super) async fn serve<A, R>(&self, listeners: Listeners, answer: A)
    where
        A: Fn(SocketAddr, Request<Bytes>) -> R + Clone + Send + 'static,
        R: Future<Output = HttpResponse> + Send + 'static,
    {
        let Listeners { own, others } = listeners;
        // It ends with this future.
        let mut own_tasks = JoinSet::new();
        if let Some(own) = own {
            let accepting = accept(own, Arc::clone(&self.slots), answer.clone());
            own_tasks.spawn_on(accepting, &self.own);
        }
        accept(others, Arc::clone(&self.slots), answer).await;
    }
}

/// Accepts connections as they come, and never waits for one peer: when too many are held the longest
/// idle gives way.
async fn accept<A, R>(listener: TcpListener, slots: Arc<ConnectionSlots>, answer: A)
where
    A: Fn(SocketAddr, Request<Bytes>) -> R + Clone + Send + 'static,
    R: Future<Output = HttpResponse> + Send + 'static,
{
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if lacks_resources(&error) && slots.close_one() {
                    yield_now().await;
                } else {
                    sleep(PAUSE).await;
                }
                continue;
            }
        };
        // One that is closed already has no address, and asks nothing.
        let Ok(at) = stream.local_addr() else {
            continue;
        };
        let (slot, crowded) = slots.take(is_own(from, at));
        tokio::spawn(converse(stream, from, slot, answer.clone()));
        if crowded {
            // The one that gives way is closed before the next is accepted.
            yield_now().await;
        }
    }
}

/// Whether there are no more file descriptors, or no memory for one.
fn lacks_resources(error: &io::Error) -> bool {
    let lacks = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|error| lacks.contains(&Errno::from_raw(error)))
}

/// Answers one request. A peer that asks wrongly, slowly or not at all gets no answer.
async fn converse<A, R>(stream: TcpStream, from: SocketAddr, slot: ConnectionSlot, answer: A)
where
    A: Fn(SocketAddr, Request<Bytes>) -> R + Clone + Send + 'static,
    R: Future<Output = HttpResponse> + Send + 'static,
{
    let ConnectionSlot { holder, closed } = slot;
    let asking = Arc::clone(&holder);
    let service = service_fn(move |request| {
        let (answer, asking) = (answer.clone(), Arc::clone(&asking));
        async move {
            let answered = match whole(request).await {
                Some(request) => {
                    asking.asks();
                    answer(from, request).await
                }
                None => too_long(),
            };
            Ok::<_, Infallible>(answered)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let conversation = async {
        let ended = timeout(ARRIVES, connection.as_mut()).await;
        if ended.is_err() && holder.has_asked() {
            let _answered = timeout(PATIENCE, connection).await;
        }
    };
    tokio::select! {
        () = conversation => {}
        _ = closed => {}
    }
}

/// The request with its body; `None`: it is too long or breaks off.
async fn whole(request: Request<Incoming>) -> Option<Request<Bytes>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY).collect().await.ok()?;
    Some(Request::from_parts(head, body.to_bytes()))
}

fn too_long() -> HttpResponse {
    let mut answer = HttpResponse::default();
    *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    answer
}
