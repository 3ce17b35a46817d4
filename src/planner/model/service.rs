//! Services, which have the addresses and ports that clients connect to.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{ServiceFeatures, ServiceName};

/// The transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The Transmission Control Protocol.
    Tcp,
    /// The User Datagram Protocol.
    Udp,
    /// The Stream Control Transmission Protocol.
    Sctp,
}

impl Protocol {
    /// All protocols, in the order of the ruleset.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Returns the protocol number in an IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Returns the protocol with this number in an IP header.
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

/// The traffic policy of a Service, which selects the endpoints of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum TrafficPolicy {
    /// All endpoints of the cluster.
    #[default]
    Cluster,
    /// Only the endpoints on this node.
    Local,
}

impl fmt::Display for TrafficPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        })
    }
}

/// The answer to outside clients of external policy Local if no endpoint is on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoLocalEndpoint {
    /// None, as with kube-proxy.
    #[default]
    Drop,
    /// A TCP reset, or an ICMP error for other protocols.
    Reject,
}

impl NoLocalEndpoint {
    /// The names of all answers, for a flag and an annotation.
    pub const NAMES: [&str; 2] = ["drop", "reject"];

    /// Returns the answer with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let position = Self::NAMES.iter().position(|known| *known == name)?;
        [Self::Drop, Self::Reject].get(position).copied()
    }
}

/// A Service with at least one `ClusterIP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The namespace and name.
    pub name: ServiceName,
    /// The time of `metadata.creationTimestamp`, in seconds since 1970.
    ///
    /// The older of two Services has a frontend that both claim. `None`, as in objects from
    /// manifests, is younger than any time.
    pub created: Option<i64>,
    /// Whether the Service has a selector, so that its Endpoints object is ignored.
    pub has_selector: bool,
    /// The `ClusterIPs`, of both families.
    pub cluster_ips: Box<[IpAddr]>,
    /// The addresses in `spec.externalIPs`, of both families.
    pub external_ips: Box<[IpAddr]>,
    /// The addresses in `status.loadBalancer.ingress` with `ipMode` VIP or none, of both families.
    pub load_balancer_ips: Box<[IpAddr]>,
    /// The policy for connections to `ClusterIPs` (`spec.internalTrafficPolicy`).
    pub internal_policy: TrafficPolicy,
    /// The policy for connections to other frontends (`spec.externalTrafficPolicy`).
    ///
    /// `Local` only if the field has an effect: with type `NodePort` or `LoadBalancer`, or with
    /// external IPs.
    pub external_policy: TrafficPolicy,
    /// The session affinity timeout in seconds; `None` without `spec.sessionAffinity: ClientIP`.
    pub affinity: Option<u32>,
    /// The sources that may use the load-balancer IPs (`spec.loadBalancerSourceRanges`).
    ///
    /// All sources of a family may, if it has no range or one with prefix length 0.
    pub source_ranges: Box<[IpNet]>,
    /// The port in `spec.healthCheckNodePort`, from 1 to 65535.
    ///
    /// Only if the field has an effect: with type `LoadBalancer` and external policy Local.
    pub health_check_node_port: Option<u16>,
    /// The ports, in the object's order.
    pub ports: Box<[ServicePort]>,
    /// The features that annotations switch on, which most Services do not have.
    pub features: Option<Box<ServiceFeatures>>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The name that slices refer to, empty if the port has none.
    pub name: Arc<str>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port number at `ClusterIPs`, external and load-balancer IPs, from 1 to 65535.
    pub port: u16,
    /// The node port, from 1 to 65535, if there is one.
    pub node_port: Option<u16>,
}
