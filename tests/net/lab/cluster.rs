//! The topology of every test: two nodes and an outside client on one network, and Pods behind the
//! nodes.
//!
//! ```text
//!   gateway (192.168.77.1, fd00:77::1): bridge and default route; answers everything
//!      |
//!      +-- node-1 (.2, and .3, which is not an `InternalIP`)
//!      |      +-- pod-1 .9, pod-2 .10, pod-3 .11 of 10.244.1.0/24
//!      +-- node-2 (.12)
//!      |      +-- remote-1 .9, remote-2 .10 of 10.244.2.0/24
//!      +-- client (.100 and .101)
//! ```
//!
//! kube-dnat runs on node-1 only. The network routes `ClusterIPs`, external IPs and load-balancer
//! IPs to node-1. A packet that node-1 forwards without DNAT reaches the gateway, which answers
//! with its name. Thus a test can distinguish an untouched packet (`gateway` answers), a rejected
//! packet and a dropped packet.
//!
//! A remote Pod answers through node-2 directly to the source address that it sees. The answer
//! passes node-1 only if node-1 is that source, so a missing masquerade always shows.

use std::net::IpAddr;

use super::{Family, Host, Server, nft};

/// The lab of one test. Dropping it removes everything in it.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The default route of the network; its server `gateway` answers every address and port.
    pub(crate) gateway: Host,
    /// The node on which kube-dnat runs.
    pub(crate) node: Host,
    /// The other node. It forwards packets for its Pods and has no rules for Services.
    pub(crate) other_node: Host,
    /// A client outside the cluster.
    pub(crate) client: Host,
    /// Pods on node-1.
    pub(crate) pods: [Host; 3],
    /// Pods on node-2.
    pub(crate) remote_pods: [Host; 2],
    gateway_server: Option<Server>,
}

impl Cluster {
    /// Builds the lab.
    pub(crate) fn new() -> Self {
        let on_lan = |name, n| Host::new(name, None, move |family| family.lan(n));
        let pod = |name, node, n| {
            let names = ["node-1", "node-2"];
            Host::new(
                name,
                names.get(usize::from(node) - 1).copied(),
                move |family| family.pod(node, n),
            )
        };
        let gateway = on_lan("gateway", 1);
        build_gateway(&gateway);
        let mut cluster = Self {
            gateway,
            node: on_lan("node-1", 2),
            other_node: on_lan("node-2", 12),
            client: on_lan("client", 100),
            pods: [pod("pod-1", 1, 9), pod("pod-2", 1, 10), pod("pod-3", 1, 11)],
            remote_pods: [pod("remote-1", 2, 9), pod("remote-2", 2, 10)],
            gateway_server: None,
        };
        cluster.connect_lan();
        cluster
            .pods
            .iter()
            .for_each(|pod| connect_pod(&cluster.node, 1, pod));
        cluster
            .remote_pods
            .iter()
            .for_each(|pod| connect_pod(&cluster.other_node, 2, pod));
        cluster.route();
        for host in cluster.hosts() {
            host.namespace.await_addresses();
        }
        let addresses = Family::ALL.map(|family| (cluster.gateway.ip(family), GATEWAY_PORT).into());
        cluster.gateway_server = Some(Server::start(
            &cluster.gateway.namespace,
            "gateway",
            &addresses,
        ));
        cluster
    }

    /// Returns the address of node-1 that is not an `InternalIP` of its Node object.
    pub(crate) fn secondary_ip(family: Family) -> IpAddr {
        family.lan(3)
    }

    /// Returns the second address of the outside client.
    pub(crate) fn second_client_ip(family: Family) -> IpAddr {
        family.lan(101)
    }

    /// Returns whether a peer address belongs to node-1: its address on the network, or its end of
    /// a Pod's link, which is its source address towards its own Pods.
    pub(crate) fn is_node(ip: IpAddr) -> bool {
        Family::ALL
            .iter()
            .any(|family| ip == family.lan(2) || ip == family.pod(1, 1))
    }

    /// Returns the Pod with this name, on either node.
    pub(crate) fn pod(&self, name: &str) -> &Host {
        let mut pods = self.pods.iter().chain(&self.remote_pods);
        pods.find(|pod| pod.name() == name)
            .unwrap_or_else(|| panic!("no Pod {name}"))
    }

    /// Adds a machine to the network, with this number in its addresses, that forwards packets between
    /// the Pods of both nodes.
    pub(crate) fn add_router(&self, name: &str, number: u8) -> Host {
        let router = Host::new(name, None, |family| family.lan(number));
        router.connect(&self.gateway);
        router.address();
        forward_packets(&router);
        router.route(&self.node, |family| family.pod_cidr(1));
        router.route(&self.other_node, |family| family.pod_cidr(2));
        router.namespace.await_addresses();
        router
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        let machines = [&self.gateway, &self.node, &self.other_node, &self.client];
        machines
            .into_iter()
            .chain(&self.pods)
            .chain(&self.remote_pods)
    }

    fn connect_lan(&self) {
        for host in [&self.node, &self.other_node, &self.client] {
            host.connect(&self.gateway);
        }
        // IPv6 prefers the address that was added last as the source address.
        self.node.namespace.ip(&format!(
            "addr add {}/64 dev eth0\n",
            Self::secondary_ip(Family::V6)
        ));
        self.client.namespace.ip(&format!(
            "addr add {}/64 dev eth0\n",
            Self::second_client_ip(Family::V6)
        ));
        for host in [&self.node, &self.other_node, &self.client] {
            host.address();
        }
        self.node.namespace.ip(&format!(
            "addr add {}/24 dev eth0\n",
            Self::secondary_ip(Family::V4)
        ));
        self.client.namespace.ip(&format!(
            "addr add {}/24 dev eth0\n",
            Self::second_client_ip(Family::V4)
        ));
        for node in [&self.node, &self.other_node] {
            forward_packets(node);
        }
    }

    fn route(&self) {
        self.node
            .route(&self.other_node, |family| family.pod_cidr(2));
        self.other_node
            .route(&self.node, |family| family.pod_cidr(1));
        self.gateway.route(&self.node, |family| family.pod_cidr(1));
        self.gateway
            .route(&self.other_node, |family| family.pod_cidr(2));
        for host in [&self.client, &self.other_node] {
            host.route(&self.node, |family| family.service_cidr().to_owned());
            host.route(&self.node, |family| family.external_cidr().to_owned());
            host.route(&self.node, |family| family.load_balancer_cidr().to_owned());
        }
    }
}

/// Makes a machine forward packets.
fn forward_packets(host: &Host) {
    host.namespace.sysctls(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        // The default limit of one ICMP error per second and peer would make the result depend on
        // the order of the probes.
        ("net/ipv4/icmp_ratelimit", "0"),
        ("net/ipv6/icmp/ratelimit", "0"),
    ]);
}

/// The port of the gateway's server. The gateway redirects every destination to it.
const GATEWAY_PORT: u16 = 9;

/// Links a Pod to its node by a veth pair and a route to the Pod's address only, like the CNI
/// plugin `ptp`.
fn connect_pod(node: &Host, number: u8, pod: &Host) {
    let (name, path) = (pod.name(), pod.namespace.path());
    let (gateway_v4, gateway_v6) = (Family::V4.pod(number, 1), Family::V6.pod(number, 1));
    let [v4, v6] = Family::ALL.map(|family| pod.ip(family));
    node.namespace.ip(&format!(
        "link add {name} type veth peer name eth0 netns {path}\n\
         addr add {gateway_v4}/32 dev {name}\n\
         addr add {gateway_v6}/128 dev {name}\n\
         link set {name} up\n\
         route add {v4}/32 dev {name}\n\
         route add {v6}/128 dev {name}\n"
    ));
    pod.namespace.ip(&format!(
        "link set lo up\n\
         addr add {v4}/32 dev eth0\n\
         addr add {v6}/128 dev eth0\n\
         link set eth0 up\n\
         route add {gateway_v4}/32 dev eth0\n\
         route add {gateway_v6}/128 dev eth0\n\
         route add default via {gateway_v4}\n\
         route add default via {gateway_v6}\n"
    ));
}

/// Creates the bridge of the network, and redirects every connection that leaves it to one server.
fn build_gateway(gateway: &Host) {
    let [v4, v6] = Family::ALL.map(|family| gateway.ip(family));
    let namespace = &gateway.namespace;
    namespace.ip(&format!(
        "link set lo up\n\
         link add lan type bridge mcast_snooping 0\n\
         addr add {v4}/24 dev lan\n\
         addr add {v6}/64 dev lan\n\
         link set lan up\n"
    ));
    // The rule below must not match packets that only cross the bridge.
    let bridge_filter = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];
    for key in bridge_filter.map(|name| format!("net/bridge/{name}")) {
        if std::path::Path::new("/proc/sys").join(&key).exists() {
            namespace.sysctls(&[(&key, "0")]);
        }
    }
    let rules = format!(
        "table inet gateway {{\n\
           chain prerouting {{\n\
             type nat hook prerouting priority dstnat;\n\
             meta l4proto {{ tcp, udp }} redirect to :{GATEWAY_PORT}\n\
             icmp type echo-request redirect\n\
             icmpv6 type echo-request redirect\n\
           }}\n\
         }}\n"
    );
    nft::load(namespace, &rules);
}
