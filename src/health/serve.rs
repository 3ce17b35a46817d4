//! A listener, and whatever it answers.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv6V6Only;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How many may ask at once, and how long one may take to.
const CONNECTIONS: usize = 128;
const PATIENCE: Duration = Duration::from_secs(5);

/// What is answered.
pub type Answer = Response<Full<Bytes>>;

/// Listens at an address of this node, of its own family only.
///
/// # Errors
/// If the port cannot be had.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    open(at, true)
}

/// Listens at an address; at `0.0.0.0` in both families, as Go's `net.Listen` does, and so
/// kube-proxy.
///
/// # Errors
/// If the port cannot be had.
pub fn listen_everywhere(at: SocketAddr) -> io::Result<TcpListener> {
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
    socket.listen(128)
}

/// Answers whatever is asked, until the task is aborted. Who asks is told by its address.
pub async fn serve<A, R>(listener: TcpListener, answer: A)
where
    A: Fn(SocketAddr, Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let Ok((stream, from)) = listener.accept().await else {
            // Out of file descriptors, say: it passes.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answered = answer(from, request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Who asks wrongly, slowly or not at all gets no answer; there is no more to it.
            let _ended = timeout(PATIENCE, connection).await;
            drop(permit);
        });
    }
}
