//! Netlink messages and attributes as bytes (`linux/netlink.h`), read and written in safe code.

/// Bytes of a message's header (`struct nlmsghdr`).
pub(crate) const HEADER: usize = 16;

/// Bytes of the header after it in every message of nfnetlink (`struct nfgenmsg`).
pub(crate) const NFGEN: usize = 4;

/// The bits of an attribute's type that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 1;

/// A message.
#[derive(Clone, Copy)]
pub(crate) struct NetlinkMessage<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// The whole message, header and all.
    pub(crate) bytes: &'a [u8],
}

impl<'a> NetlinkMessage<'a> {
    /// What stands after the message's header and the header of nfnetlink: attributes.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes {
            base: HEADER + NFGEN,
            rest: self.bytes.get(HEADER + NFGEN..).unwrap_or_default(),
        }
    }
}

/// Splits a buffer into messages; stops at what is no whole message.
pub(crate) fn messages(mut buffer: &[u8]) -> impl Iterator<Item = NetlinkMessage<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(buffer, 0)?).ok()?;
        let bytes = buffer.get(..len).filter(|bytes| bytes.len() >= HEADER)?;
        let [kind_low, kind_high, flags_low, flags_high] = *bytes.get(4..)?.first_chunk()?;
        buffer = buffer.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage {
            kind: u16::from_ne_bytes([kind_low, kind_high]),
            flags: u16::from_ne_bytes([flags_low, flags_high]),
            sequence: u32_at(bytes, 8)?,
            bytes,
        })
    })
}

/// The number at `position`, in the host's byte order.
pub(crate) fn u32_at(bytes: &[u8], position: usize) -> Option<u32> {
    let chunk = bytes.get(position..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*chunk))
}

/// An attribute.
#[derive(Clone, Copy)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    /// Where the attribute starts in its message.
    pub(crate) offset: usize,
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes nested in this one.
    pub(crate) fn nested(self) -> Attributes<'a> {
        Attributes {
            base: self.offset + 4,
            rest: self.value,
        }
    }

    /// A number in network byte order.
    pub(crate) fn number(self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }

    /// A text that ends with a NUL.
    pub(crate) fn text(self) -> Option<&'a str> {
        let end = self.value.iter().position(|byte| *byte == 0);
        let text = self.value.get(..end.unwrap_or(self.value.len()))?;
        std::str::from_utf8(text).ok()
    }
}

/// Attributes that follow each other.
#[derive(Clone)]
pub(crate) struct Attributes<'a> {
    base: usize,
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Attributes that start `base` bytes into their message.
    pub(crate) fn at(base: usize, rest: &'a [u8]) -> Self {
        Self { base, rest }
    }

    /// The first attribute of this kind.
    pub(crate) fn get(&self, kind: u16) -> Option<Attribute<'a>> {
        let mut attributes = self.clone();
        attributes.find(|attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let [len_low, len_high, kind_low, kind_high] = *self.rest.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([len_low, len_high]));
        let value = self.rest.get(4..len)?;
        let attribute = Attribute {
            kind: u16::from_ne_bytes([kind_low, kind_high]) & TYPE_MASK,
            offset: self.base,
            value,
        };
        let next = len.next_multiple_of(4);
        self.base += next;
        self.rest = self.rest.get(next..).unwrap_or_default();
        Some(attribute)
    }
}

/// The type of a message of nfnetlink: its subsystem stands in the upper byte
/// (`linux/netfilter/nfnetlink.h`).
pub(crate) fn kind(subsystem: i32, message: i32) -> u16 {
    // Both are below 256.
    u16::try_from((subsystem << 8) | message).unwrap_or(0)
}

/// A request to nfnetlink: header, nfnetlink's header, and attributes as [`push`] wrote them.
pub(crate) fn request(
    kind: u16,
    flags: u16,
    family: u8,
    sequence: u32,
    attributes: &[u8],
) -> Vec<u8> {
    let len = HEADER + NFGEN + attributes.len();
    let mut message = Vec::with_capacity(len.next_multiple_of(4));
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    message.extend_from_slice(&len.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&[family, 0, 0, 0]);
    message.extend_from_slice(attributes);
    message
}

/// Appends an attribute. The kernel's lengths are of 16 bits; ours are far below.
pub(crate) fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Appends an attribute that holds attributes.
pub(crate) fn push_nested(bytes: &mut Vec<u8>, kind: u16, attributes: &[u8]) {
    push(bytes, NESTED | kind, attributes);
}

/// Texts as attributes.
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
        let read: Vec<_> = messages(&bytes).collect();
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
    fn what_is_cut_short_is_not_read() {
        let bytes = request(2561, 0, 2, 1, &texts(&[(1, "kube-dnat")]));
        assert_eq!(messages(&bytes[..bytes.len() - 1]).count(), 0);
        assert_eq!(messages(&[0; 16]).count(), 0);
        assert_eq!(Attributes::at(0, &[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(Attributes::at(0, &[2, 0, 1, 0, 5]).count(), 0);
    }
}
