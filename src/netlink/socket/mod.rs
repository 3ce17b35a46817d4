//! Netlink sockets: send a batch whole, read which messages the kernel rejected, dump, and receive
//! notifications.

pub(crate) mod attribute;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recv, sendmsg, setsockopt, socket, sockopt,
};

use self::attribute::{Attributes, HEADER, MalformedMessage, NetlinkMessage, messages, u32_at};
use crate::netlink::uapi::{
    NFNL_SUBSYS_NFTABLES, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS,
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

/// A message that the kernel answered with an error.
#[derive(Debug)]
pub(crate) struct RejectedMessage {
    /// The sequence number of the rejected message.
    pub(crate) sequence: u32,
    /// The error as the system names it.
    pub(crate) errno: Errno,
    /// The error's number: a subsystem's own errors, from 4096 on, have no `errno`.
    pub(crate) number: i32,
    /// The position of the wrong attribute in the message, in bytes.
    pub(crate) offset: Option<usize>,
    /// The kernel's explanation, if it gave one (extended ACK).
    pub(crate) explanation: Option<String>,
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
        let needed = size + SEND_RESERVE;
        if setsockopt(&self.fd, sockopt::SndBufForce, &needed).is_err() {
            setsockopt(&self.fd, sockopt::SndBuf, &needed).map_err(Error::errno("set up"))?;
        }
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

    fn send_pages(&self, pages: &[IoSlice<'_>]) -> Result<(), Errno> {
        sendmsg::<()>(self.fd.as_raw_fd(), pages, &[], MsgFlags::empty(), None).map(|_| ())
    }

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

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The kernel rejected the request, with ENOENT if the table or element does not exist.
    Rejected(Errno),
    /// The socket failed, or the answer is malformed.
    Failed(Error),
}

impl RequestError {
    /// Returns the same error for people to read, with what was attempted.
    pub(crate) fn error(self, attempt: &'static str) -> Error {
        match self {
            Self::Rejected(Errno::EPERM) => Error::Permission,
            Self::Rejected(errno) => Error::errno(attempt)(errno),
            Self::Failed(error) => error,
        }
    }

    /// Returns the error for people to read, unless it is that the table or set does not exist.
    pub(crate) fn unless_missing(self, attempt: &'static str) -> Result<(), Error> {
        match self {
            Self::Rejected(Errno::ENOENT) => Ok(()),
            error @ (Self::Rejected(_) | Self::Failed(_)) => Err(error.error(attempt)),
        }
    }
}

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<MalformedMessage> for RequestError {
    fn from(malformed: MalformedMessage) -> Self {
        Self::Failed(Error::errno("read the answer")(malformed.into()))
    }
}

impl From<RejectedMessage> for RequestError {
    fn from(rejected: RejectedMessage) -> Self {
        if rejected.errno == Errno::UnknownErrno {
            return Self::Failed(Error::number("send a request")(rejected.number));
        }
        Self::Rejected(rejected.errno)
    }
}

/// Reads which message an answer rejects; `None` if the answer is an acknowledgement or an object.
fn parse_rejection(
    message: NetlinkMessage<'_>,
) -> Result<Option<RejectedMessage>, MalformedMessage> {
    if message.kind != NLMSG_ERROR {
        return Ok(None);
    }
    let word = |position| u32_at(message.bytes, position).ok_or(MalformedMessage);
    let code = word(HEADER)?.cast_signed();
    if code == 0 {
        return Ok(None);
    }
    // The rejected message follows the code; a capped answer has only its header.
    let quoted = match message.flags & NLM_F_CAPPED {
        0 => usize::try_from(word(HEADER + 4)?)
            .ok()
            .ok_or(MalformedMessage)?
            .next_multiple_of(4),
        _ => HEADER,
    };
    let start = HEADER + 4 + quoted;
    let explanations = match message.flags & NLM_F_ACK_TLVS {
        0 => &[],
        _ => message.bytes.get(start..).ok_or(MalformedMessage)?,
    };
    let explanations = Attributes::at(start, explanations);
    let offset = explanations
        .get(NLMSGERR_ATTR_OFFS)
        .and_then(|offset| u32_at(offset.value, 0));
    Ok(Some(RejectedMessage {
        sequence: word(HEADER + 4 + 8)?,
        errno: Errno::from_raw(code.saturating_neg()),
        number: code.saturating_neg(),
        offset: offset.and_then(|offset| usize::try_from(offset).ok()),
        explanation: explanations
            .get(NLMSGERR_ATTR_MSG)
            .and_then(|text| text.text().map(str::to_owned)),
    }))
}
