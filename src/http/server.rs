//! A listener, and whatever it answers.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
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
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv6V6Only;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::slots::{ConnectionSlot, ConnectionSlots, is_own};

/// How long a request may take to arrive, and after that its answer to be made and taken.
const ARRIVES: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait when nothing can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a request's body.
const BODY: usize = 64;

/// How many connections the kernel keeps until they are accepted. It drops what goes beyond, and a
/// probe whose SYN is dropped comes again only after a second. `net.core.somaxconn` is the most.
const BACKLOG: u32 = 4096;

/// What is answered.
pub(crate) type HttpResponse = Response<Full<Bytes>>;

/// Listens at an address of this node, of its own family only.
///
/// # Errors
/// If the port cannot be had.
pub(crate) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    open(at, true)
}

/// Listens at an address; at `0.0.0.0` in both families, as Go's `net.Listen` does, and so
/// kube-proxy.
///
/// # Errors
/// If the port cannot be had.
pub(crate) fn listen_everywhere(at: SocketAddr) -> io::Result<TcpListener> {
    if !at.ip().is_unspecified() {
        return open(at, true);
    }
    let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), at.port());
    match open(everywhere, false) {
        // No IPv6 here.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse && at.is_ipv4() => open(at, true),
        result => result,
    }
}

fn open(at: SocketAddr, of_own_family: bool) -> io::Result<TcpListener> {
    let socket = match at {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            setsockopt(&socket, Ipv6V6Only, &of_own_family)?;
            socket
        }
    };
    // After a restart, connections of the last process may still linger.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Answers whatever is asked, until the task is aborted. Who asks is told by its address.
///
/// It never waits for one peer: connections are accepted as they come, and when too many are held the
/// longest idle gives way.
pub(crate) async fn serve<A, R>(listener: TcpListener, slots: Arc<ConnectionSlots>, answer: A)
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
