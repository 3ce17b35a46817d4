//! A Service: the addresses and ports that clients connect to.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::ServiceName;

/// A transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Every protocol, in the order of the ruleset.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The protocol number of IANA, as it stands in an IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol of an IP header's protocol number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Which endpoints connections are sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All of the cluster's.
    #[default]
    Cluster,
    /// Only those of this node.
    Local,
}

/// A Service with at least one `ClusterIP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `namespace/name`.
    pub name: ServiceName,
    /// `metadata.creationTimestamp` in seconds since 1970; the older of two Services keeps a
    /// frontend that both claim. `None` (hand-made objects) is younger than any.
    pub created: Option<i64>,
    /// Whether it has a selector: then its old-style Endpoints are not mirrored.
    pub has_selector: bool,
    /// `ClusterIPs`, of either family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`, of either family.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer.ingress` with `ipMode` VIP or none, of either family.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.internalTrafficPolicy`: for connections to its `ClusterIPs`.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: for connections to its other frontends. `Local` only where
    /// it counts: for type `NodePort` and `LoadBalancer`, and for external IPs of any type.
    pub external_policy: TrafficPolicy,
    /// `spec.sessionAffinity: ClientIP`: for how many seconds a client keeps its endpoint.
    pub affinity: Option<u32>,
    /// `spec.loadBalancerSourceRanges`: who may use its load-balancer IPs, of either family; of a
    /// family without a range, or with one of length 0, everyone.
    pub source_ranges: Vec<IpNet>,
    /// `spec.healthCheckNodePort`, where it counts: for type `LoadBalancer` with external policy
    /// Local. 1..=65535.
    pub health_check_node_port: Option<u16>,
    /// The ports, in the object's order.
    pub ports: Vec<ServicePort>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name, empty if it has none; slices refer to it by name.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port number of its `ClusterIPs`, external and load-balancer IPs; 1..=65535.
    pub port: u16,
    /// The port number on the node's addresses, if it has one; 1..=65535.
    pub node_port: Option<u16>,
}
