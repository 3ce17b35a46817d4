//! The connections of the server: HTTP/2 or HTTP/1.1 over TLS, as the client offers.

use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::server::TlsStream;

use super::answer::answer;
use super::line::Line;
use super::shared::Shared;
use super::tls::{HTTP2, ServerTls};

/// Accepts connections until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, mut tls: ServerTls, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    let mut last_life = shared.lives();
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            continue;
        };
        let life = shared.lives();
        if life != last_life {
            last_life = life;
            tls = tls.without_sessions();
        }
        let acceptor = TlsAcceptor::from(tls.config(shared.look().only_http1));
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = shared.until_dead(life) => {}
                () = connection(tcp, acceptor, Arc::clone(&shared)) => {}
            }
        });
    }
}

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    tcp.set_nodelay(true).ok();
    let line = Line::new(tcp, Arc::clone(&shared));
    let Ok(tls) = acceptor.accept(line).await else {
        return;
    };
    let (_, session) = tls.get_ref();
    let is_http2 = session.alpn_protocol() == Some(HTTP2);
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let _open = OpenConnection::new(&shared, is_http2, is_resumed);
    if is_http2 {
        speak_http2(tls, &shared).await;
    } else {
        speak_http1(tls, &shared).await;
    }
}

async fn speak_http1(tls: TlsStream<Line>, shared: &Arc<Shared>) {
    let has_certificate = tls.get_ref().1.peer_certificates().is_some();
    let service = service_fn(|request| answer(Arc::clone(shared), request, has_certificate));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(tls), service);
    connection.await.ok();
}

async fn speak_http2(tls: TlsStream<Line>, shared: &Arc<Shared>) {
    let has_certificate = tls.get_ref().1.peer_certificates().is_some();
    let answering = Arc::clone(shared);
    let service =
        service_fn(move |request| answer(Arc::clone(&answering), request, has_certificate));
    let executor = TokioExecutor::new();
    let connection = http2::Builder::new(executor).serve_connection(TokioIo::new(tls), service);
    let mut connection = pin!(connection);
    let go_aways = shared.look().go_aways;
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shared.until_ordered(|state| state.go_aways > go_aways) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.ok();
}

/// Counts a connection as open until it is dropped.
struct OpenConnection<'a>(&'a Shared);

impl<'a> OpenConnection<'a> {
    fn new(shared: &'a Shared, is_http2: bool, is_resumed: bool) -> Self {
        shared.note(|state| {
            state.connections.accepted += 1;
            state.connections.open += 1;
            state.connections.http2 += usize::from(is_http2);
            state.connections.resumed += usize::from(is_resumed);
        });
        Self(shared)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.note(|state| state.connections.open -= 1);
    }
}
