//! A netlink socket to nfnetlink: send a batch whole, hear what was refused, dump.

use nftnl::nftnl_sys::libc;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockname, recv, sendmsg, setsockopt, sockopt};
use std::io::IoSlice;

use crate::netlink::Error;
pub(crate) mod attribute;

use self::attribute::{Attributes, HEADER, u32_at};
use crate::netlink::ffi::NetlinkSocket;

/// Bytes of the buffer that answers are received in; the kernel fills at most 32 KiB of it for a
/// dump (`NLMSG_GOODSIZE`, `netlink_dump` of `net/netlink/af_netlink.c`).
const RECEIVE: usize = 256 * 1024;

/// Bytes of answers that may wait in the socket: some 300 of each refused message.
const RECEIVE_QUEUE: usize = 8 * 1024 * 1024;

/// Where the attributes of an extended ACK say what was wrong (`enum nlmsgerr_attrs`).
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// Answer flags of netlink(7).
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

/// A message that the kernel answered with an error.
#[derive(Debug)]
pub(crate) struct RejectedMessage {
    pub(crate) sequence: u32,
    pub(crate) errno: Errno,
    /// The number as it came: a subsystem has numbers of its own from 4096 on, which `errno` does not
    /// know.
    pub(crate) number: i32,
    /// Where in the message the wrong attribute is, in bytes.
    pub(crate) offset: Option<usize>,
    pub(crate) explanation: Option<String>,
}

/// A socket to nfnetlink.
pub(crate) struct Socket {
    inner: NetlinkSocket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open() -> Result<Self, Error> {
        Self::open_on(mnl::Bus::Netfilter)
    }

    /// A socket to another subsystem of netlink.
    pub(crate) fn open_on(bus: mnl::Bus) -> Result<Self, Error> {
        let socket = NetlinkSocket::open(bus).map_err(Error::socket("open"))?;
        socket
            .turn_on(libc::NETLINK_EXT_ACK)
            .map_err(Error::socket("set up"))?;
        socket
            .turn_on(libc::NETLINK_CAP_ACK)
            .map_err(Error::socket("set up"))?;
        let fd = socket.descriptor();
        // Without the privilege the limit of the system holds, which is enough to begin with.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_QUEUE).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_QUEUE).map_err(Error::errno("set up"))?;
        }
        Ok(Self {
            inner: socket,
            buffer: vec![0; RECEIVE],
            sequence: 0,
        })
    }

    /// Sends the pages of a batch and returns what the kernel refused; nothing: it committed.
    ///
    /// One `sendmsg`: the kernel aborts a batch that comes in pieces. It has finished with the
    /// batch when the call returns, so that whatever it has to say is waiting.
    pub(crate) fn send(&mut self, pages: &[IoSlice<'_>]) -> Result<Vec<RejectedMessage>, Error> {
        let size: usize = pages.iter().map(|page| page.len()).sum();
        let fd = self.inner.descriptor();
        // `netlink_sendmsg` takes what fits the send buffer less 32 bytes.
        let needed = size + 4096;
        if setsockopt(&fd, sockopt::SndBufForce, &needed).is_err() {
            setsockopt(&fd, sockopt::SndBuf, &needed).map_err(Error::errno("set up"))?;
        }
        let sent = sendmsg::<()>(self.inner.raw_fd(), pages, &[], MsgFlags::empty(), None);
        match sent {
            Ok(_) => {}
            Err(Errno::EPERM) => return Err(Error::Permission),
            Err(errno) => {
                // What was said before the call failed is about this batch and no other.
                let _ = self.drain();
                return Err(Error::errno("send the transaction")(errno));
            }
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<Vec<RejectedMessage>, Error> {
        let mut refused = Vec::new();
        loop {
            match recv(
                self.inner.raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(len) => {
                    let received = self.buffer.get(..len).unwrap_or_default();
                    refused.extend(attribute::messages(received).filter_map(refusal));
                }
                Err(Errno::EAGAIN) => return Ok(refused),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => {
                    // The queue overflowed: empty it, so that the next batch hears its own answers.
                    while recv(
                        self.inner.raw_fd(),
                        &mut self.buffer,
                        MsgFlags::MSG_DONTWAIT,
                    )
                    .is_ok()
                    {}
                    return Err(Error::Lost);
                }
                Err(errno) => return Err(Error::errno("receive the answer")(errno)),
            }
        }
    }

    /// The port that the kernel knows it by.
    pub(crate) fn port(&self) -> u32 {
        let address = getsockname::<NetlinkAddr>(self.inner.raw_fd());
        address.map_or(0, |address| address.pid())
    }

    /// Asks for one thing; what `take` makes of the answer.
    pub(crate) fn ask<T>(
        &mut self,
        kind: u16,
        take: impl FnOnce(attribute::NetlinkMessage<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.ask_for(kind, 0, &[], take) {
            Ok(answer) => Ok(answer),
            Err(DumpError::Rejected(errno)) => Err(Error::errno("ask")(errno)),
            Err(DumpError::Failed(error)) => Err(error),
        }
    }

    /// As [`Self::ask`], of a family, and with what names the thing.
    pub(crate) fn ask_for<T>(
        &mut self,
        kind: u16,
        family: u8,
        attributes: &[u8],
        take: impl FnOnce(attribute::NetlinkMessage<'_>) -> Option<T>,
    ) -> Result<Option<T>, DumpError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request =
            attribute::request(kind, attribute::REQUEST, family, self.sequence, attributes);
        let pages = [IoSlice::new(&request)];
        let failed = |attempt| move |errno| DumpError::Failed(Error::errno(attempt)(errno));
        sendmsg::<()>(self.inner.raw_fd(), &pages, &[], MsgFlags::empty(), None)
            .map_err(failed("ask"))?;
        // The kernel has answered when the call returns.
        let fd = self.inner.raw_fd();
        let len = recv(fd, &mut self.buffer, MsgFlags::MSG_DONTWAIT)
            .map_err(failed("receive an answer"))?;
        let received = self.buffer.get(..len).unwrap_or_default();
        let Some(message) = attribute::messages(received).next() else {
            return Ok(None);
        };
        match refusal(message) {
            Some(refused) => Err(refused.into()),
            None => Ok(take(message)),
        }
    }

    /// Asks for a dump and gives each message of it to `each`. `false`: the ruleset changed
    /// meanwhile and the dump must be asked for again (`NLM_F_DUMP_INTR`).
    pub(crate) fn dump(
        &mut self,
        kind: i32,
        family: u8,
        texts: &[(u16, &str)],
        each: impl FnMut(attribute::NetlinkMessage<'_>),
    ) -> Result<bool, DumpError> {
        let kind = attribute::kind(libc::NFNL_SUBSYS_NFTABLES, kind);
        self.dump_of(kind, family, &attribute::texts(texts), each)
    }

    /// As [`Self::dump`], of whatever subsystem of nfnetlink `kind` names in its upper byte.
    pub(crate) fn dump_of(
        &mut self,
        kind: u16,
        family: u8,
        attributes: &[u8],
        mut each: impl FnMut(attribute::NetlinkMessage<'_>),
    ) -> Result<bool, DumpError> {
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or(0);
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let request = attribute::request(kind, flags, family, sequence, attributes);
        let pages = [IoSlice::new(&request)];
        sendmsg::<()>(self.inner.raw_fd(), &pages, &[], MsgFlags::empty(), None)
            .map_err(Error::errno("ask for a dump"))
            .map_err(DumpError::Failed)?;
        let mut whole = true;
        loop {
            let len = match recv(self.inner.raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(len) => len,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(DumpError::Failed(Error::errno("receive a dump")(errno))),
            };
            let received = self.buffer.get(..len).unwrap_or_default();
            for message in attribute::messages(received) {
                if message.sequence != sequence {
                    continue;
                }
                if i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0 {
                    whole = false;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(whole),
                    libc::NLMSG_ERROR => {
                        if let Some(refused) = refusal(message) {
                            return Err(refused.into());
                        }
                    }
                    _ => each(message),
                }
            }
        }
    }
}

/// Why a dump did not come.
#[derive(Debug)]
pub(crate) enum DumpError {
    /// The kernel refused: ENOENT if there is no such table.
    Rejected(Errno),
    /// The socket failed.
    Failed(Error),
}

impl DumpError {
    /// The same as an error of what was attempted.
    pub(crate) fn error(self, attempt: &'static str) -> Error {
        match self {
            Self::Rejected(Errno::EPERM) => Error::Permission,
            Self::Rejected(errno) => Error::errno(attempt)(errno),
            Self::Failed(error) => error,
        }
    }
}

impl From<RejectedMessage> for DumpError {
    fn from(refused: RejectedMessage) -> Self {
        if refused.errno == Errno::UnknownErrno {
            return Self::Failed(Error::number("ask")(refused.number));
        }
        Self::Rejected(refused.errno)
    }
}

/// What an answer refuses; `None` if it is an acknowledgement or no answer.
fn refusal(message: attribute::NetlinkMessage<'_>) -> Option<RejectedMessage> {
    if i32::from(message.kind) != libc::NLMSG_ERROR {
        return None;
    }
    let code = u32_at(message.bytes, HEADER)?.cast_signed();
    if code == 0 {
        return None;
    }
    // After the code stands the refused message, or only its header if the answer is capped.
    let quoted = u32_at(message.bytes, HEADER + 4)?;
    let quoted = match message.flags & NLM_F_CAPPED {
        0 => usize::try_from(quoted).ok()?.next_multiple_of(4),
        _ => HEADER,
    };
    let start = HEADER + 4 + quoted;
    let words = match message.flags & NLM_F_ACK_TLVS {
        0 => &[],
        _ => message.bytes.get(start..).unwrap_or_default(),
    };
    let words = Attributes::at(start, words);
    let offset = words
        .get(NLMSGERR_ATTR_OFFS)
        .and_then(|offset| u32_at(offset.value, 0));
    Some(RejectedMessage {
        sequence: u32_at(message.bytes, HEADER + 4 + 8)?,
        errno: Errno::from_raw(code.saturating_neg()),
        number: code.saturating_neg(),
        offset: offset.and_then(|offset| usize::try_from(offset).ok()),
        explanation: words
            .get(NLMSGERR_ATTR_MSG)
            .and_then(|text| text.text().map(str::to_owned)),
    })
}
