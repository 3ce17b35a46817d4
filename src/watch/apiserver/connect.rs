//! The start of a connection to an API server: TCP, TLS, and the HTTP version that both have.

use std::time::Duration;

use futures::future::Either;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioTimer;
use kube::Config;
use kube::client::{Body, ConfigExt};
use tokio::time::timeout;
use tower::{BoxError, Service};

use super::credentials::CertificateFiles;
use super::tasks::ConnectionTasks;

/// The timeout of a TCP connection; the TLS handshake may take as long again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The silence of an HTTP/2 connection after which the client sends a ping.
const PING_AFTER: Duration = Duration::from_secs(15);

/// The time in which the server must answer a ping. A silent connection is closed after 25 s;
/// kube-proxy closes it after 45 s (`k8s.io/apimachinery/pkg/util/net/http.go`).
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The idle time before the first keep-alive probe of TCP, for HTTP/1.1, which has no pings.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// The time between two keep-alive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The number of keep-alive probes without an answer after which the connection is dead.
const KEEPALIVE_RETRIES: u32 = 2;

/// The bytes of one watch that the server sends before they are read. A watch may be slow while the
/// kernel is programmed.
const STREAM_WINDOW: u32 = 1 << 20;

/// The bytes of all watches that the server sends before they are read: more than those of every
/// watch together, so that a slow watch does not stop the others.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The HTTP versions that kube-dnat offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersions {
    /// HTTP/2, and HTTP/1.1 for a server or a proxy that does not have it.
    #[default]
    Http2First,
    /// HTTP/1.1 alone.
    Http1Only,
}

/// The connector to any server of the cluster, with the TLS settings of the kubeconfig.
///
/// It keeps the TLS sessions, so that a new connection to a known server resumes one, until the
/// client certificate is renewed.
pub(super) struct Connector {
    /// The settings of the kubeconfig.
    config: Config,
    /// The offered HTTP versions.
    versions: HttpVersions,
    /// The files that the TLS settings come from.
    files: CertificateFiles,
    /// The connector with the TLS settings.
    pub(super) https: HttpsConnector<HttpConnector>,
}

impl Connector {
    /// Creates the connector.
    pub(super) fn new(config: Config, versions: HttpVersions) -> Result<Self, BoxError> {
        let files = CertificateFiles::of(&config);
        let https = https(&config, versions)?;
        Ok(Self {
            config,
            versions,
            files,
            https,
        })
    }

    /// Reads a renewed client certificate; returns whether later connections use another one.
    ///
    /// # Errors
    /// If the certificate or key is invalid, as while only one of them is renewed. The ones before
    /// stay in use.
    pub(super) fn renew(&mut self) -> Result<bool, BoxError> {
        if !self.files.have_changed() {
            return Ok(false);
        }
        self.https = https(&self.config, self.versions)?;
        Ok(true)
    }

    /// Connects to a server. Also returns the future that drives the connection until its end.
    pub(super) async fn connect(
        &mut self,
        server: Uri,
        tasks: ConnectionTasks,
    ) -> Result<
        (
            HttpSender,
            impl Future<Output = hyper::Result<()>> + Send + use<>,
        ),
        BoxError,
    > {
        let connecting = timeout(CONNECT_TIMEOUT * 2, self.https.call(server));
        let stream = connecting.await.map_err(|_elapsed| "timed out")??;
        if stream.connected().is_negotiated_h2() {
            let (sender, driver) = http2::Builder::new(tasks)
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_AFTER)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .handshake(stream)
                .await?;
            return Ok((HttpSender::Http2(sender), Either::Left(driver)));
        }
        let (sender, driver) = http1::handshake(stream).await?;
        Ok((HttpSender::Http1(sender), Either::Right(driver)))
    }
}

/// Builds the connector with the TLS settings, whose files it reads.
fn https(
    config: &Config,
    versions: HttpVersions,
) -> Result<HttpsConnector<HttpConnector>, BoxError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    // Keep-alive does not probe while a request is unacknowledged by the peer's TCP.
    tcp.set_tcp_user_timeout(Some(
        KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_RETRIES,
    ));
    let mut builder = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = FixedServerNameResolver::new(name.clone().try_into()?);
        builder = builder.with_server_name_resolver(name);
    }
    let builder = builder.enable_http1();
    Ok(match versions {
        HttpVersions::Http2First => builder.enable_http2().wrap_connector(tcp),
        HttpVersions::Http1Only => builder.wrap_connector(tcp),
    })
}

/// The sender of requests on a connection.
pub(super) enum HttpSender {
    /// A connection for any number of requests at a time.
    Http2(http2::SendRequest<Body>),
    /// A connection for one request at a time.
    Http1(http1::SendRequest<Body>),
}

impl HttpSender {
    /// Sends a request, whose URL has the server's scheme and authority.
    ///
    /// # Errors
    /// The error, with the request if the server cannot have seen it.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        match self {
            Self::Http2(sender) => sender.try_send_request(request).await,
            Self::Http1(sender) => sender.try_send_request(request).await,
        }
    }
}
