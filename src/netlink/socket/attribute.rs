//! Netlink messages and attributes as bytes (`linux/netlink.h`), read and written in safe code.

use nix::errno::Errno;

use crate::netlink::uapi::{NLA_F_NESTED, NLA_TYPE_MASK};

/// The bytes of a message's header (`struct nlmsghdr`).
pub(crate) const HEADER: usize = 16;

/// The bytes of nfnetlink's header, which follows a message's header (`struct nfgenmsg`).
pub(crate) const NFGEN: usize = 4;

/// The bytes of an attribute's header (`NLA_HDRLEN`).
pub(crate) const ATTRIBUTE_HEADER: usize = 4;

/// A message of the kernel is cut short, or lacks what every message of its type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedMessage;

impl From<MalformedMessage> for Errno {
    fn from(MalformedMessage: MalformedMessage) -> Self {
        Self::EPROTO
    }
}

/// A netlink message with its header taken apart.
#[derive(Clone, Copy)]
pub(crate) struct NetlinkMessage<'a> {
    /// The message's type; nfnetlink has the subsystem in the upper byte.
    pub(crate) kind: u16,
    /// The message's flags, `NLM_F_*`.
    pub(crate) flags: u16,
    /// The sequence number of the request that the message answers.
    pub(crate) sequence: u32,
    /// The netlink port of the socket that caused the message; 0 is the kernel's.
    pub(crate) port: u32,
    /// The whole message with its header.
    pub(crate) bytes: &'a [u8],
}

impl<'a> NetlinkMessage<'a> {
    /// Returns the attributes after nfnetlink's header; an acknowledgement has none.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes {
            base: HEADER + NFGEN,
            rest: self.bytes.get(HEADER + NFGEN..).unwrap_or_default(),
        }
    }
}

/// Splits a datagram into messages; the last item is an error if the datagram ends within a
/// message.
pub(crate) fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<'_>, MalformedMessage>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let split = split_message(rest);
        rest = split.map_or(&[], |(_, rest)| rest);
        Some(split.map(|(message, _)| message).ok_or(MalformedMessage))
    })
}

/// Splits the first message from a buffer; `None` if the buffer ends within it.
fn split_message(buffer: &[u8]) -> Option<(NetlinkMessage<'_>, &[u8])> {
    let len = usize::try_from(u32_at(buffer, 0)?).ok()?;
    let bytes = buffer.get(..len).filter(|bytes| bytes.len() >= HEADER)?;
    let [kind_low, kind_high, flags_low, flags_high] = *bytes.get(4..)?.first_chunk()?;
    let message = NetlinkMessage {
        kind: u16::from_ne_bytes([kind_low, kind_high]),
        flags: u16::from_ne_bytes([flags_low, flags_high]),
        sequence: u32_at(bytes, 8)?,
        port: u32_at(bytes, 12)?,
        bytes,
    };
    // The last message may lack its padding.
    let rest = buffer.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((message, rest))
}

/// Returns the number at `position`, in the host's byte order.
pub(crate) fn u32_at(bytes: &[u8], position: usize) -> Option<u32> {
    let chunk = bytes.get(position..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*chunk))
}

/// An attribute of a message.
#[derive(Clone, Copy)]
pub(crate) struct Attribute<'a> {
    /// The attribute's type, without flags.
    pub(crate) kind: u16,
    /// The position of the attribute in its message, in bytes.
    pub(crate) offset: usize,
    /// The bytes after the attribute's header.
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Returns the attributes nested in this one.
    pub(crate) fn nested(self) -> Attributes<'a> {
        Attributes {
            base: self.offset + ATTRIBUTE_HEADER,
            rest: self.value,
        }
    }

    /// Returns the value as a number in network byte order; `None` unless it has 4 bytes.
    pub(crate) fn number(self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }

    /// Returns the value as a number in network byte order; `None` unless it has 8 bytes.
    pub(crate) fn long_number(self) -> Option<u64> {
        self.value.try_into().ok().map(u64::from_be_bytes)
    }

    /// Returns the value as text up to its NUL, if any; `None` if it is not UTF-8.
    pub(crate) fn text(self) -> Option<&'a str> {
        let end = self.value.iter().position(|byte| *byte == 0);
        let text = self.value.get(..end.unwrap_or(self.value.len()))?;
        std::str::from_utf8(text).ok()
    }
}

/// The attributes of a message, or of an attribute, in order.
#[derive(Clone)]
pub(crate) struct Attributes<'a> {
    base: usize,
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads attributes that start `base` bytes into their message.
    pub(crate) fn at(base: usize, rest: &'a [u8]) -> Self {
        Self { base, rest }
    }

    /// Returns the first attribute of this type.
    pub(crate) fn get(&self, kind: u16) -> Option<Attribute<'a>> {
        let mut attributes = self.clone();
        attributes.find(|attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    /// Returns the next attribute; `None` too if the next one is cut short.
    fn next(&mut self) -> Option<Attribute<'a>> {
        let [len_low, len_high, kind_low, kind_high] = *self.rest.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([len_low, len_high]));
        let value = self.rest.get(ATTRIBUTE_HEADER..len)?;
        let attribute = Attribute {
            kind: u16::from_ne_bytes([kind_low, kind_high]) & NLA_TYPE_MASK,
            offset: self.base,
            value,
        };
        let next = len.next_multiple_of(4);
        self.base += next;
        // The last attribute may lack its padding.
        self.rest = self.rest.get(next..).unwrap_or_default();
        Some(attribute)
    }
}

/// Returns the type of a message of nfnetlink: the subsystem is the upper byte
/// (`linux/netfilter/nfnetlink.h`).
pub(crate) fn kind(subsystem: u8, message: u8) -> u16 {
    u16::from_be_bytes([subsystem, message])
}

/// Writes a request to nfnetlink: header, nfnetlink's header, and attributes as [`push`] wrote
/// them.
#[expect(
    clippy::expect_used,
    reason = "a request names one object or element: it is a few hundred bytes"
)]
pub(crate) fn request(
    kind: u16,
    flags: u16,
    family: u8,
    sequence: u32,
    attributes: &[u8],
) -> Vec<u8> {
    let len = HEADER + NFGEN + attributes.len();
    let mut message = Vec::with_capacity(len.next_multiple_of(4));
    let len = u32::try_from(len).expect("a request is shorter than 4 GiB");
    message.extend_from_slice(&len.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&[family, 0, 0, 0]);
    message.extend_from_slice(attributes);
    message
}

/// Appends an attribute.
#[expect(
    clippy::expect_used,
    reason = "a value is a name, a key, a number, or a few of these: a few hundred bytes"
)]
pub(crate) fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = ATTRIBUTE_HEADER + value.len();
    let len = u16::try_from(len).expect("an attribute is shorter than 64 KiB");
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Appends an attribute that holds attributes.
pub(crate) fn push_nested(bytes: &mut Vec<u8>, kind: u16, attributes: &[u8]) {
    push(bytes, NLA_F_NESTED | kind, attributes);
}

/// Writes texts as attributes, each with its NUL.
pub(crate) fn texts(texts: &[(u16, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, text) in texts {
        push(&mut bytes, *kind, &[text.as_bytes(), &[0]].concat());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_written() {
        let attributes = texts(&[(1, "kube-dnat"), (2, "a")]);
        let bytes = request(2561, 0x301, 10, 7, &attributes);
        let read: Vec<_> = messages(&bytes).map(Result::unwrap).collect();
        assert_eq!(read.len(), 1);
        assert_eq!(
            (read[0].kind, read[0].flags, read[0].sequence),
            (2561, 0x301, 7)
        );
        let texts: Vec<_> = read[0]
            .attributes()
            .map(|attribute| (attribute.offset, attribute.kind, attribute.text().unwrap()))
            .collect();
        assert_eq!(texts, [(20, 1, "kube-dnat"), (36, 2, "a")]);
    }

    #[test]
    fn a_message_or_attribute_that_is_cut_short_is_not_read() {
        let bytes = request(2561, 0, 2, 1, &texts(&[(1, "kube-dnat")]));
        let is_malformed = |bytes: &[u8]| {
            let read: Vec<_> = messages(bytes).map(|message| message.is_err()).collect();
            read == [true]
        };
        assert!(is_malformed(&bytes[..bytes.len() - 1]));
        assert!(is_malformed(&[0; 16]));
        assert_eq!(messages(&[]).count(), 0);
        assert_eq!(Attributes::at(0, &[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(Attributes::at(0, &[2, 0, 1, 0, 5]).count(), 0);
    }
}
