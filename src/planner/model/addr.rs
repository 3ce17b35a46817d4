//! A trait for IPv4 and IPv6 addresses, which makes the address family a type parameter.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use super::endpoint::{Endpoint, SliceEndpoints};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, the family of `table ip kube-dnat`.
    Ipv4,
    /// IPv6, the family of `table ip6 kube-dnat`.
    Ipv6,
}

impl Family {
    /// Returns `IPv4` or `IPv6`, the values of `v1.IPFamily` in the Kubernetes API.
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

/// An address of one family: [`Ipv4Addr`] or [`Ipv6Addr`].
pub trait Address:
    Copy + Debug + Display + Eq + Ord + Hash + Into<IpAddr> + Send + Sync + 'static
{
    /// A range of addresses of this family, written as a CIDR.
    type Net: Copy + Debug + Display + Eq + Ord + Hash + Send + Sync + 'static;

    /// The address as a number, which sorts like the address.
    type Bits: Copy + Ord;

    /// The family of this address type.
    const FAMILY: Family;
    /// The length of an address in bytes.
    const LEN: usize;

    /// Converts an address, if it is of this family.
    fn from_ip(address: IpAddr) -> Option<Self>;

    /// Converts a range, if it is of this family, and clears its host bits.
    fn from_net(net: IpNet) -> Option<Self::Net>;

    /// Returns the endpoints of a slice, if they are of this family.
    fn endpoints(addresses: &SliceEndpoints) -> Option<&[Endpoint<Self>]>;

    /// Returns the address as a number.
    fn bits(self) -> Self::Bits;

    /// Appends the address in network byte order, [`Self::LEN`] bytes.
    fn push_bytes(self, bytes: &mut Vec<u8>);

    /// Parses an address in network byte order; `None` if there are not [`Self::LEN`] bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;

    /// Returns the first address of a range and the one after its last.
    ///
    /// The second is `None` if the range ends with the last address of the family.
    fn bounds(net: Self::Net) -> (Self, Option<Self>);

    /// Returns whether a range consists of one address.
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

    /// Returns the CIDRs that cover `first` up to but not including `after`.
    ///
    /// `None` stands for the end of the family's address space.
    fn range(first: Self, after: Option<Self>) -> Vec<Self::Net>;

    /// Returns the CIDRs that cover `first` up to and including `last`.
    fn between(first: Self, last: Self) -> Vec<Self::Net>;

    /// Returns the range that consists of this address.
    fn host_net(address: Self) -> Self::Net;

    /// Returns the last address of a range.
    fn last_address(net: Self::Net) -> Self;

    /// Returns whether a range contains an address.
    fn contains(net: Self::Net, address: Self) -> bool;

    /// Returns the intersection of two ranges: one contains the other, or they are disjoint.
    fn intersection(one: Self::Net, other: Self::Net) -> Option<Self::Net> {
        let covers = |outer, inner| {
            Self::contains(outer, Self::bounds(inner).0)
                && Self::contains(outer, Self::last_address(inner))
        };
        if covers(other, one) {
            Some(one)
        } else {
            Some(other).filter(|other| covers(one, *other))
        }
    }

    /// Returns whether a range contains every address of the family.
    fn is_default_route(net: Self::Net) -> bool;

    /// Returns the shortest sorted list of ranges that covers the same addresses.
    fn aggregate(nets: &[Self::Net]) -> Vec<Self::Net>;
}

impl Address for Ipv4Addr {
    type Net = Ipv4Net;
    type Bits = u32;

    const FAMILY: Family = Family::Ipv4;
    const LEN: usize = 4;

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }
    }

    fn from_net(net: IpNet) -> Option<Ipv4Net> {
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

    fn host_net(address: Self) -> Ipv4Net {
        address.into()
    }

    fn last_address(net: Ipv4Net) -> Self {
        net.broadcast()
    }

    fn contains(net: Ipv4Net, address: Self) -> bool {
        net.contains(&address)
    }

    fn is_default_route(net: Ipv4Net) -> bool {
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

    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        }
    }

    fn from_net(net: IpNet) -> Option<Ipv6Net> {
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

    fn host_net(address: Self) -> Ipv6Net {
        address.into()
    }

    fn last_address(net: Ipv6Net) -> Self {
        net.broadcast()
    }

    fn contains(net: Ipv6Net, address: Self) -> bool {
        net.contains(&address)
    }

    fn is_default_route(net: Ipv6Net) -> bool {
        net.prefix_len() == 0
    }

    fn aggregate(nets: &[Ipv6Net]) -> Vec<Ipv6Net> {
        Ipv6Net::aggregate(&nets.to_vec())
    }
}
