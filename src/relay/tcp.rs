//! The TCP connections of the relay.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{KeepAlive, TcpKeepCount, TcpKeepIdle, TcpKeepInterval};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::sockets::{SocketFailures, lacks_resources};
use super::target::Target;
use crate::metrics::{Metrics, ProtocolLabel, RefusalLabel};
use crate::planner::model::Protocol;

/// The number of connections over all node ports. Each has two sockets.
pub(super) const MAX_CONNECTIONS: usize = 1024;

/// The bytes that a connection buffers in each direction, besides the kernel.
const BUFFER: usize = 32 * 1024;

/// The length of an accept queue.
const BACKLOG: u32 = 1024;

/// The time in which an endpoint must accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of endpoints that are tried for one client.
const ATTEMPTS: usize = 3;

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The seconds without data after which the other end is probed, and those between two probes.
const KEEP_ALIVE: [u32; 2] = [60, 15];

/// The probes without an answer that end a connection.
const KEEP_ALIVE_PROBES: u32 = 4;

/// Listens at an address of localhost.
///
/// # Errors
/// If the port is in use, also at the unspecified address.
pub(super) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = match at {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of the previous process may linger after a restart.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// What the connections of a node port share.
#[derive(Clone)]
pub(super) struct Clients {
    /// The endpoints.
    pub(super) target: Arc<Target>,
    /// The slots of the connections of all node ports.
    pub(super) slots: Arc<Semaphore>,
    pub(super) failures: SocketFailures,
    pub(super) metrics: Metrics,
}

impl Clients {
    /// Accepts clients until the task is aborted. Their connections go on after that.
    pub(super) async fn accept(self, listener: TcpListener, at: SocketAddr) {
        loop {
            let client = match listener.accept().await {
                Ok((client, _)) => client,
                // The client gave up.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    self.failures.report(Protocol::Tcp, at, &error);
                    // The client is still in the queue.
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                refuse(&client, &RefusalLabel::limit(Protocol::Tcp), &self.metrics);
                continue;
            };
            let clients = self.clone();
            tokio::spawn(async move {
                let _slot = slot;
                match clients.connect(at).await {
                    Ok(endpoint) => relay(client, endpoint, &clients.metrics).await,
                    Err(why) => refuse(&client, &why, &clients.metrics),
                }
            });
        }
    }

    /// Connects to an endpoint, to another one if it does not accept.
    async fn connect(&self, at: SocketAddr) -> Result<TcpStream, RefusalLabel> {
        let mut tried = Vec::new();
        while tried.len() < ATTEMPTS {
            let Some(endpoint) = self.target.choose(Instant::now(), &tried) else {
                break;
            };
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) if lacks_resources(&error) => {
                    self.failures.report(Protocol::Tcp, at, &error);
                    return Err(RefusalLabel::limit(Protocol::Tcp));
                }
                Ok(Err(_)) | Err(_) => tried.push(endpoint),
            }
        }
        Err(RefusalLabel::no_endpoint(Protocol::Tcp))
    }
}

/// Resets the connection of a client when it is dropped.
fn refuse(client: &TcpStream, why: &RefusalLabel, metrics: &Metrics) {
    metrics.localhost_refused.get_or_create(why).inc();
    reset(client);
}

/// Makes the drop of a connection reset it: the other end must not take a failure for the end of the
/// data.
fn reset(stream: &TcpStream) {
    // Without the option, the peer sees the end of the data.
    let _unset = stream.set_zero_linger();
}

/// Copies both directions until both ends have sent all. Each end sees when the other has.
async fn relay(mut client: TcpStream, mut endpoint: TcpStream, metrics: &Metrics) {
    let label = ProtocolLabel::new(Protocol::Tcp);
    metrics.localhost_connections.get_or_create(&label).inc();
    metrics.localhost_active.get_or_create(&label).inc();
    for stream in [&client, &endpoint] {
        // A connection without these options works too.
        let _unset = stream.set_nodelay(true).and_then(|()| keep_alive(stream));
    }
    let copied = copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER).await;
    if copied.is_err() {
        reset(&client);
        reset(&endpoint);
    }
    metrics.localhost_active.get_or_create(&label).dec();
}

/// Ends a connection whose other end has vanished, which sends no more packets.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let [idle, interval] = KEEP_ALIVE;
    setsockopt(stream, KeepAlive, &true)?;
    setsockopt(stream, TcpKeepIdle, &idle)?;
    setsockopt(stream, TcpKeepInterval, &interval)?;
    setsockopt(stream, TcpKeepCount, &KEEP_ALIVE_PROBES)?;
    Ok(())
}
