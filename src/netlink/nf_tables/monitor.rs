//! Notifications of nf_tables about changes that other processes make to our tables.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::netlink::socket::attribute::NetlinkMessage;
use crate::netlink::socket::{Delivery, open_socket, receive_queued};
use crate::netlink::uapi::GROUP_NFTABLES;
use crate::netlink::uapi::nf_tables::{
    NFT_MSG_DELSETELEM, NFT_MSG_NEWGEN, NFT_MSG_NEWSETELEM, NFTA_GEN_PROC_NAME, NFTA_GEN_PROC_PID,
    NFTA_SET_ELEM_LIST_SET, NFTA_TABLE,
};
use crate::netlink::{Error, ffi};
use crate::planner::ruleset::TABLE;

/// The bytes of notifications that can be queued: those of a deleted table with some 10,000
/// elements.
const QUEUE: usize = 8 * 1024 * 1024;

/// The bytes of the buffer for one datagram, which the kernel makes of a page or two.
const BUFFER: usize = 64 * 1024;

/// The longest time from a change to the notification that names its process, on a busy machine.
const PROCESS_DELAY: Duration = Duration::from_millis(50);

/// A change of our tables by another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChange {
    /// The name and the process ID of the other process, if the kernel reported them.
    pub process: Option<String>,
}

/// Follows the changes of our tables in the network namespace of the thread that opens it.
///
/// While the monitor is open, the kernel makes a message of each element that anyone changes, which
/// costs more than the change: close the monitor before a large commit.
pub struct TableMonitor {
    socket: Option<AsyncFd<OwnedFd>>,
    /// The netlink port of our own socket, whose changes are not reported.
    own_port: u32,
    buffer: Vec<u8>,
    pending: Option<PendingChange>,
}

/// A foreign change that is not reported yet.
struct PendingChange {
    /// The process that made the change: the last message of a transaction names it.
    process: Option<String>,
    /// The time at which the change is reported without its process.
    deadline: Instant,
}

impl PendingChange {
    /// Makes a change that happened just now.
    fn now() -> Self {
        Self {
            process: None,
            deadline: Instant::now() + PROCESS_DELAY,
        }
    }
}

impl TableMonitor {
    /// Makes a closed monitor, which ignores the changes of the socket with this netlink port.
    #[must_use]
    pub fn new(own_port: u32) -> Self {
        Self {
            socket: None,
            own_port,
            buffer: vec![0; BUFFER],
            pending: None,
        }
    }

    /// Opens the monitor on the runtime on which [`Self::foreign_change`] will be awaited.
    ///
    /// # Errors
    /// The kernel does not open or subscribe the socket.
    pub fn open(&mut self) -> Result<(), Error> {
        let fd = open_socket(SockProtocol::NetlinkNetFilter, GROUP_NFTABLES, QUEUE)?;
        let socket = ffi::register(fd).map_err(Error::socket("wait for notifications"))?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Reads the notifications that a test has queued in the other end of a pair of sockets.
    #[cfg(feature = "testing")]
    pub fn read_queued(&mut self, socket: &OwnedFd) -> Option<ForeignChange> {
        let read = read(socket, &mut self.buffer, self.own_port, &mut self.pending);
        debug_assert!(read.is_err(), "the result is always an error");
        let process = self.pending.take()?.process;
        Some(ForeignChange { process })
    }

    /// Closes the monitor, and drops the changes that it did not report.
    pub fn close(&mut self) {
        self.socket = None;
        self.pending = None;
    }

    /// Whether the monitor is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Waits until another process changed our tables, or may have changed them because messages
    /// were lost. Waits for ever while the monitor is closed.
    ///
    /// A change is kept when the wait is cancelled.
    pub async fn foreign_change(&mut self) -> ForeignChange {
        let Self {
            socket,
            own_port,
            buffer,
            pending,
        } = self;
        let Some(socket) = socket else {
            return std::future::pending().await;
        };
        loop {
            let ready = match pending {
                Some(PendingChange {
                    process: Some(_), ..
                }) => break,
                Some(PendingChange { deadline, .. }) => {
                    match timeout_at(*deadline, socket.readable()).await {
                        Ok(ready) => ready,
                        Err(_elapsed) => break,
                    }
                }
                None => socket.readable().await,
            };
            let Ok(mut ready) = ready else {
                // The runtime shuts down.
                return std::future::pending().await;
            };
            let read = ready.try_io(|socket| read(socket.get_ref(), buffer, *own_port, pending));
            if let Ok(Err(_)) = read {
                // A notification that cannot be read may be about our tables.
                pending.get_or_insert_with(PendingChange::now);
            }
        }
        let process = pending.take().and_then(|change| change.process);
        ForeignChange { process }
    }
}

/// Reads every queued notification. The result is always an error: `EAGAIN` if the socket is empty
/// now, as [`AsyncFd`] expects.
fn read(
    socket: &OwnedFd,
    buffer: &mut [u8],
    own_port: u32,
    pending: &mut Option<PendingChange>,
) -> io::Result<()> {
    let delivery = receive_queued(socket.as_fd(), buffer, |message| {
        if message.port == own_port {
            return Ok(());
        }
        if let Some(process) = process(&message) {
            if let Some(change) = pending {
                change.process.get_or_insert(process);
            }
        } else if is_about_our_tables(&message) {
            pending.get_or_insert_with(PendingChange::now);
        }
        Ok(())
    })?;
    if delivery == Delivery::Lossy {
        pending.get_or_insert_with(PendingChange::now);
    }
    Err(Errno::EAGAIN.into())
}

/// Returns the type of a message without its subsystem, `NFT_MSG_*`.
fn message_type(message: &NetlinkMessage<'_>) -> u8 {
    let [_, message_type] = message.kind.to_be_bytes();
    message_type
}

/// Reads the process that made the transaction which this message ends; `None` if it is another
/// message.
fn process(message: &NetlinkMessage<'_>) -> Option<String> {
    if message_type(message) != NFT_MSG_NEWGEN {
        return None;
    }
    let attributes = message.attributes();
    let id = attributes.get(NFTA_GEN_PROC_PID)?.number()?;
    let name = attributes.get(NFTA_GEN_PROC_NAME)?.text()?;
    Some(format!("{name} ({id})"))
}

/// Whether the message is about one of our tables, but not about pinned clients: packets add and
/// delete them, and a lost client is balanced again.
fn is_about_our_tables(message: &NetlinkMessage<'_>) -> bool {
    let attributes = message.attributes();
    let text = |kind| attributes.get(kind)?.text();
    let has_elements = [NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM].contains(&message_type(message));
    let is_about_clients = has_elements
        && text(NFTA_SET_ELEM_LIST_SET).is_some_and(|set| set.starts_with("affinity-"));
    text(NFTA_TABLE) == Some(TABLE) && !is_about_clients
}
