//! Elements of sets and maps: typed keys and values, as text and as bytes.

use std::fmt;
use std::sync::Arc;

use super::{ChainName, Data, OnDemand, SetName, set};
use crate::model::{Address, Protocol};

/// What an operator reads beside an element: `namespace/name:port-name`.
pub type Comment = Arc<str>;

/// The Service, `namespace/name`, and the name of its port (empty if it has none) that a comment
/// names.
#[must_use]
pub fn service_and_port(comment: &str) -> (&str, &str) {
    comment.split_once(':').unwrap_or((comment, ""))
}

/// The key of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key<A: Address> {
    /// A range of addresses.
    Net(A::Net),
    /// An address.
    Address(A),
    /// A protocol.
    Protocol(Protocol),
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
    /// A client, and the address and port that it connected to.
    Client(A, A, u16),
}

/// What a verdict map says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// `goto` a chain that is made on demand.
    OnDemand(OnDemand),
    /// `goto external-local`.
    ExternalLocal,
    /// `goto nodeport-external-local`.
    NodeportExternalLocal,
    /// `goto refuse`.
    Refuse,
    /// `drop`.
    Drop,
}

impl Verdict {
    /// The chain it goes to; `None`: it drops.
    #[must_use]
    pub fn chain(self) -> Option<ChainName> {
        match self {
            Self::OnDemand(chain) => Some(ChainName::OnDemand(chain)),
            Self::ExternalLocal => Some(ChainName::ExternalLocal),
            Self::NodeportExternalLocal => Some(ChainName::NodeportExternalLocal),
            Self::Refuse => Some(ChainName::Refuse),
            Self::Drop => None,
        }
    }

    /// The verdict that goes to the chain of this name.
    #[must_use]
    pub fn goto(chain: &str) -> Option<Self> {
        let fixed = [
            Self::ExternalLocal,
            Self::NodeportExternalLocal,
            Self::Refuse,
        ];
        let named = |verdict: &Self| {
            let name = verdict.chain().map(|name| name.to_string());
            name.as_deref() == Some(chain)
        };
        let fixed = fixed.into_iter().find(named);
        fixed.or_else(|| chain.parse().ok().map(Self::OnDemand))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chain() {
            Some(chain) => write!(f, "goto {chain}"),
            None => f.write_str("drop"),
        }
    }
}

/// What an element carries besides its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value<A> {
    /// Nothing: an element of a set.
    Nothing,
    /// What to do with the packet.
    Verdict(Verdict),
    /// Where to send the connection.
    Endpoint(A, u16),
}

/// An element with the set or map it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element<A: Address> {
    /// The set or map.
    pub set: SetName,
    /// Its key; one per set.
    pub key: Key<A>,
    /// Its value.
    pub value: Value<A>,
    /// Whose it is, for a reader of the listing.
    pub comment: Option<Comment>,
}

impl<A: Address> fmt::Display for Key<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // nft prints a range of one address as that address.
            Self::Net(net) if A::is_single(*net) => write!(f, "{}", A::bounds(*net).0),
            Self::Net(net) => write!(f, "{net}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Port(port) => write!(f, "{port}"),
            Self::Pair(one, other) => write!(f, "{one} . {other}"),
            Self::AddressPort(address, port) => write!(f, "{address} . {port}"),
            Self::Frontend(protocol, address, port) => {
                write!(f, "{protocol} . {address} . {port}")
            }
            Self::Slot(protocol, address, port, slot) => {
                write!(f, "{protocol} . {address} . {port} . {slot}")
            }
            Self::Nodeport(protocol, port) => write!(f, "{protocol} . {port}"),
            Self::NodeportSlot(protocol, port, slot) => {
                write!(f, "{protocol} . {port} . {slot}")
            }
            Self::Client(client, address, port) => write!(f, "{client} . {address} . {port}"),
            Self::SourceRange(protocol, address, port, net) => {
                write!(f, "{address} . {protocol} . {port} . {}", Self::Net(*net))
            }
        }
    }
}

impl<A: Address> fmt::Display for Element<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some(comment) = &self.comment {
            write!(f, " comment \"{comment}\"")?;
        }
        match self.value {
            Value::Nothing => Ok(()),
            Value::Verdict(verdict) => write!(f, " : {verdict}"),
            Value::Endpoint(address, port) => write!(f, " : {address} . {port}"),
        }
    }
}

/// Appends fields as nf_tables' registers hold them: network byte order, but for a slot, which
/// `numgen` writes in the host's; in a concatenation each field is padded to 4 bytes.
struct Registers(Vec<u8>);

impl Registers {
    fn new() -> Self {
        Self(Vec::with_capacity(36))
    }

    fn protocol(self, protocol: Protocol) -> Self {
        self.bytes(&[protocol.number(), 0, 0, 0])
    }

    fn port(self, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        self.bytes(&[high, low, 0, 0])
    }

    fn slot(self, slot: u32) -> Self {
        self.bytes(&slot.to_ne_bytes())
    }

    fn address<A: Address>(mut self, address: A) -> Self {
        address.push_bytes(&mut self.0);
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

impl<A: Address> Key<A> {
    /// The key as the kernel holds it; of a range, its first address.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let registers = Registers::new();
        match *self {
            Self::Net(net) => registers.address(A::bounds(net).0),
            Self::Address(address) => registers.address(address),
            Self::Protocol(protocol) => registers.bytes(&[protocol.number()]),
            Self::Port(port) => registers.bytes(&port.to_be_bytes()),
            Self::Pair(one, other) => registers.address(one).address(other),
            Self::AddressPort(address, port) => registers.address(address).port(port),
            Self::Frontend(protocol, address, port) => {
                registers.protocol(protocol).address(address).port(port)
            }
            Self::Slot(protocol, address, port, slot) => registers
                .protocol(protocol)
                .address(address)
                .port(port)
                .slot(slot),
            Self::Nodeport(protocol, port) => registers.protocol(protocol).port(port),
            Self::NodeportSlot(protocol, port, slot) => {
                registers.protocol(protocol).port(port).slot(slot)
            }
            Self::Client(client, address, port) => {
                registers.address(client).address(address).port(port)
            }
            Self::SourceRange(protocol, address, port, net) => registers
                .address(address)
                .protocol(protocol)
                .port(port)
                .address(A::bounds(net).0),
        }
        .0
    }

    /// Where a key that ends in a range ends, as the kernel holds it: the last address of the
    /// range. `None` for other keys.
    #[must_use]
    pub fn end_bytes(&self) -> Option<Vec<u8>> {
        match *self {
            Self::SourceRange(protocol, address, port, net) => {
                let registers = Registers::new().address(address).protocol(protocol);
                Some(registers.port(port).address(A::last(net)).0)
            }
            Self::Net(_)
            | Self::Address(_)
            | Self::Protocol(_)
            | Self::Port(_)
            | Self::Pair(..)
            | Self::AddressPort(..)
            | Self::Frontend(..)
            | Self::Slot(..)
            | Self::Nodeport(..)
            | Self::NodeportSlot(..)
            | Self::Client(..) => None,
        }
    }

    /// The key that ends in a range, from where it starts and ends.
    #[must_use]
    pub fn range_from_bytes(start: &[u8], end: &[u8]) -> Option<Self> {
        let mut reader = Reader(start);
        let (address, protocol) = (reader.address()?, reader.protocol()?);
        let (port, first) = (reader.port()?, reader.address::<A>()?);
        let last = A::from_bytes(end.get(end.len().checked_sub(A::LEN)?..)?)?;
        match A::between(first, last)[..] {
            [net] => Some(Self::SourceRange(protocol, address, port, net)),
            _ => None,
        }
    }

    /// The key of an element of `name` that the kernel holds as `bytes`; `None` if they cannot be
    /// one of ours (of an interval set, see [`crate::netlink`]).
    #[must_use]
    pub fn from_bytes(name: SetName, bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let key = match name {
            // Their keys have two ends: see `range_from_bytes`, and `crate::netlink`.
            SetName::PodCidrs | SetName::ServiceCidrs | SetName::SourceRanges => return None,
            SetName::Affinity(_) => {
                Self::Client(reader.address()?, reader.address()?, reader.port()?)
            }
            SetName::AffinityFull => {
                let [number] = <[u8; 1]>::try_from(bytes).ok()?;
                return Some(Self::Protocol(Protocol::from_number(number)?));
            }
            SetName::NodeIps | SetName::ClusterIps => Self::Address(reader.address()?),
            SetName::MasqueradeNodeport(_)
            | SetName::MasqueradeNodeNodeport(_)
            | SetName::StickyNodeport(_) => {
                let port = <[u8; 2]>::try_from(bytes).ok()?;
                return Some(Self::Port(u16::from_be_bytes(port)));
            }
            SetName::Hairpin => Self::Pair(reader.address()?, reader.address()?),
            SetName::Masquerade(_) | SetName::MasqueradeNode(_) | SetName::Sticky(_) => {
                Self::AddressPort(reader.address()?, reader.port()?)
            }
            SetName::Services
            | SetName::ServicesWide
            | SetName::ServicesNodeLocal
            | SetName::SourceRangesChecked
            | SetName::NoEndpoints => {
                Self::Frontend(reader.protocol()?, reader.address()?, reader.port()?)
            }
            SetName::Endpoints => Self::Slot(
                reader.protocol()?,
                reader.address()?,
                reader.port()?,
                reader.slot()?,
            ),
            SetName::Nodeports
            | SetName::NodeportsWide
            | SetName::NodeportsNodeLocal
            | SetName::NoEndpointsNodeports => Self::Nodeport(reader.protocol()?, reader.port()?),
            SetName::NodeportEndpoints => {
                Self::NodeportSlot(reader.protocol()?, reader.port()?, reader.slot()?)
            }
        };
        reader.0.is_empty().then_some(key)
    }
}

impl<A: Address> Value<A> {
    /// An endpoint as the kernel holds it; `None` for any other value.
    #[must_use]
    pub fn endpoint_bytes(&self) -> Option<Vec<u8>> {
        match *self {
            Self::Endpoint(address, port) => Some(Registers::new().address(address).port(port).0),
            Self::Nothing | Self::Verdict(_) => None,
        }
    }

    /// The endpoint that the kernel holds as `bytes`.
    #[must_use]
    pub fn endpoint_from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let endpoint = Self::Endpoint(reader.address()?, reader.port()?);
        reader.0.is_empty().then_some(endpoint)
    }

    /// Whether an element of `name` carries such a value.
    #[must_use]
    pub fn suits(&self, name: SetName) -> bool {
        let kind = match self {
            Self::Nothing => Data::Nothing,
            Self::Verdict(_) => Data::Verdict,
            Self::Endpoint(..) => Data::Endpoint,
        };
        set(name).data == kind
    }
}

/// Takes fields off the front of the bytes of a register.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn array(&mut self) -> Option<[u8; 4]> {
        self.take(4)?.try_into().ok()
    }

    fn protocol(&mut self) -> Option<Protocol> {
        let [number, ..] = self.array()?;
        Protocol::from_number(number)
    }

    fn port(&mut self) -> Option<u16> {
        let [high, low, ..] = self.array()?;
        Some(u16::from_be_bytes([high, low]))
    }

    fn slot(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    fn address<A: Address>(&mut self) -> Option<A> {
        self.take(A::LEN).and_then(A::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn keys<A: Address>(one: A, other: A) -> Vec<(SetName, Key<A>)> {
        vec![
            (SetName::NodeIps, Key::Address(one)),
            (SetName::MasqueradeNodeport(Protocol::Udp), Key::Port(30080)),
            (SetName::Hairpin, Key::Pair(one, other)),
            (
                SetName::Masquerade(Protocol::Tcp),
                Key::AddressPort(one, 80),
            ),
            (SetName::Services, Key::Frontend(Protocol::Sctp, one, 80)),
            (SetName::Endpoints, Key::Slot(Protocol::Tcp, one, 80, 65537)),
            (SetName::Nodeports, Key::Nodeport(Protocol::Udp, 30080)),
            (
                SetName::NodeportEndpoints,
                Key::NodeportSlot(Protocol::Udp, 30080, 9),
            ),
        ]
    }

    fn round_trip<A: Address>(one: A, other: A) {
        for (name, key) in keys(one, other) {
            let bytes = key.to_bytes();
            assert_eq!(
                u32::try_from(bytes.len()),
                Ok(set(name).key_len(A::FAMILY)),
                "{name}"
            );
            assert_eq!(Key::from_bytes(name, &bytes), Some(key), "{name}");
            assert_eq!(
                Key::<A>::from_bytes(name, &[&bytes[..], &[0]].concat()),
                None,
                "{name}"
            );
        }
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        round_trip(Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 244, 1, 9));
        round_trip(Ipv6Addr::LOCALHOST, "fd00:10:96::1".parse().unwrap());
    }

    #[test]
    fn a_key_is_what_nft_debug_shows() {
        let key = Key::Slot(Protocol::Tcp, Ipv4Addr::new(203, 0, 113, 5), 80, 65536);
        let expected = [6, 0, 0, 0, 203, 0, 113, 5, 0, 80, 0, 0];
        assert_eq!(key.to_bytes()[..12], expected);
        assert_eq!(key.to_bytes()[12..], 65536_u32.to_ne_bytes());
    }
}
