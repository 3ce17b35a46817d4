//! One generic over IPv4 and IPv6, so that a family is a type and never an `if`.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use super::endpoint::{Endpoint, SliceEndpoints};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4: `table ip kube-dnat`.
    Ipv4,
    /// IPv6: `table ip6 kube-dnat`.
    Ipv6,
}

impl Family {
    /// `IPv4` or `IPv6`, as Kubernetes' API has it (`v1.IPFamily`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address of one family, [`Ipv4Addr`] or [`Ipv6Addr`].
pub trait Address:
    Copy + Debug + Display + Eq + Ord + Hash + Into<IpAddr> + Send + Sync + 'static
{
    /// A range of such addresses.
    type Net: Copy + Debug + Display + Eq + Ord + Hash + Send + Sync + 'static;

    /// Its bits as a number, by which addresses are in the same order.
    type Bits: Copy + Ord;

    /// The family.
    const FAMILY: Family;
    /// Bytes of an address on the wire.
    const LEN: usize;

    /// `address`, if it is of this family.
    fn of(address: IpAddr) -> Option<Self>;

    /// `net`, if it is of this family.
    fn net_of(net: IpNet) -> Option<Self::Net>;

    /// The endpoints of a slice, if they are of this family.
    fn endpoints(addresses: &SliceEndpoints) -> Option<&[Endpoint<Self>]>;

    /// Its bits.
    fn bits(self) -> Self::Bits;

    /// Appends the address in network byte order, [`Self::LEN`] bytes.
    fn push_bytes(self, bytes: &mut Vec<u8>);

    /// The address whose network byte order is `bytes`, if there are [`Self::LEN`] of them.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;

    /// First address of `net` and the address after its last (`None` past the end of the space).
    fn bounds(net: Self::Net) -> (Self, Option<Self>);

    /// Whether `net` holds one address only.
    fn is_single(net: Self::Net) -> bool {
        let (first, after) = Self::bounds(net);
        let mut next = Vec::with_capacity(Self::LEN);
        first.push_bytes(&mut next);
        for byte in next.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                return after == Self::from_bytes(&next);
            }
        }
        after.is_none()
    }

    /// The ranges from `first` up to, and without, `after` (`None`: to the end of the space).
    fn range(first: Self, after: Option<Self>) -> Vec<Self::Net>;

    /// The ranges from `first` up to and with `last`.
    fn between(first: Self, last: Self) -> Vec<Self::Net>;

    /// The range of one address.
    fn single(address: Self) -> Self::Net;

    /// The last address of `net`.
    fn last(net: Self::Net) -> Self;

    /// Whether `net` holds `address`.
    fn holds(net: Self::Net, address: Self) -> bool;

    /// What two ranges have in common: one holds the other, or nothing.
    fn common(one: Self::Net, other: Self::Net) -> Option<Self::Net> {
        let holds = |outer, inner| {
            Self::holds(outer, Self::bounds(inner).0) && Self::holds(outer, Self::last(inner))
        };
        if holds(other, one) {
            Some(one)
        } else {
            Some(other).filter(|other| holds(one, *other))
        }
    }

    /// Whether `net` holds every address.
    fn covers_all(net: Self::Net) -> bool;

    /// The smallest list of ranges that covers just what `nets` cover, in order.
    fn aggregate(nets: &[Self::Net]) -> Vec<Self::Net>;
}

impl Address for Ipv4Addr {
    type Net = Ipv4Net;
    type Bits = u32;

    const FAMILY: Family = Family::Ipv4;
    const LEN: usize = 4;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }
    }

    fn net_of(net: IpNet) -> Option<Ipv4Net> {
        match net {
            IpNet::V4(v4) => Some(v4.trunc()),
            IpNet::V6(_) => None,
        }
    }

    fn endpoints(addresses: &SliceEndpoints) -> Option<&[Endpoint<Self>]> {
        match addresses {
            SliceEndpoints::Ipv4(endpoints) => Some(endpoints),
            SliceEndpoints::Ipv6(_) => None,
        }
    }

    fn bits(self) -> Self::Bits {
        self.to_bits()
    }

    fn push_bytes(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.octets());
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        <[u8; 4]>::try_from(bytes).ok().map(Self::from)
    }

    fn bounds(net: Ipv4Net) -> (Self, Option<Self>) {
        let after = u32::from(net.broadcast()).checked_add(1);
        (net.network(), after.map(Self::from))
    }

    fn range(first: Self, after: Option<Self>) -> Vec<Ipv4Net> {
        let last = after.map_or(u32::MAX, |after| u32::from(after).saturating_sub(1));
        Ipv4Subnets::new(first, last.into(), 0).collect()
    }

    fn between(first: Self, last: Self) -> Vec<Ipv4Net> {
        Ipv4Subnets::new(first, last, 0).collect()
    }

    fn single(address: Self) -> Ipv4Net {
        address.into()
    }

    fn last(net: Ipv4Net) -> Self {
        net.broadcast()
    }

    fn holds(net: Ipv4Net, address: Self) -> bool {
        net.contains(&address)
    }

    fn covers_all(net: Ipv4Net) -> bool {
        net.prefix_len() == 0
    }

    fn aggregate(nets: &[Ipv4Net]) -> Vec<Ipv4Net> {
        Ipv4Net::aggregate(&nets.to_vec())
    }
}

impl Address for Ipv6Addr {
    type Net = Ipv6Net;
    type Bits = u128;

    const FAMILY: Family = Family::Ipv6;
    const LEN: usize = 16;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        }
    }

    fn net_of(net: IpNet) -> Option<Ipv6Net> {
        match net {
            IpNet::V6(v6) => Some(v6.trunc()),
            IpNet::V4(_) => None,
        }
    }

    fn endpoints(addresses: &SliceEndpoints) -> Option<&[Endpoint<Self>]> {
        match addresses {
            SliceEndpoints::Ipv6(endpoints) => Some(endpoints),
            SliceEndpoints::Ipv4(_) => None,
        }
    }

    fn bits(self) -> Self::Bits {
        self.to_bits()
    }

    fn push_bytes(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.octets());
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        <[u8; 16]>::try_from(bytes).ok().map(Self::from)
    }

    fn bounds(net: Ipv6Net) -> (Self, Option<Self>) {
        let after = u128::from(net.broadcast()).checked_add(1);
        (net.network(), after.map(Self::from))
    }

    fn range(first: Self, after: Option<Self>) -> Vec<Ipv6Net> {
        let last = after.map_or(u128::MAX, |after| u128::from(after).saturating_sub(1));
        Ipv6Subnets::new(first, last.into(), 0).collect()
    }

    fn between(first: Self, last: Self) -> Vec<Ipv6Net> {
        Ipv6Subnets::new(first, last, 0).collect()
    }

    fn single(address: Self) -> Ipv6Net {
        address.into()
    }

    fn last(net: Ipv6Net) -> Self {
        net.broadcast()
    }

    fn holds(net: Ipv6Net, address: Self) -> bool {
        net.contains(&address)
    }

    fn covers_all(net: Ipv6Net) -> bool {
        net.prefix_len() == 0
    }

    fn aggregate(nets: &[Ipv6Net]) -> Vec<Ipv6Net> {
        Ipv6Net::aggregate(&nets.to_vec())
    }
}
