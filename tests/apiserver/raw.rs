//! A client without any policy: the requests of a test, exactly as the test writes them.

use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, crypto::ring};

use super::server::Server;

/// A client that remembers TLS sessions.
pub(crate) struct Raw {
    config: Arc<ClientConfig>,
}

/// An open connection.
pub(crate) struct RawConnection {
    sender: Sender,
    authority: String,
    token: String,
    pub(crate) is_resumed: bool,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// An answer with its body.
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

impl Raw {
    /// Builds a client that trusts the authority of `server` and offers these protocols in ALPN.
    pub(crate) fn new(server: &Server, protocols: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = server.authority().certificate();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
        roots.add(certificate.expect("PEM")).expect("a CA");
        let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        Self {
            config: Arc::new(config),
        }
    }

    /// Connects to `server`, which may be another one of the same authority.
    pub(crate) async fn connect(&self, server: &Server) -> RawConnection {
        let address = server.address();
        let tcp = TcpStream::connect(address).await.expect("a server");
        let name = ServerName::from(address.ip());
        let tls = TlsConnector::from(Arc::clone(&self.config));
        let tls = tls.connect(name, tcp).await.expect("TLS");
        let (_, session) = tls.get_ref();
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let io = TokioIo::new(tls);
        let sender = if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .expect("HTTP/2");
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        RawConnection {
            sender,
            authority: address.to_string(),
            token: server.token(),
            is_resumed,
        }
    }
}

impl RawConnection {
    /// Sends a GET request; the body of the answer may never end.
    pub(crate) async fn open(
        &mut self,
        path: &str,
        accept: &str,
    ) -> hyper::Result<Response<Incoming>> {
        let is_http2 = matches!(self.sender, Sender::Http2(_));
        let uri = if is_http2 {
            format!("https://{}{path}", self.authority)
        } else {
            path.to_owned()
        };
        let request = Request::get(uri)
            .header("host", &self.authority)
            .header("authorization", format!("Bearer {}", self.token))
            .header("accept", accept)
            .body(Empty::new())
            .expect("a request");
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }

    /// Sends a GET request and reads the whole answer.
    pub(crate) async fn get(&mut self, path: &str, accept: &str) -> RawAnswer {
        let response = self.open(path, accept).await.expect("an answer");
        let (head, body) = response.into_parts();
        let content_type = head.headers.get("content-type");
        let content_type = content_type.and_then(|value| value.to_str().ok());
        RawAnswer {
            status: head.status.as_u16(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }
}
