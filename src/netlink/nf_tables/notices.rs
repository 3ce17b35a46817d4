//! What nf_tables tells of changes that others make to our tables.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::netlink::socket::attribute::{NetlinkMessage, messages, u32_at};
use crate::netlink::{Error, ffi};
use crate::planner::ruleset::TABLE;

/// Every object of nf_tables has its table's name first, and an element its set's second; what
/// tells of a transaction has the name of the process (`linux/netfilter/nf_tables.h`).
const TABLE_NAME: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const GEN_PROCESS_ID: u16 = 2;
const GEN_PROCESS_NAME: u16 = 3;

/// Where the port of who asked for a change stands in a message's header.
const PORT: usize = 12;

/// `1 << (NFNLGRP_NFTABLES - 1)`.
const GROUP: u32 = 1 << 6;

/// Bytes of notices that may wait: those of a deleted table with some 10,000 elements.
const QUEUE: usize = 8 * 1024 * 1024;

/// Bytes of one datagram: the kernel makes them of a page or two.
const RECEIVE: usize = 64 * 1024;

/// How long after a change the name of who made it is waited for, on however busy a machine.
const NAMED_WITHIN: Duration = Duration::from_millis(50);

/// A change of our tables that was not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChange {
    /// Who made it, if the kernel said: name and process ID.
    pub process: Option<String>,
}

/// Follows the changes of the network namespace that the calling thread was in when it was opened.
///
/// While it is open the kernel makes a message of each element that anyone changes, which costs
/// more than the change: it is to be closed while much is committed.
pub struct TableMonitor {
    socket: Option<AsyncFd<OwnedFd>>,
    /// The port of our own socket.
    own: u32,
    buffer: Vec<u8>,
    heard: Option<PendingChange>,
}

/// A change of our tables that is not told of yet.
struct PendingChange {
    /// Who made it: the last message of a transaction says so.
    by: Option<String>,
    /// How long that message is waited for.
    until: Instant,
}

impl PendingChange {
    fn now() -> Self {
        Self {
            by: None,
            until: Instant::now() + NAMED_WITHIN,
        }
    }
}

impl TableMonitor {
    /// Closed; what the socket with this port changes is not told of.
    #[must_use]
    pub fn new(own: u32) -> Self {
        Self {
            socket: None,
            own,
            buffer: vec![0; RECEIVE],
            heard: None,
        }
    }

    /// Opens it, on the runtime that [`Self::foreign`] will be awaited on.
    ///
    /// # Errors
    /// If there can be no such socket.
    pub fn open(&mut self) -> Result<(), Error> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let family = AddressFamily::Netlink;
        let netfilter = SockProtocol::NetlinkNetFilter;
        let fd = socket(family, SockType::Raw, flags, netfilter)
            .map_err(Error::errno("open for notices"))?;
        // Without the privilege the limit of the system holds, and some are lost sooner.
        if setsockopt(&fd, sockopt::RcvBufForce, &QUEUE).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &QUEUE).map_err(Error::errno("set up"))?;
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUP)).map_err(Error::errno("hear notices"))?;
        let socket = ffi::awaited(fd).map_err(Error::socket("wait for notices"))?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Hears nothing any more, and forgets what was not read.
    pub fn close(&mut self) {
        self.socket = None;
        self.heard = None;
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Waits until others changed our tables, or perhaps did: too much happened to tell. For ever
    /// while it is closed. What was heard is kept when the wait is broken off.
    pub async fn foreign(&mut self) -> ForeignChange {
        let Self {
            socket,
            own,
            buffer,
            heard,
        } = self;
        let Some(socket) = socket else {
            return std::future::pending().await;
        };
        loop {
            let ready = match heard {
                Some(PendingChange { by: Some(_), .. }) => break,
                Some(PendingChange { until, .. }) => {
                    match timeout_at(*until, socket.readable()).await {
                        Ok(ready) => ready,
                        Err(_elapsed) => break,
                    }
                }
                None => socket.readable().await,
            };
            let Ok(mut ready) = ready else {
                // The runtime ends.
                return std::future::pending().await;
            };
            let read = ready.try_io(|socket| read(socket.as_raw_fd(), buffer, *own, heard));
            if let Ok(Err(_)) = read {
                // What cannot be heard may have been about us.
                heard.get_or_insert_with(PendingChange::now);
            }
        }
        let process = heard.take().and_then(|heard| heard.by);
        ForeignChange { process }
    }
}

/// Reads all that waits, and ends with [`Errno::EAGAIN`] or what is wrong.
fn read(fd: i32, buffer: &mut [u8], own: u32, heard: &mut Option<PendingChange>) -> io::Result<()> {
    loop {
        match recv(fd, buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => {
                let received = buffer.get(..len).unwrap_or_default();
                for message in messages(received).filter(|message| !is_own(message, own)) {
                    if let Some(process) = process(&message) {
                        if let Some(heard) = heard {
                            heard.by.get_or_insert(process);
                        }
                    } else if is_about_us(&message) {
                        heard.get_or_insert_with(PendingChange::now);
                    }
                }
            }
            Err(Errno::EINTR) => {}
            // Some were lost.
            Err(Errno::ENOBUFS) => {
                heard.get_or_insert_with(PendingChange::now);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn is_own(message: &NetlinkMessage<'_>, own: u32) -> bool {
    u32_at(message.bytes, PORT) == Some(own)
}

/// Who made the transaction that this message ends; `None` if it is another message.
fn process(message: &NetlinkMessage<'_>) -> Option<String> {
    if i32::from(message.kind) & 0xff != libc::NFT_MSG_NEWGEN {
        return None;
    }
    let attributes = message.attributes();
    let id = attributes.get(GEN_PROCESS_ID)?.number()?;
    let name = attributes.get(GEN_PROCESS_NAME)?.text()?;
    Some(format!("{name} ({id})"))
}

/// Whether the message is about one of our tables. Who is remembered for which endpoint is not: it
/// changes with packets, and what is lost of it is drawn anew.
fn is_about_us(message: &NetlinkMessage<'_>) -> bool {
    let attributes = message.attributes();
    let text = |kind| attributes.get(kind)?.text();
    let elements = [libc::NFT_MSG_NEWSETELEM, libc::NFT_MSG_DELSETELEM];
    let of_clients = elements.contains(&(i32::from(message.kind) & 0xff))
        && text(ELEMENTS_SET).is_some_and(|set| set.starts_with("affinity-"));
    text(TABLE_NAME) == Some(TABLE) && !of_clients
}
