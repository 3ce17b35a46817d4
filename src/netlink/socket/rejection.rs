//! Rejections: the answers with which the kernel reports an error, and the errors of requests.

use nix::errno::Errno;

use super::attribute::{Attributes, HEADER, MalformedMessage, NetlinkMessage, u32_at};
use crate::netlink::Error;
use crate::netlink::uapi::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_ERROR, NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS,
};

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
pub(super) fn parse_rejection(
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
