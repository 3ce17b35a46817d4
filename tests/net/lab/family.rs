//! The lab's addresses, by IP family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP family; every test of packets runs in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families.
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The n-th `ClusterIP`: inside [`service_cidr`](Self::service_cidr).
    pub(crate) fn cluster_ip(self, n: u8) -> IpAddr {
        self.address([10, 96, 0, n], [0xfd00, 0x10, 0x96, 0], n)
    }

    /// The n-th external IP: on no interface anywhere, routed to node-1 by the network.
    pub(crate) fn external_ip(self, n: u8) -> IpAddr {
        self.address([203, 0, 113, n], [0x2001, 0xdb8, 0x203, 0], n)
    }

    /// The n-th load-balancer IP: on no interface anywhere, routed to node-1 by the network.
    pub(crate) fn load_balancer_ip(self, n: u8) -> IpAddr {
        self.address([198, 51, 100, n], [0x2001, 0xdb8, 0x198, 0], n)
    }

    /// The n-th address of the network that the nodes and the outside clients share.
    pub(crate) fn lan(self, n: u8) -> IpAddr {
        self.address([192, 168, 77, n], [0xfd00, 0x77, 0, 0], n)
    }

    /// The n-th address of the Pod CIDR of this node (node-1, node-2).
    pub(crate) fn pod(self, node: u8, n: u8) -> IpAddr {
        self.address(
            [10, 244, node, n],
            [0xfd00, 0x10, 0x244, u16::from(node)],
            n,
        )
    }

    /// What every `ClusterIP` is inside.
    pub(crate) fn service_cidr(self) -> &'static str {
        match self {
            Self::V4 => "10.96.0.0/16",
            Self::V6 => "fd00:10:96::/112",
        }
    }

    /// What every Pod is inside, of whatever node.
    pub(crate) fn cluster_cidr(self) -> &'static str {
        match self {
            Self::V4 => "10.244.0.0/16",
            Self::V6 => "fd00:10:244::/48",
        }
    }

    /// What every external IP is inside.
    pub(crate) fn external_cidr(self) -> &'static str {
        match self {
            Self::V4 => "203.0.113.0/24",
            Self::V6 => "2001:db8:203::/64",
        }
    }

    /// What every load-balancer IP is inside.
    pub(crate) fn load_balancer_cidr(self) -> &'static str {
        match self {
            Self::V4 => "198.51.100.0/24",
            Self::V6 => "2001:db8:198::/64",
        }
    }

    /// The Pod CIDR of one node.
    pub(crate) fn pod_cidr(self, node: u8) -> String {
        match self {
            Self::V4 => format!("10.244.{node}.0/24"),
            Self::V6 => format!("fd00:10:244:{node}::/64"),
        }
    }

    /// The table that kube-dnat keeps for the family, as `nft` names it.
    pub(crate) fn table(self) -> [&'static str; 2] {
        match self {
            Self::V4 => ["ip", "kube-dnat"],
            Self::V6 => ["ip6", "kube-dnat"],
        }
    }

    /// The family's name in an `EndpointSlice` and in a Service's `ipFamilies`.
    pub(crate) fn kubernetes_name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn address(self, v4: [u8; 4], v6_prefix: [u16; 4], last: u8) -> IpAddr {
        let [first, second, third, fourth] = v6_prefix;
        match self {
            Self::V4 => Ipv4Addr::from(v4).into(),
            Self::V6 => Ipv6Addr::new(first, second, third, fourth, 0, 0, 0, last.into()).into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kubernetes_name())
    }
}
