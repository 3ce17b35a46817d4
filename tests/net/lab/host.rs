//! Machines and Pods, each with a namespace.

use std::net::IpAddr;

use super::{Family, Namespace, Probe, Protocol, Server};

/// A machine or a Pod: a namespace with an address of each family.
#[derive(Debug)]
pub(crate) struct Host {
    /// The namespace of its programs.
    pub(crate) namespace: Namespace,
    v4: IpAddr,
    v6: IpAddr,
    /// The node of a Pod.
    node: Option<&'static str>,
}

impl Host {
    pub(super) fn new(
        name: &str,
        node: Option<&'static str>,
        address: impl Fn(Family) -> IpAddr,
    ) -> Self {
        Self {
            namespace: Namespace::new(name),
            v4: address(Family::V4),
            v6: address(Family::V6),
            node,
        }
    }

    /// Returns the name, with which the servers of a Pod answer.
    pub(crate) fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Returns the address of a family.
    pub(crate) fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Returns the name of the node of a Pod.
    pub(crate) fn node(&self) -> Option<&'static str> {
        self.node
    }

    /// Starts a real server on a port with TCP and UDP, IPv4 and IPv6, which answers `NAME:PORT`.
    pub(crate) fn serve(&self, port: u16) -> Server {
        let name = format!("{}:{port}", self.name());
        Server::start(
            &self.namespace,
            &name,
            &Family::ALL.map(|family| (self.ip(family), port).into()),
        )
    }

    /// Builds a probe of an address and port from this host.
    pub(crate) fn probe(&self, protocol: Protocol, to: (IpAddr, u16)) -> Probe<'_> {
        Probe::new(&self.namespace, protocol, to)
    }

    /// Adds addresses to the loopback device, and waits until they are usable.
    pub(crate) fn hold(&self, ips: &[IpAddr]) {
        let length = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
        let lines = ips
            .iter()
            .map(|ip| format!("addr add {ip}/{} dev lo\n", length(ip)));
        self.namespace.ip(&lines.collect::<String>());
        self.namespace.await_addresses();
    }

    /// Connects the host to the bridge of the network.
    pub(super) fn connect(&self, gateway: &Host) {
        let (name, path) = (self.name(), gateway.namespace.path());
        self.namespace.ip(&format!(
            "link add eth0 type veth peer name {name} netns {path}\n\
             link set lo up\n\
             link set eth0 up\n"
        ));
        gateway
            .namespace
            .ip(&format!("link set {name} master lan up\n"));
    }

    /// Adds the address on the network and the default route through the gateway.
    pub(super) fn address(&self) {
        self.namespace.ip(&format!(
            "addr add {}/24 dev eth0\n\
             addr add {}/64 dev eth0\n\
             route add default via {}\n\
             route add default via {}\n",
            self.v4,
            self.v6,
            Family::V4.lan(1),
            Family::V6.lan(1),
        ));
    }

    /// Adds routes through another host, in both families.
    pub(super) fn route(&self, through: &Host, destination: impl Fn(Family) -> String) {
        for family in Family::ALL {
            self.namespace.ip(&format!(
                "route add {} via {}\n",
                destination(family),
                through.ip(family)
            ));
        }
    }
}
