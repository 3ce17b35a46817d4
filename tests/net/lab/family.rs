//! The lab's addresses, by IP family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP family. Every packet test runs in both.
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

    /// Returns the n-th `ClusterIP`, which is inside [`service_cidr`](Self::service_cidr).
    pub(crate) fn cluster_ip(self, n: u8) -> IpAddr {
        self.address([10, 96, 0, n], [0xfd00, 0x10, 0x96, 0], n)
    }

    /// Returns the n-th external IP. No interface has it, and the network routes it to node-1.
    pub(crate) fn external_ip(self, n: u8) -> IpAddr {
        self.address([203, 0, 113, n], [0x2001, 0xdb8, 0x203, 0], n)
    }

    /// Returns the n-th load-balancer IP. No interface has it, and the network routes it to node-1.
    pub(crate) fn load_balancer_ip(self, n: u8) -> IpAddr {
        self.address([198, 51, 100, n], [0x2001, 0xdb8, 0x198, 0], n)
    }

    /// Returns the n-th address of the network that the nodes and the outside client share.
    pub(crate) fn lan(self, n: u8) -> IpAddr {
        self.address([192, 168, 77, n], [0xfd00, 0x77, 0, 0], n)
    }

    /// Returns the n-th address of the Pod CIDR of this node (1 for node-1, 2 for node-2).
    pub(crate) fn pod(self, node: u8, n: u8) -> IpAddr {
        self.address(
            [10, 244, node, n],
            [0xfd00, 0x10, 0x244, u16::from(node)],
            n,
        )
    }

    /// Returns the CIDR that contains every `ClusterIP`.
    pub(crate) fn service_cidr(self) -> &'static str {
        match self {
            Self::V4 => "10.96.0.0/16",
            Self::V6 => "fd00:10:96::/112",
        }
    }

    /// Returns the CIDR that contains the Pods of both nodes.
    pub(crate) fn cluster_cidr(self) -> &'static str {
        match self {
            Self::V4 => "10.244.0.0/16",
            Self::V6 => "fd00:10:244::/48",
        }
    }

    /// Returns the CIDR that contains every external IP.
    pub(crate) fn external_cidr(self) -> &'static str {
        match self {
            Self::V4 => "203.0.113.0/24",
            Self::V6 => "2001:db8:203::/64",
        }
    }

    /// Returns the CIDR that contains every load-balancer IP.
    pub(crate) fn load_balancer_cidr(self) -> &'static str {
        match self {
            Self::V4 => "198.51.100.0/24",
            Self::V6 => "2001:db8:198::/64",
        }
    }

    /// Returns the Pod CIDR of one node.
    pub(crate) fn pod_cidr(self, node: u8) -> String {
        match self {
            Self::V4 => format!("10.244.{node}.0/24"),
            Self::V6 => format!("fd00:10:244:{node}::/64"),
        }
    }

    /// Returns kube-dnat's table of the family, in `nft`'s syntax.
    pub(crate) fn table(self) -> [&'static str; 2] {
        match self {
            Self::V4 => ["ip", "kube-dnat"],
            Self::V6 => ["ip6", "kube-dnat"],
        }
    }

    /// Returns the family's name in an `EndpointSlice` and in a Service's `ipFamilies`.
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
