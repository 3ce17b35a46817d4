//! Keys of elements, as text and in the kernel's representation.
//!
//! Both follow from the fields that [`super::SETS`] declares.

use std::fmt;

use super::registers::{RegisterReader, Registers};
use super::{KeyField, SetName, set};
use crate::planner::model::{Address, PortRange, Protocol};

/// The value of `IP_CT_DIR_ORIGINAL` in `linux/netfilter/nf_conntrack_tuple_common.h`.
const ORIGINAL: u8 = 0;

/// The key of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key<A: Address> {
    /// A range of addresses.
    Net(A::Net),
    /// An address.
    Address(A),
    /// A protocol.
    Protocol(Protocol),
    /// The direction of a connection's first packet (`IP_CT_DIR_ORIGINAL`).
    Original,
    /// A port.
    Port(u16),
    /// Two addresses.
    Pair(A, A),
    /// An address and a port.
    AddressPort(A, u16),
    /// A frontend.
    Frontend(Protocol, A, u16),
    /// A slot of a frontend.
    Slot(Protocol, A, u16, u32),
    /// A node port.
    Nodeport(Protocol, u16),
    /// A slot of a node port.
    NodeportSlot(Protocol, u16, u32),
    /// A frontend and a range of sources.
    SourceRange(Protocol, A, u16, A::Net),
    /// An address, and a range of its ports.
    PortRange(Protocol, A, PortRange),
    /// An address with port ranges.
    Ranges(Protocol, A),
    /// A slot of an address with port ranges.
    RangeSlot(Protocol, A, u32),
    /// A client, with the address and port that it connects to.
    Client(A, A, u16),
    /// The address and port of a frontend, and those of an endpoint.
    Sent(A, u16, A, u16),
}

/// The value of one field of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart<A: Address> {
    /// A protocol.
    Protocol(Protocol),
    /// An address.
    Address(A),
    /// A range of addresses.
    Net(A::Net),
    /// A port.
    Port(u16),
    /// A range of ports.
    PortRange(PortRange),
    /// A slot.
    Slot(u32),
    /// The direction of a connection's first packet.
    Original,
}

/// The end of a range that the kernel's representation of a key has.
#[derive(Clone, Copy)]
enum RangeEnd {
    /// The first address or port.
    First,
    /// The last address or port.
    Last,
}

impl<A: Address> KeyPart<A> {
    /// Returns the type of the field.
    fn field(&self) -> KeyField {
        match self {
            Self::Protocol(_) => KeyField::Protocol,
            Self::Address(_) => KeyField::Address,
            Self::Net(_) => KeyField::Net,
            Self::Port(_) => KeyField::Port,
            Self::PortRange(_) => KeyField::PortRange,
            Self::Slot(_) => KeyField::Slot,
            Self::Original => KeyField::Direction,
        }
    }
}

impl<A: Address> fmt::Display for KeyPart<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Address(address) => write!(f, "{address}"),
            // nft prints a range of one address as that address.
            Self::Net(net) if A::is_single(*net) => write!(f, "{}", A::bounds(*net).0),
            Self::Net(net) => write!(f, "{net}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::PortRange(range) => write!(f, "{range}"),
            Self::Slot(slot) => write!(f, "{slot}"),
            Self::Original => f.write_str("original"),
        }
    }
}

impl<A: Address> fmt::Display for Key<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.parts().enumerate() {
            if position > 0 {
                f.write_str(" . ")?;
            }
            part.fmt(f)?;
        }
        Ok(())
    }
}

impl<A: Address> Key<A> {
    /// Returns protocol, address and port of a frontend; `None` for any other key.
    ///
    /// A node port has no address. The port ranges of an address have port 0.
    #[must_use]
    pub fn frontend(&self) -> Option<(Protocol, Option<A>, u16)> {
        if let Self::Frontend(protocol, address, port) = *self {
            Some((protocol, Some(address), port))
        } else if let Self::Nodeport(protocol, port) = *self {
            Some((protocol, None, port))
        } else if let Self::Ranges(protocol, address) = *self {
            Some((protocol, Some(address), 0))
        } else {
            None
        }
    }

    /// Returns the address of a key that is only an address; `None` for any other key.
    #[must_use]
    pub fn address(&self) -> Option<A> {
        if let Self::Address(address) = *self {
            Some(address)
        } else {
            None
        }
    }

    /// Returns the fields in the order of the set's key.
    fn parts(&self) -> impl Iterator<Item = KeyPart<A>> + use<A> {
        use KeyPart as P;
        let one = |part| [Some(part), None, None, None];
        let two = |first, second| [Some(first), Some(second), None, None];
        let three = |first, second, third| [Some(first), Some(second), Some(third), None];
        let parts = match *self {
            Self::Net(net) => one(P::Net(net)),
            Self::Address(address) => one(P::Address(address)),
            Self::Protocol(protocol) => one(P::Protocol(protocol)),
            Self::Original => one(P::Original),
            Self::Port(port) => one(P::Port(port)),
            Self::Pair(one, other) => two(P::Address(one), P::Address(other)),
            Self::AddressPort(address, port) => two(P::Address(address), P::Port(port)),
            Self::Frontend(protocol, address, port) => {
                three(P::Protocol(protocol), P::Address(address), P::Port(port))
            }
            Self::Slot(protocol, address, port, slot) => [
                Some(P::Protocol(protocol)),
                Some(P::Address(address)),
                Some(P::Port(port)),
                Some(P::Slot(slot)),
            ],
            Self::Nodeport(protocol, port) => two(P::Protocol(protocol), P::Port(port)),
            Self::NodeportSlot(protocol, port, slot) => {
                three(P::Protocol(protocol), P::Port(port), P::Slot(slot))
            }
            Self::SourceRange(protocol, address, port, net) => [
                Some(P::Address(address)),
                Some(P::Protocol(protocol)),
                Some(P::Port(port)),
                Some(P::Net(net)),
            ],
            Self::PortRange(protocol, address, range) => three(
                P::Address(address),
                P::Protocol(protocol),
                P::PortRange(range),
            ),
            Self::Ranges(protocol, address) => two(P::Protocol(protocol), P::Address(address)),
            Self::RangeSlot(protocol, address, slot) => {
                three(P::Protocol(protocol), P::Address(address), P::Slot(slot))
            }
            Self::Client(client, address, port) => {
                three(P::Address(client), P::Address(address), P::Port(port))
            }
            Self::Sent(address, port, endpoint, number) => [
                Some(P::Address(address)),
                Some(P::Port(port)),
                Some(P::Address(endpoint)),
                Some(P::Port(number)),
            ],
        };
        parts.into_iter().flatten()
    }

    /// Returns the key with these fields; `None` if no set has such a key.
    #[must_use]
    pub fn from_parts(parts: &[KeyPart<A>]) -> Option<Self> {
        Some(match *parts {
            [KeyPart::Net(net)] => Self::Net(net),
            [KeyPart::Address(address)] => Self::Address(address),
            [KeyPart::Protocol(protocol)] => Self::Protocol(protocol),
            [KeyPart::Port(port)] => Self::Port(port),
            [KeyPart::Original] => Self::Original,
            [KeyPart::Address(one), KeyPart::Address(other)] => Self::Pair(one, other),
            [KeyPart::Address(address), KeyPart::Port(port)] => Self::AddressPort(address, port),
            [
                KeyPart::Protocol(protocol),
                KeyPart::Address(address),
                KeyPart::Port(port),
            ] => Self::Frontend(protocol, address, port),
            [
                KeyPart::Protocol(protocol),
                KeyPart::Address(address),
                KeyPart::Port(port),
                KeyPart::Slot(slot),
            ] => Self::Slot(protocol, address, port, slot),
            [KeyPart::Protocol(protocol), KeyPart::Port(port)] => Self::Nodeport(protocol, port),
            [
                KeyPart::Protocol(protocol),
                KeyPart::Port(port),
                KeyPart::Slot(slot),
            ] => Self::NodeportSlot(protocol, port, slot),
            [
                KeyPart::Address(address),
                KeyPart::Protocol(protocol),
                KeyPart::Port(port),
                KeyPart::Net(net),
            ] => Self::SourceRange(protocol, address, port, net),
            [
                KeyPart::Address(address),
                KeyPart::Protocol(protocol),
                KeyPart::PortRange(range),
            ] => Self::PortRange(protocol, address, range),
            [KeyPart::Protocol(protocol), KeyPart::Address(address)] => {
                Self::Ranges(protocol, address)
            }
            [
                KeyPart::Protocol(protocol),
                KeyPart::Address(address),
                KeyPart::Slot(slot),
            ] => Self::RangeSlot(protocol, address, slot),
            [
                KeyPart::Address(client),
                KeyPart::Address(address),
                KeyPart::Port(port),
            ] => Self::Client(client, address, port),
            [
                KeyPart::Address(address),
                KeyPart::Port(port),
                KeyPart::Address(endpoint),
                KeyPart::Port(number),
            ] => Self::Sent(address, port, endpoint, number),
            _ => return None,
        })
    }

    /// Returns whether the keys of a set have these fields.
    #[must_use]
    pub fn fits(&self, name: SetName) -> bool {
        self.parts()
            .map(|part| part.field())
            .eq(set(name).key.iter().copied())
    }

    /// Returns the kernel's representation; for a range, that of its first address or port.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match *self {
            // A single field is not padded.
            Self::Protocol(protocol) => vec![protocol.number()],
            Self::Port(port) => port.to_be_bytes().into(),
            Self::Original => vec![ORIGINAL],
            Self::Net(_)
            | Self::Address(_)
            | Self::Pair(..)
            | Self::AddressPort(..)
            | Self::Frontend(..)
            | Self::Slot(..)
            | Self::Nodeport(..)
            | Self::NodeportSlot(..)
            | Self::SourceRange(..)
            | Self::PortRange(..)
            | Self::Ranges(..)
            | Self::RangeSlot(..)
            | Self::Client(..)
            | Self::Sent(..) => self.registers(RangeEnd::First),
        }
    }

    /// Returns the kernel's representation of the end of a key that ends with a range.
    ///
    /// It has the last address or port of the range. `None` for other keys.
    #[must_use]
    pub fn end_bytes(&self) -> Option<Vec<u8>> {
        let ends_with_range = matches!(self, Self::SourceRange(..) | Self::PortRange(..));
        ends_with_range.then(|| self.registers(RangeEnd::Last))
    }

    /// Returns the fields as registers, with this end of a range.
    fn registers(&self, end: RangeEnd) -> Vec<u8> {
        let append = |registers: Registers, part| match part {
            KeyPart::Protocol(protocol) => registers.protocol(protocol),
            KeyPart::Address(address) => registers.address(address),
            KeyPart::Net(net) => registers.address(match end {
                RangeEnd::First => A::bounds(net).0,
                RangeEnd::Last => A::last_address(net),
            }),
            KeyPart::Port(port) => registers.port(port),
            KeyPart::PortRange(range) => registers.port(match end {
                RangeEnd::First => range.first(),
                RangeEnd::Last => range.last(),
            }),
            KeyPart::Slot(slot) => registers.slot(slot),
            KeyPart::Original => registers.bytes(&[ORIGINAL, 0, 0, 0]),
        };
        self.parts().fold(Registers::new(), append).0
    }

    /// Parses the kernel's representation of a key of this set or map.
    ///
    /// `end` is present if the key ends with a range. `None` if kube-dnat does not write such a
    /// key. The kernel has two elements for each key of a set of ranges: see [`crate::netlink`].
    #[must_use]
    pub fn from_bytes(name: SetName, start: &[u8], end: Option<&[u8]>) -> Option<Self> {
        let fields = set(name).key;
        match (fields, start) {
            ([KeyField::Protocol], [number]) => {
                return Some(Self::Protocol(Protocol::from_number(*number)?));
            }
            ([KeyField::Port], [high, low]) => {
                return Some(Self::Port(u16::from_be_bytes([*high, *low])));
            }
            ([KeyField::Direction], [ORIGINAL]) => return Some(Self::Original),
            (
                [
                    KeyField::Protocol
                    | KeyField::Port
                    | KeyField::PortRange
                    | KeyField::Net
                    | KeyField::Direction,
                ],
                _,
            ) => return None,
            _ => {}
        }
        let mut reader = RegisterReader(start);
        let mut parts = Vec::with_capacity(fields.len());
        for field in fields {
            parts.push(match field {
                KeyField::Protocol => KeyPart::Protocol(reader.protocol()?),
                KeyField::Address => KeyPart::Address(reader.address()?),
                KeyField::Port => KeyPart::Port(reader.port()?),
                KeyField::Slot => KeyPart::Slot(reader.slot()?),
                KeyField::Direction => return None,
                KeyField::PortRange => {
                    let first = reader.port()?;
                    let end = end?;
                    let last = RegisterReader(end.get(end.len().checked_sub(4)?..)?).port()?;
                    KeyPart::PortRange(PortRange::new(first, last)?)
                }
                KeyField::Net => {
                    let (first, end) = (reader.address::<A>()?, end?);
                    let last = A::from_bytes(end.get(end.len().checked_sub(A::LEN)?..)?)?;
                    let [net] = A::between(first, last)[..] else {
                        return None;
                    };
                    KeyPart::Net(net)
                }
            });
        }
        reader.0.is_empty().then(|| Self::from_parts(&parts))?
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn keys<A: Address>(one: A, other: A) -> Vec<(SetName, Key<A>)> {
        vec![
            (SetName::NodeIps, Key::Address(one)),
            (SetName::ExternalNodeports(Protocol::Udp), Key::Port(30080)),
            (SetName::Hairpin, Key::Pair(one, other)),
            (SetName::External(Protocol::Tcp), Key::AddressPort(one, 80)),
            (SetName::Services, Key::Frontend(Protocol::Sctp, one, 80)),
            (SetName::Endpoints, Key::Slot(Protocol::Tcp, one, 80, 65537)),
            (SetName::Nodeports, Key::Nodeport(Protocol::Udp, 30080)),
            (
                SetName::NodeportEndpoints,
                Key::NodeportSlot(Protocol::Udp, 30080, 9),
            ),
            (SetName::Ranges, Key::Ranges(Protocol::Udp, one)),
            (
                SetName::RangeEndpoints,
                Key::RangeSlot(Protocol::Udp, one, 65537),
            ),
        ]
    }

    fn round_trip_of_a_range<A: Address>(address: A) {
        let range = PortRange::new(30000, 30999).unwrap();
        let key = Key::PortRange(Protocol::Udp, address, range);
        assert!(key.fits(SetName::PortRanges));
        let (first, last) = (key.to_bytes(), key.end_bytes().unwrap());
        assert_eq!(first[first.len() - 4..], [0x75, 0x30, 0, 0]);
        assert_eq!(last[last.len() - 4..], [0x79, 0x17, 0, 0]);
        let read = |end| Key::from_bytes(SetName::PortRanges, &first, end);
        assert_eq!(read(Some(&last)), Some(key));
        assert_eq!(read(None), None);
        assert_eq!(read(Some(&[])), None);
    }

    fn round_trip<A: Address>(one: A, other: A) {
        for (name, key) in keys(one, other) {
            assert!(key.fits(name), "{name}");
            assert!(!Key::Client(one, other, 1).fits(name), "{name}");
            let bytes = key.to_bytes();
            assert_eq!(
                u32::try_from(bytes.len()),
                Ok(set(name).key_len(A::FAMILY)),
                "{name}"
            );
            assert_eq!(Key::from_bytes(name, &bytes, None), Some(key), "{name}");
            assert_eq!(
                Key::<A>::from_bytes(name, &[&bytes[..], &[0]].concat(), None),
                None,
                "{name}"
            );
        }
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        round_trip(Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 244, 1, 9));
        round_trip(Ipv6Addr::LOCALHOST, "fd00:10:96::1".parse().unwrap());
        round_trip_of_a_range(Ipv4Addr::LOCALHOST);
        round_trip_of_a_range(Ipv6Addr::LOCALHOST);
    }

    #[test]
    fn a_key_is_what_nft_debug_shows() {
        let key = Key::Slot(Protocol::Tcp, Ipv4Addr::new(203, 0, 113, 5), 80, 65536);
        let expected = [6, 0, 0, 0, 203, 0, 113, 5, 0, 80, 0, 0];
        assert_eq!(key.to_bytes()[..12], expected);
        assert_eq!(key.to_bytes()[12..], 65536_u32.to_ne_bytes());
    }
}
