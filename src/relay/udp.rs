//! The UDP flows of the relay: one socket for each client of a node port.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{Instant, sleep, timeout};

use super::sockets::{SocketFailures, lacks_resources};
use super::target::Target;
use crate::metrics::{Metrics, ProtocolLabel, RefusalLabel};
use crate::planner::model::Protocol;

/// The number of flows over all node ports. A further flow ends the one that is idle longest.
const MAX_FLOWS: usize = 1024;

/// The time without a datagram after which a flow ends.
const IDLE: Duration = Duration::from_mins(1);

/// The number of datagrams after which a task lets others run.
const BURST: usize = 64;

/// The pause after an error of the listener.
const PAUSE: Duration = Duration::from_millis(100);

thread_local! {
    /// The datagram in transit. The relay has one thread.
    static DATAGRAM: RefCell<Box<[u8]>> = RefCell::new(vec![0; 65_536].into());
}

/// The address of the node port, and the address of the client.
type FlowKey = (SocketAddr, SocketAddr);

/// The flows of all node ports. Clones share them.
#[derive(Clone)]
pub(super) struct Flows {
    open: Arc<Mutex<BTreeMap<FlowKey, OpenFlow>>>,
    metrics: Metrics,
    failures: SocketFailures,
}

/// A flow and its task, which ends with it.
struct OpenFlow {
    flow: Arc<Flow>,
    task: AbortHandle,
}

/// One client's socket to an endpoint.
struct Flow {
    socket: UdpSocket,
    endpoint: SocketAddr,
    /// When the last datagram passed, in either direction.
    used: Mutex<Instant>,
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds a node port at an address of localhost.
///
/// # Errors
/// If the port is in use, also at the unspecified address.
pub(super) fn bind(at: SocketAddr) -> io::Result<Arc<UdpSocket>> {
    open(at).and_then(UdpSocket::from_std).map(Arc::new)
}

/// Opens a socket that does not block.
fn open(at: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Forwards datagrams of clients until the task is aborted.
pub(super) async fn forward(
    listener: Arc<UdpSocket>,
    at: SocketAddr,
    target: Arc<Target>,
    flows: Flows,
) {
    loop {
        if listener.readable().await.is_err() {
            sleep(PAUSE).await;
        }
        for _ in 0..BURST {
            let received = DATAGRAM.with_borrow_mut(|datagram| {
                let (length, client) = listener.try_recv_from(datagram)?;
                let datagram = datagram.get(..length).unwrap_or_default();
                flows.send((at, client), datagram, &target, &listener);
                Ok::<_, io::Error>(())
            });
            if received.is_err() {
                break;
            }
        }
        yield_now().await;
    }
}

impl Flows {
    /// Creates no flows.
    pub(super) fn new(metrics: Metrics, failures: SocketFailures) -> Self {
        Self {
            open: Arc::default(),
            metrics,
            failures,
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<FlowKey, OpenFlow>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the flows of a node port whose endpoint is gone: the client's next datagram goes to another.
    pub(super) fn retain(&self, at: SocketAddr, has: impl Fn(SocketAddr) -> bool) {
        self.open()
            .retain(|(of, _), open| *of != at || has(open.flow.endpoint));
        self.count();
    }

    /// Sends a datagram of a client, in a new flow if it has none.
    fn send(&self, key: FlowKey, datagram: &[u8], target: &Arc<Target>, listener: &Arc<UdpSocket>) {
        let known = self.open().get(&key).map(|open| Arc::clone(&open.flow));
        if let Some(flow) = known {
            match flow.send(datagram) {
                Ok(()) => return,
                // The endpoint rejected an earlier datagram.
                Err(_) => self.end(key, &flow),
            }
        }
        let sent = match target.choose(Instant::now(), &[]) {
            Some(endpoint) => self
                .start(key, endpoint, listener)
                .and_then(|flow| flow.send(datagram)),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = sent {
            let why = if lacks_resources(&error) {
                RefusalLabel::limit(Protocol::Udp)
            } else {
                RefusalLabel::no_endpoint(Protocol::Udp)
            };
            self.metrics.localhost_refused.get_or_create(&why).inc();
        }
    }

    /// Starts a flow, in place of the one that is idle longest if there are too many.
    fn start(
        &self,
        key: FlowKey,
        endpoint: SocketAddr,
        listener: &Arc<UdpSocket>,
    ) -> io::Result<Arc<Flow>> {
        if self.open().len() >= MAX_FLOWS {
            self.end_idlest();
        }
        let from = match endpoint {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket =
            open(from).inspect_err(|error| self.failures.report(Protocol::Udp, key.0, error))?;
        socket.connect(endpoint)?;
        let flow = Arc::new(Flow {
            socket: UdpSocket::from_std(socket)?,
            endpoint,
            used: Mutex::new(Instant::now()),
        });
        let answering = answer(key, Arc::clone(&flow), Arc::clone(listener), self.clone());
        let open = OpenFlow {
            flow: Arc::clone(&flow),
            task: tokio::spawn(answering).abort_handle(),
        };
        self.open().insert(key, open);
        let label = ProtocolLabel::new(Protocol::Udp);
        self.metrics
            .localhost_connections
            .get_or_create(&label)
            .inc();
        self.count();
        Ok(flow)
    }

    /// Ends the flow that is idle longest.
    fn end_idlest(&self) {
        let mut open = self.open();
        let idlest = open.iter().min_by_key(|(_, open)| open.flow.used());
        if let Some(key) = idlest.map(|(key, _)| *key) {
            open.remove(&key);
            let why = RefusalLabel::limit(Protocol::Udp);
            self.metrics.localhost_refused.get_or_create(&why).inc();
        }
    }

    /// Ends a flow, unless another one has taken its place.
    fn end(&self, key: FlowKey, flow: &Arc<Flow>) {
        let mut open = self.open();
        let is_same = |open: &OpenFlow| Arc::ptr_eq(&open.flow, flow);
        if open.get(&key).is_some_and(is_same) {
            open.remove(&key);
        }
        drop(open);
        self.count();
    }

    /// Sets the metric of open flows.
    fn count(&self) {
        let label = ProtocolLabel::new(Protocol::Udp);
        let count = i64::try_from(self.open().len()).unwrap_or(i64::MAX);
        self.metrics
            .localhost_active
            .get_or_create(&label)
            .set(count);
    }
}

impl Flow {
    /// Sends a datagram to the endpoint. One that finds the kernel's buffer full is lost, as in the
    /// network.
    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.use_now();
        // tokio does not know yet that a new socket is writable.
        match send(self.socket.as_raw_fd(), datagram, MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn use_now(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Sends the answers of an endpoint to the client until the flow is idle or fails.
async fn answer((at, client): FlowKey, flow: Arc<Flow>, listener: Arc<UdpSocket>, flows: Flows) {
    loop {
        let idle = flow.used().elapsed();
        if idle >= IDLE {
            break;
        }
        let readable = timeout(IDLE.saturating_sub(idle), flow.socket.readable()).await;
        match readable {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break,
            Err(_elapsed) => continue,
        }
        let received = DATAGRAM.with_borrow_mut(|datagram| {
            let length = flow.socket.try_recv(datagram)?;
            // A client that is gone gets nothing.
            let _lost = listener.try_send_to(datagram.get(..length).unwrap_or_default(), client);
            Ok::<_, io::Error>(())
        });
        match received {
            Ok(()) => flow.use_now(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        yield_now().await;
    }
    flows.end((at, client), &flow);
}
