//! The connections to the API servers: one for all requests, or one for each with HTTP/1.1.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use kube::client::Body;
use tokio::time::Instant;
use tower::{BoxError, Service};
use tracing::{debug, info, warn};

use super::connect::{Connector, HttpSender};
use super::servers::ServerList;
use super::tasks::ConnectionTasks;
use crate::logging::{ErrorChain, LogEvent};

/// The service that sends requests to the healthiest API server.
///
/// While the server of the open connection is healthy, every request goes there.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

/// The parts that all requests share.
struct Shared {
    /// The servers with their health.
    servers: Mutex<ServerList>,
    /// The open connections, locked while one of the requests connects.
    open: tokio::sync::Mutex<OpenConnections>,
    /// The tasks that drive the connections, also those to servers that were left.
    tasks: Mutex<HashMap<Uri, ConnectionTasks>>,
    /// The servers that were logged as unreachable and not connected since.
    unreachable: Mutex<BTreeSet<String>>,
    /// The server of the open connections, and the time of the first one to it in a row.
    followed: Mutex<Option<(Uri, Instant)>>,
}

/// The open connections, all to one server.
struct OpenConnections {
    /// The connector.
    connector: Connector,
    /// The server, if there was a connection.
    server: Option<Uri>,
    /// The HTTP/2 connection.
    http2: Option<http2::SendRequest<Body>>,
    /// The HTTP/1.1 connections without a request.
    idle: Vec<http1::SendRequest<Body>>,
    /// The time and the errors of the last round in which no server could be reached.
    failed: Option<(Instant, Arc<ConnectError>)>,
}

impl OpenConnections {
    /// Creates the connections of a connector, of which there are none yet.
    fn new(connector: Connector) -> Self {
        Self {
            connector,
            server: None,
            http2: None,
            idle: Vec::new(),
            failed: None,
        }
    }

    /// Uses the open connections for no other request. Requests in progress stay.
    fn leave(&mut self) {
        self.http2 = None;
        self.idle.clear();
    }

    /// Reads a renewed client certificate. Later requests use connections with the new one, since the
    /// API server rejects requests of an expired one.
    fn renew(&mut self) {
        match self.connector.renew() {
            Ok(false) => {}
            Ok(true) => {
                info!(event = %LogEvent::ClientCertificateRenewed, "client certificate changed; reconnecting");
                self.leave();
            }
            Err(error) => warn!(
                event = %LogEvent::ClientCertificateInvalid, error = %ErrorChain(&*error),
                "cannot use the changed client certificate; keeping the one before"
            ),
        }
    }

    /// Returns a connection that takes a request.
    fn sender(&mut self) -> Option<HttpSender> {
        if let Some(http2) = self.http2.as_ref().filter(|http2| !http2.is_closed()) {
            return Some(HttpSender::Http2(http2.clone()));
        }
        let mut idle = std::iter::from_fn(|| self.idle.pop());
        let ready = idle.find(|sender| sender.is_ready() && !sender.is_closed())?;
        Some(HttpSender::Http1(ready))
    }
}

/// The error after each server was tried.
#[derive(Debug)]
struct ConnectError(Vec<(Uri, BoxError)>);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there is no API server to connect to");
        }
        for (index, (server, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let error = ErrorChain(&**error);
            write!(f, "{separator}cannot connect to {server}: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {}

/// Returns whether a request was not sent, because no server could be reached.
pub(super) fn is_unsent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(error) if error.is::<Arc<ConnectError>>())
}

/// The server that a request went to: an extension of the request, which is set when it is sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Recipient(Arc<Mutex<Option<Uri>>>);

impl Recipient {
    /// Returns the server, or `None` if the request was not sent.
    pub(super) fn server(&self) -> Option<Uri> {
        lock(&self.0).clone()
    }
}

/// Locks a mutex that guards plain data, which a panic of another thread cannot leave half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// Creates the service. It connects with the first request.
    pub(super) fn new(connector: Connector, servers: Vec<Uri>) -> Self {
        Self(Arc::new(Shared {
            servers: Mutex::new(ServerList::new(servers)),
            open: OpenConnections::new(connector).into(),
            tasks: Mutex::default(),
            unreachable: Mutex::default(),
            followed: Mutex::default(),
        }))
    }

    /// Returns the server of the open connection, or of the last one.
    pub(super) fn followed(&self) -> Option<(Uri, Instant)> {
        lock(&self.0.followed).clone()
    }

    /// Returns the URLs of all servers, sorted.
    pub(super) fn urls(&self) -> Vec<String> {
        let servers = lock(&self.0.servers).by_health(Instant::now());
        let mut urls: Vec<_> = servers.iter().map(Uri::to_string).collect();
        urls.sort_unstable();
        urls
    }

    /// Returns the connector, while no request connects.
    pub(super) async fn connector(&self) -> tokio::sync::MappedMutexGuard<'_, Connector> {
        tokio::sync::MutexGuard::map(self.0.open.lock().await, |open| &mut open.connector)
    }

    /// Replaces the servers, and closes the connections to a server that is not one any more.
    pub(super) async fn replace(&self, servers: Vec<Uri>) {
        lock(&self.0.servers).replace(servers);
        let mut open = self.0.open.lock().await;
        let stays = |server: &Uri| lock(&self.0.servers).contains(server);
        if !open.server.as_ref().is_none_or(stays) {
            open.server = None;
            open.leave();
        }
        lock(&self.0.tasks).retain(|server, tasks| {
            let stays = stays(server);
            if !stays {
                tasks.abort();
            }
            stays
        });
    }

    /// Records a failure of a server, such as that it does not answer, or that its list is older than
    /// what was seen before.
    pub(super) fn failed(&self, server: &Uri) {
        lock(&self.0.servers).failed(server, Instant::now());
    }

    /// Sends a request, and once more if the connection closes before the server sees it.
    async fn send(self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let (server, mut sender) = self.sender().await?;
        let again = match self.send_to(&server, &mut sender, request).await {
            Ok(response) => return Ok(self.answered(server, sender, response)),
            Err((error, None)) => return Err(error),
            Err((error, Some(request))) => {
                debug!(%error, %server, "connection closed; retrying with another");
                request
            }
        };
        let (server, mut sender) = self.sender().await?;
        match self.send_to(&server, &mut sender, again).await {
            Ok(response) => Ok(self.answered(server, sender, response)),
            Err((error, _)) => Err(error),
        }
    }

    /// Sends a request on a connection. The error has the request if the server did not see it.
    async fn send_to(
        &self,
        server: &Uri,
        sender: &mut HttpSender,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, (BoxError, Option<Request<Body>>)> {
        if let Some(recipient) = request.extensions().get::<Recipient>() {
            *lock(&recipient.0) = Some(server.clone());
        }
        let request = addressed(request, server, sender).map_err(|error| (error.into(), None))?;
        sender.send(request).await.map_err(|mut error| {
            let request = error.take_message();
            // A server that closes a connection before a request may restart without a failure.
            if request.is_none() {
                self.failed(server);
            }
            (error.into_error().into(), request)
        })
    }

    /// Records the health of the server by its answer, and keeps the connection for later.
    fn answered(
        &self,
        server: Uri,
        sender: HttpSender,
        response: Response<Incoming>,
    ) -> Response<Incoming> {
        self.judge(&server, response.status());
        let is_rejected = response.status() == StatusCode::UNAUTHORIZED;
        // The certificate of a connection may have expired.
        if let HttpSender::Http1(mut sender) = sender
            && !is_rejected
        {
            let connections = self.clone();
            // The connection is idle when the body of the answer was read.
            tokio::spawn(async move {
                if sender.ready().await.is_ok() {
                    let mut open = connections.0.open.lock().await;
                    if open.server.as_ref() == Some(&server) {
                        open.idle.push(sender);
                    }
                }
            });
        }
        response
    }

    /// Records the health of a server by an answer: another one may give a better one.
    fn judge(&self, server: &Uri, status: StatusCode) {
        let (mut servers, now) = (lock(&self.0.servers), Instant::now());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => servers.forbade(server, now),
            busy if busy == StatusCode::TOO_MANY_REQUESTS || busy.is_server_error() => {
                servers.failed(server, now);
            }
            _ => servers.succeeded(server),
        }
    }

    /// Returns a connection to the healthiest server, and connects if there is none.
    ///
    /// One request connects at a time; the others then use its connection, or get its error.
    async fn sender(&self) -> Result<(Uri, HttpSender), BoxError> {
        let start = Instant::now();
        let mut open = self.0.open.lock().await;
        open.renew();
        if let Some(found) = self.reusable(&mut open) {
            return Ok(found);
        }
        if let Some((at, error)) = &open.failed
            && *at >= start
        {
            return Err(Arc::clone(error).into());
        }
        let servers = lock(&self.0.servers).by_health(start);
        let mut errors = Vec::new();
        for server in servers {
            if open.server.as_ref() == Some(&server)
                && let Some(sender) = open.sender()
            {
                return Ok((server, sender));
            }
            let tasks = lock(&self.0.tasks)
                .entry(server.clone())
                .or_default()
                .clone();
            match open.connector.connect(server.clone(), tasks.clone()).await {
                Ok((sender, driver)) => {
                    tasks.execute(self.clone().drive(server.clone(), driver));
                    self.opened(&mut open, &server, &sender);
                    return Ok((server, sender));
                }
                Err(error) => {
                    self.failed(&server);
                    self.report_unreachable(&server, &error);
                    errors.push((server, error));
                }
            }
        }
        // One text for one condition, whatever the order of the servers.
        errors.sort_by_key(|(server, _)| server.to_string());
        let error = Arc::new(ConnectError(errors));
        open.failed = Some((Instant::now(), Arc::clone(&error)));
        Err(error.into())
    }

    /// Returns an open connection, unless another server is healthier.
    fn reusable(&self, open: &mut OpenConnections) -> Option<(Uri, HttpSender)> {
        let server = open.server.clone()?;
        if lock(&self.0.servers).has_better(&server, Instant::now()) {
            return None;
        }
        Some((server, open.sender()?))
    }

    /// Keeps a new connection for later requests. Requests in progress at another server stay.
    fn opened(&self, open: &mut OpenConnections, server: &Uri, sender: &HttpSender) {
        lock(&self.0.unreachable).remove(&server.to_string());
        if open.server.as_ref() != Some(server) {
            info!(event = %LogEvent::ApiServerConnected, %server, "connected to the API server");
            *lock(&self.0.followed) = Some((server.clone(), Instant::now()));
            open.leave();
            open.server = Some(server.clone());
        }
        open.failed = None;
        open.http2 = match sender {
            HttpSender::Http2(sender) => Some(sender.clone()),
            HttpSender::Http1(_) => None,
        };
    }

    /// Logs once that a server cannot be reached, if there are others; a reader logs that none can.
    fn report_unreachable(&self, server: &Uri, error: &BoxError) {
        let has_others = lock(&self.0.servers).by_health(Instant::now()).len() > 1;
        if has_others && lock(&self.0.unreachable).insert(server.to_string()) {
            warn!(
                event = %LogEvent::ApiServerUnreachable,
                error = %ErrorChain(&**error), %server,
                "cannot connect to an API server; trying the others"
            );
        }
    }

    /// Drives a connection to its end. A connection that breaks is a failure of its server; one that
    /// the server closes is not.
    async fn drive(self, server: Uri, driver: impl Future<Output = hyper::Result<()>>) {
        if let Err(error) = driver.await {
            debug!(%error, %server, "connection to the API server broke");
            self.failed(&server);
        }
    }
}

/// Adds the address of the server to the path of a request.
fn addressed(
    request: Request<Body>,
    server: &Uri,
    sender: &HttpSender,
) -> http::Result<Request<Body>> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let base = server.path().trim_end_matches('/');
    let target = format!("{base}{path}");
    match sender {
        HttpSender::Http2(_) => {
            let mut parts = server.clone().into_parts();
            parts.path_and_query = Some(target.parse()?);
            head.uri = Uri::from_parts(parts)?;
        }
        HttpSender::Http1(_) => {
            head.uri = target.parse()?;
            if let Some(authority) = server.authority() {
                head.headers
                    .insert(header::HOST, authority.as_str().parse()?);
            }
        }
    }
    Ok(Request::from_parts(head, body))
}

impl Service<Request<Body>> for Connections {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
