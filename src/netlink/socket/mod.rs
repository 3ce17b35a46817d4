//! Netlink sockets: send a batch whole, read which messages the kernel rejected, dump, and receive
//! notifications.

pub(crate) mod attribute;
mod rejection;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recv, sendmsg, setsockopt, socket, sockopt,
};

use self::attribute::{MalformedMessage, NetlinkMessage, messages};
use self::rejection::parse_rejection;
pub(crate) use self::rejection::{RejectedMessage, RequestError};
use crate::netlink::uapi::{
    NFNL_SUBSYS_NFTABLES, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
};
use crate::netlink::{Error, ffi};

/// The bytes of the buffer for answers; the kernel fills at most 32 KiB of it in a dump
/// (`NLMSG_GOODSIZE`, `netlink_dump` of `net/netlink/af_netlink.c`).
const ANSWER_BUFFER: usize = 256 * 1024;

/// The bytes of answers that can be queued in the socket: 300 for each of 28,000 rejected messages.
const ANSWER_QUEUE: usize = 8 * 1024 * 1024;

/// The bytes of the send buffer beyond a batch: `netlink_sendmsg` accepts a batch that fits into
/// the send buffer less 32 bytes.
const SEND_RESERVE: usize = 4096;

/// The bytes of the largest batch that one `sendmsg` takes whole (`MAX_RW_COUNT` of `linux/fs.h`):
/// what exceeds them would be cut off. The largest send buffer is larger by some 4,000 bytes.
const LARGEST_BATCH: usize = 0x7fff_f000;

/// The value of the option for the largest send buffer, which the kernel doubles (`sk_setsockopt` of
/// `net/core/sock.c`).
const LARGEST_SEND_BUFFER: usize = 0x3fff_ffff;

/// Whether the kernel delivered every message of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Every message was delivered.
    Complete,
    /// The queue of the socket was full, so that messages were lost.
    Lossy,
}

/// Whether the objects of a dump were in the kernel at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DumpConsistency {
    /// Nothing changed while the kernel wrote the dump.
    Consistent,
    /// Objects changed while the kernel wrote the dump (`NLM_F_DUMP_INTR`), which may be
    /// incomplete.
    Inconsistent,
}

/// Opens a netlink socket that receives the messages of these multicast groups (a bit mask), with
/// room for `queue` bytes of messages.
///
/// Without `CAP_NET_ADMIN` the system limits the room (`net.core.rmem_max`).
pub(crate) fn open_socket(
    protocol: SockProtocol,
    groups: u32,
    queue: usize,
) -> Result<OwnedFd, Error> {
    let family = AddressFamily::Netlink;
    let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .map_err(Error::errno("open"))?;
    if setsockopt(&fd, sockopt::RcvBufForce, &queue).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &queue).map_err(Error::errno("set up"))?;
    }
    match bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)) {
        Ok(()) => Ok(fd),
        Err(Errno::EPERM) => Err(Error::Permission),
        Err(errno) => Err(Error::errno("bind")(errno)),
    }
}

/// Receives one datagram into the buffer.
fn receive<'a>(
    fd: BorrowedFd<'_>,
    buffer: &'a mut [u8],
    flags: MsgFlags,
) -> Result<&'a [u8], Errno> {
    loop {
        match recv(fd.as_raw_fd(), buffer, flags) {
            // Without `MSG_TRUNC`, recv(2) returns at most the buffer's length.
            Ok(len) => return Ok(&buffer[..len]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Receives every queued message and passes it to `each`.
pub(crate) fn receive_queued(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    mut each: impl FnMut(NetlinkMessage<'_>) -> Result<(), MalformedMessage>,
) -> Result<Delivery, Errno> {
    let mut delivery = Delivery::Complete;
    loop {
        match receive(fd, buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(datagram) => {
                for message in messages(datagram) {
                    each(message?)?;
                }
            }
            Err(Errno::EAGAIN) => return Ok(delivery),
            Err(Errno::ENOBUFS) => delivery = Delivery::Lossy,
            Err(errno) => return Err(errno),
        }
    }
}

/// An answer to one of many requests.
pub(crate) enum RequestAnswer<'a> {
    /// The kernel rejected the request, perhaps after some messages.
    Rejected(Errno),
    /// The kernel sent a message.
    Message(NetlinkMessage<'a>),
}

/// A netlink socket for requests and their answers.
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Socket {
    /// Opens a socket of this protocol.
    pub(crate) fn open(protocol: SockProtocol) -> Result<Self, Error> {
        let fd = open_socket(protocol, 0, ANSWER_QUEUE)?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            ffi::enable_option(fd.as_fd(), option).map_err(Error::socket("set up"))?;
        }
        let address = getsockname::<NetlinkAddr>(fd.as_raw_fd()).map_err(Error::errno("set up"))?;
        Ok(Self {
            fd,
            port: address.pid(),
            buffer: vec![0; ANSWER_BUFFER],
            sequence: 0,
        })
    }

    /// Makes a socket of one end of a pair, in whose other end a test has queued the answers.
    #[cfg(feature = "testing")]
    pub(crate) fn of(fd: OwnedFd) -> Self {
        Self {
            fd,
            port: 1,
            buffer: vec![0; ANSWER_BUFFER],
            sequence: 0,
        }
    }

    /// Returns the netlink port of the socket.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends messages and returns those that the kernel rejected.
    ///
    /// If the kernel rejected none, a batch is committed, and every request outside a batch is
    /// done.
    ///
    /// This is one `sendmsg`, because the kernel aborts a batch that comes in pieces. The kernel
    /// processes the messages before the call returns, so that every answer is queued then.
    pub(crate) fn send(&mut self, pages: &[IoSlice<'_>]) -> Result<Vec<RejectedMessage>, Error> {
        let size: usize = pages.iter().map(|page| page.len()).sum();
        if size > LARGEST_BATCH {
            return Err(Error::TooLarge { bytes: size });
        }
        self.reserve_send_buffer(size)?;
        match self.send_pages(pages) {
            Ok(()) => self.rejected_messages(),
            Err(Errno::EPERM) => Err(Error::Permission),
            Err(errno) => {
                // Answers to a part of this batch must not be read as answers to the next.
                let _ = self.rejected_messages();
                Err(Error::errno("send the transaction")(errno))
            }
        }
    }

    /// Makes the send buffer large enough for messages of this size.
    fn reserve_send_buffer(&self, size: usize) -> Result<(), Error> {
        let needed = (size + SEND_RESERVE).min(LARGEST_SEND_BUFFER);
        if setsockopt(&self.fd, sockopt::SndBufForce, &needed).is_err() {
            setsockopt(&self.fd, sockopt::SndBuf, &needed).map_err(Error::errno("set up"))?;
        }
        Ok(())
    }

    /// Sends messages in one call.
    fn send_pages(&self, pages: &[IoSlice<'_>]) -> Result<(), Errno> {
        sendmsg::<()>(self.fd.as_raw_fd(), pages, &[], MsgFlags::empty(), None).map(|_| ())
    }

    /// Reads the queued answers, and returns the messages that they reject.
    fn rejected_messages(&mut self) -> Result<Vec<RejectedMessage>, Error> {
        let mut rejected = Vec::new();
        let delivery = receive_queued(self.fd.as_fd(), &mut self.buffer, |message| {
            rejected.extend(parse_rejection(message)?);
            Ok(())
        });
        match delivery.map_err(Error::errno("receive the answer"))? {
            Delivery::Complete => Ok(rejected),
            Delivery::Lossy => Err(Error::Lost),
        }
    }

    /// Sends a request that has one answer, and returns what `parse` reads from the answer.
    pub(crate) fn query<T>(
        &mut self,
        kind: u16,
        family: u8,
        attributes: &[u8],
        parse: impl FnOnce(NetlinkMessage<'_>) -> Result<T, MalformedMessage>,
    ) -> Result<T, RequestError> {
        self.send_request(kind, NLM_F_REQUEST, family, attributes)?;
        // The kernel answers before the call above returns.
        let datagram = receive(self.fd.as_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT)
            .map_err(Error::errno("receive an answer"))?;
        let message = messages(datagram).next().ok_or(MalformedMessage)??;
        match parse_rejection(message)? {
            Some(rejected) => Err(rejected.into()),
            None => Ok(parse(message)?),
        }
    }

    /// Sends many requests of one type in one call, each with these attributes, and passes each
    /// answer to `each` with the position of its request.
    pub(crate) fn query_many(
        &mut self,
        kind: u16,
        family: u8,
        requests: impl IntoIterator<Item = Vec<u8>>,
        mut each: impl FnMut(usize, RequestAnswer<'_>) -> Result<(), Errno>,
    ) -> Result<(), Error> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for attributes in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let sequence = self.sequence;
            let request = attribute::request(kind, NLM_F_REQUEST, family, sequence, &attributes);
            bytes.extend_from_slice(&request);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        self.reserve_send_buffer(bytes.len())?;
        self.send_pages(&[IoSlice::new(&bytes)])
            .map_err(Error::errno("send requests"))?;
        let mut result = Ok(());
        // The kernel answers before the call above returns.
        let delivery = receive_queued(self.fd.as_fd(), &mut self.buffer, |message| {
            let position = usize::try_from(message.sequence.wrapping_sub(first));
            let position = position.map_err(|_too_large| MalformedMessage)?;
            let answer = match parse_rejection(message)? {
                Some(rejected) => RequestAnswer::Rejected(rejected.errno),
                None => RequestAnswer::Message(message),
            };
            // The other answers are received all the same: they must not answer later requests.
            if result.is_ok() {
                result = each(position, answer);
            }
            Ok(())
        });
        match delivery.map_err(Error::errno("receive answers"))? {
            Delivery::Complete => result.map_err(Error::errno("read the answers")),
            Delivery::Lossy => Err(Error::Lost),
        }
    }

    /// Dumps objects of nf_tables that these texts select, and passes each message to `each`.
    pub(crate) fn dump_nftables(
        &mut self,
        message: u8,
        family: u8,
        texts: &[(u16, &str)],
        each: impl FnMut(NetlinkMessage<'_>) -> Result<(), MalformedMessage>,
    ) -> Result<DumpConsistency, RequestError> {
        let kind = attribute::kind(NFNL_SUBSYS_NFTABLES, message);
        self.dump(kind, family, &attribute::texts(texts), each)
    }

    /// Dumps objects and passes each message to `each`.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(NetlinkMessage<'_>) -> Result<(), MalformedMessage>,
    ) -> Result<DumpConsistency, RequestError> {
        let sequence = self.send_request(kind, NLM_F_REQUEST | NLM_F_DUMP, family, attributes)?;
        let mut consistency = DumpConsistency::Consistent;
        // The dump is read to its end all the same: the socket cannot begin another before.
        let mut read = Ok(());
        loop {
            let datagram = receive(self.fd.as_fd(), &mut self.buffer, MsgFlags::empty())
                .map_err(Error::errno("receive a dump"))?;
            for message in messages(datagram) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    consistency = DumpConsistency::Inconsistent;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(read.map(|()| consistency)?),
                    NLMSG_ERROR => {
                        if let Some(rejected) = parse_rejection(message)? {
                            return Err(rejected.into());
                        }
                    }
                    _ => read = read.and(each(message)),
                }
            }
        }
    }

    /// Sends a request and returns its sequence number.
    fn send_request(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &[u8],
    ) -> Result<u32, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = attribute::request(kind, flags, family, self.sequence, attributes);
        self.send_pages(&[IoSlice::new(&request)])
            .map_err(Error::errno("send a request"))?;
        Ok(self.sequence)
    }
}
