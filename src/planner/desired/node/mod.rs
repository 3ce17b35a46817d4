//! The elements of the node itself and of the cluster's address ranges.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Bound, RangeBounds as _};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Claims, ClientSides};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, NoLocalEndpoint, OwnAddresses, Protocol, Store};
use crate::planner::ruleset::{
    Element, Interface, Key, PodMatch, Program, SetName, TcpPickup, Value, Verdict,
};

/// The way to recognise this node's Pods (`--detect-local-mode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodSource {
    /// `ClusterCIDR`: by these address ranges, at most one of each family.
    ClusterCidr(Vec<IpNet>),
    /// `NodeCIDR`: by the address ranges in the Node object.
    NodeCidr,
    /// `BridgeInterface` and `InterfaceNamePrefix`: by the input interface of their packets.
    Interface(Interface),
}

impl Default for PodSource {
    fn default() -> Self {
        Self::ClusterCidr(Vec::new())
    }
}

impl fmt::Display for PodSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterCidr(ranges) if ranges.is_empty() => {
                f.write_str("ClusterCIDR without a range")
            }
            Self::ClusterCidr(ranges) => {
                let ranges: Vec<_> = ranges.iter().map(IpNet::to_string).collect();
                write!(f, "ClusterCIDR {}", ranges.join(","))
            }
            Self::NodeCidr => f.write_str("NodeCIDR"),
            Self::Interface(Interface::Named(name)) => write!(f, "BridgeInterface {name}"),
            Self::Interface(Interface::Prefixed(prefix)) => {
                write!(f, "InterfaceNamePrefix {prefix}")
            }
        }
    }
}

/// The configuration and addresses of this node, apart from its Node object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The way to recognise Pods.
    pub pods: PodSource,
    /// `--masquerade-all`: all connections to a `ClusterIP` are masqueraded.
    pub masquerade_all: bool,
    /// `nf_conntrack_tcp_loose`: how the kernel tracks packets of unknown TCP connections.
    pub tcp_pickup: TcpPickup,
    /// `--refuse-unserved-load-balancer-ports`: ports of load-balancer IPs that no Service has are
    /// refused.
    pub refuse_load_balancer_ports: bool,
    /// `--connection-counters`: the elements of frontends count connections.
    pub counters: bool,
    /// `--external-local-without-endpoints`: the answer to outside clients of external policy Local
    /// if no endpoint is on this node.
    pub no_local_endpoint: NoLocalEndpoint,
    /// The addresses of the node that serve node ports.
    pub node_port_addresses: NodePortAddresses,
    /// `--bind-address`: the node's primary address of its family, in place of the Node object's.
    pub node_ip: Option<IpAddr>,
    /// The addresses of this machine according to the kernel; `None`: not read.
    pub own_addresses: Option<OwnAddresses>,
}

impl Default for NodeFacts {
    fn default() -> Self {
        Self {
            pods: PodSource::default(),
            masquerade_all: false,
            tcp_pickup: TcpPickup::default(),
            refuse_load_balancer_ports: false,
            counters: true,
            no_local_endpoint: NoLocalEndpoint::default(),
            node_port_addresses: NodePortAddresses::default(),
            node_ip: None,
            own_addresses: None,
        }
    }
}

/// The addresses of the node that serve node ports (`--nodeport-addresses`).
///
/// Loopback addresses never do. An address of a Service does only if the Node object or a range
/// names it: otherwise node ports would bypass the Service's `loadBalancerSourceRanges`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// `primary`: the first address of each family in the Node object.
    #[default]
    Primary,
    /// The addresses in these ranges; all addresses of a family that has no range.
    In(Vec<IpNet>),
}

impl NodeFacts {
    /// Returns the options of the fixed program in family `A`.
    #[must_use]
    pub fn program<A: Address>(&self) -> Program {
        let pods = match &self.pods {
            PodSource::ClusterCidr(cidrs) => {
                let mut cidrs = cidrs.iter();
                if cidrs.any(|cidr| A::from_net(*cidr).is_some()) {
                    PodMatch::Cidrs
                } else {
                    PodMatch::Unknown
                }
            }
            PodSource::NodeCidr => PodMatch::Cidrs,
            PodSource::Interface(interface) => PodMatch::Interface(interface.clone()),
        };
        Program {
            pods,
            masquerade_all: self.masquerade_all,
            refuse_load_balancer_ports: self.refuse_load_balancer_ports,
            counters: self.counters,
        }
    }

    /// Returns the address ranges that tell on which side of the node a client is.
    #[must_use]
    pub fn sides<A: Address>(&self, node: &NodeElements<A>) -> ClientSides<A> {
        let by_interface = matches!(self.pods, PodSource::Interface(_));
        ClientSides {
            pods: (!by_interface).then(|| node.own_pod_cidrs.clone()),
            own: self
                .own_addresses
                .iter()
                .flat_map(|own| &own.all)
                .copied()
                .filter(|ip| !is_link_local(*ip))
                .filter_map(A::from_ip)
                .chain(node.primary_ip)
                .collect(),
        }
    }
}

/// The node's addresses and ranges of one family, and the elements for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeElements<A: Address> {
    /// The address ranges of all Pods.
    pod_cidrs: Vec<A::Net>,
    /// The address ranges of this node's Pods.
    own_pod_cidrs: Vec<A::Net>,
    /// The first address in the Node object, or that of the default route.
    primary_ip: Option<A>,
    /// The addresses that serve node ports.
    node_ips: BTreeSet<A>,
    /// All addresses of this machine.
    own: BTreeSet<A>,
    /// All addresses in the Node object.
    named: BTreeSet<A>,
    /// The protocols that count clients without a place in a full affinity map.
    counted: &'static [Protocol],
    /// The address ranges of `ClusterIPs`.
    service_cidrs: Vec<A::Net>,
    /// The answer to outside clients of external policy Local if no endpoint is on this node.
    no_local_endpoint: NoLocalEndpoint,
    /// How the kernel tracks packets of unknown TCP connections.
    tcp_pickup: TcpPickup,
    /// Whether other ports of load-balancer IPs are refused.
    refuses_load_balancer_ports: bool,
    /// Whether the table denies packets to `ClusterIPs` that no Service has; `false` only while
    /// nothing is known about the table.
    denies: bool,
}

impl<A: Address> Default for NodeElements<A> {
    fn default() -> Self {
        Self {
            pod_cidrs: Vec::new(),
            own_pod_cidrs: Vec::new(),
            primary_ip: None,
            node_ips: BTreeSet::new(),
            own: BTreeSet::new(),
            named: BTreeSet::new(),
            counted: &[],
            service_cidrs: Vec::new(),
            no_local_endpoint: NoLocalEndpoint::default(),
            tcp_pickup: TcpPickup::default(),
            refuses_load_balancer_ports: false,
            denies: false,
        }
    }
}

impl<A: Address> NodeElements<A> {
    /// Derives the elements of family `A` from the node's configuration and the objects.
    #[must_use]
    pub fn new(facts: &NodeFacts, store: &Store, claims: &Claims<A>) -> Self {
        let own = facts.own_addresses.as_ref();
        let of_default_route = own.map_or(&[][..], |own| &own.of_default_route);
        let named = store
            .node()
            .map_or(of_default_route, |node| &node.addresses);
        let configured = facts.node_ip.iter();
        let primary_ip = configured.chain(named).copied().find_map(A::from_ip);
        let node_ips = match &facts.node_port_addresses {
            NodePortAddresses::Primary => primary_ip.into_iter().collect(),
            NodePortAddresses::In(ranges) => {
                let all: Vec<_> = match own {
                    Some(own) => own.all.iter().copied().collect(),
                    None => named.to_vec(),
                };
                let is_named = |ip: A| primary_ip == Some(ip) || named.contains(&ip.into());
                let is_service_only = |ip| claims.is_service_ip(ip) && !is_named(ip);
                node_port_ips(ranges, all, is_service_only)
            }
        };
        let of_family = |nets: &mut dyn Iterator<Item = IpNet>| {
            // The kernel rejects overlapping ranges in one set.
            A::aggregate(&nets.filter_map(A::from_net).collect::<Vec<_>>())
        };
        let pod_cidrs = match &facts.pods {
            PodSource::ClusterCidr(cidrs) => cidrs.as_slice(),
            PodSource::NodeCidr => store.node().map_or(&[][..], |node| &node.pod_cidrs),
            PodSource::Interface(_) => &[],
        };
        let mut pod_cidrs = of_family(&mut pod_cidrs.iter().copied());
        let own_pod_cidrs = match &facts.pods {
            PodSource::ClusterCidr(_) => own_pod_cidrs::<A>(&pod_cidrs, facts, store),
            PodSource::NodeCidr | PodSource::Interface(_) => pod_cidrs.clone(),
        };
        if facts.pods == PodSource::NodeCidr && pod_cidrs.is_empty() {
            // Without a podCIDR of the family no source is known to be external, so none is
            // masqueraded for that reason.
            pod_cidrs = of_family(&mut [default_route(A::FAMILY)].into_iter());
        }
        let service_cidrs = store.service_cidrs().flat_map(|object| &object.cidrs);
        Self {
            pod_cidrs,
            own_pod_cidrs,
            primary_ip,
            node_ips,
            own: own
                .iter()
                .flat_map(|own| &own.all)
                .copied()
                .filter_map(A::from_ip)
                .collect(),
            named: named.iter().copied().filter_map(A::from_ip).collect(),
            counted: &Protocol::ALL,
            service_cidrs: of_family(&mut service_cidrs.copied()),
            no_local_endpoint: facts.no_local_endpoint,
            tcp_pickup: facts.tcp_pickup,
            refuses_load_balancer_ports: facts.refuse_load_balancer_ports,
            denies: true,
        }
    }

    /// Returns the node's primary address, if the family has one.
    #[must_use]
    pub fn primary_ip(&self) -> Option<A> {
        self.primary_ip
    }

    /// Returns the address ranges that `ClusterIPs` are allocated from.
    #[must_use]
    pub fn service_cidrs(&self) -> &[A::Net] {
        &self.service_cidrs
    }

    /// Returns whether an address is in a range of `ClusterIPs`.
    #[must_use]
    pub fn is_in_service_cidrs(&self, address: A) -> bool {
        let mut cidrs = self.service_cidrs.iter();
        cidrs.any(|cidr| A::contains(*cidr, address))
    }

    /// Returns the answer to outside clients of external policy Local without a local endpoint.
    pub(super) fn no_local_endpoint(&self) -> NoLocalEndpoint {
        self.no_local_endpoint
    }

    /// Returns how the kernel tracks packets of unknown TCP connections.
    pub(super) fn tcp_pickup(&self) -> TcpPickup {
        self.tcp_pickup
    }

    /// Returns whether other ports of these load-balancer IPs of a Service are refused.
    ///
    /// Some load balancers run on the nodes and report the addresses of all nodes (`ServiceLB` of
    /// k3s). Those of other nodes serve other ports, too.
    pub(super) fn refuses_other_ports(&self, load_balancer_ips: &[IpAddr]) -> bool {
        let is_of_node = |ip: &IpAddr| A::from_ip(*ip).is_some_and(|ip| self.named.contains(&ip));
        self.refuses_load_balancer_ports && !load_balancer_ips.iter().any(is_of_node)
    }

    /// Returns the addresses of the Node object, if the elements of Services depend on them.
    #[must_use]
    pub fn addresses_of_node(&self) -> Option<&BTreeSet<A>> {
        self.refuses_load_balancer_ports.then_some(&self.named)
    }

    /// Returns the addresses that serve node ports.
    pub fn node_ips(&self) -> impl Iterator<Item = A> {
        self.node_ips.iter().copied()
    }

    /// Returns the addresses of the node: those that serve node ports, and those of the Node object.
    #[must_use]
    pub fn all_addresses(&self) -> BTreeSet<A> {
        let named = self.named.iter().chain(&self.primary_ip);
        named.chain(&self.node_ips).copied().collect()
    }

    /// Returns whether an address is one of [`Self::all_addresses`].
    pub(super) fn is_address_of_node(&self, address: A) -> bool {
        self.node_ips.contains(&address)
            || self.named.contains(&address)
            || self.primary_ip == Some(address)
    }

    /// Returns whether an address serves node ports.
    #[must_use]
    pub fn is_node_ip(&self, address: A) -> bool {
        self.node_ips.contains(&address)
    }

    /// Returns the address ranges of all Pods; empty if Pods are recognised by their interface.
    #[must_use]
    pub fn pod_cidrs(&self) -> &[A::Net] {
        &self.pod_cidrs
    }

    /// Returns whether an endpoint on this node is neither in the Pod ranges nor the node itself.
    ///
    /// `false` if there are no Pod ranges.
    #[must_use]
    pub fn is_outside_pod_ranges(&self, address: A) -> bool {
        let ranges = &self.pod_cidrs;
        let is_node = self.own.contains(&address) || self.named.contains(&address);
        !ranges.is_empty() && !is_node && !ranges.iter().any(|range| A::contains(*range, address))
    }

    /// Returns the addresses of this machine.
    #[must_use]
    pub fn own(&self) -> &BTreeSet<A> {
        &self.own
    }

    /// Returns the addresses to serve health checks on, like kube-proxy.
    ///
    /// These are the addresses that serve node ports, or the unspecified address if all do.
    #[must_use]
    pub fn health_check_ips(&self, facts: &NodeFacts) -> Vec<IpAddr> {
        let any: IpAddr = match A::FAMILY {
            Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        match &facts.node_port_addresses {
            NodePortAddresses::In(ranges)
                if !ranges.iter().any(|range| A::from_net(*range).is_some()) =>
            {
                vec![any]
            }
            NodePortAddresses::In(_) | NodePortAddresses::Primary => {
                self.node_ips().map(Into::into).collect()
            }
        }
    }

    /// Returns the elements, sorted.
    #[must_use]
    pub fn elements(&self) -> Vec<Element<A>> {
        let element = |set, key| Element {
            set,
            key,
            value: Value::Nothing,
            comment: None,
        };
        let nets = |set, nets: &[A::Net]| {
            let nets = nets.iter().copied();
            nets.map(move |net| element(set, Key::Net(net)))
                .collect::<Vec<_>>()
        };
        let mut elements = nets(SetName::PodCidrs, &self.pod_cidrs);
        elements.extend(nets(SetName::PodCidrsLocal, &self.own_pod_cidrs));
        elements.extend(self.denies.then_some(Element {
            set: SetName::Denied,
            key: Key::Original,
            value: Value::Verdict(Verdict::Deny),
            comment: None,
        }));
        let node_ips = self.node_ips.iter().copied();
        elements.extend(node_ips.map(|ip| element(SetName::NodeIps, Key::Address(ip))));
        let counted = self.counted.iter().copied().map(Key::Protocol);
        elements.extend(counted.map(|key| element(SetName::AffinityFull, key)));
        elements.extend(nets(SetName::ServiceCidrs, &self.service_cidrs));
        elements.sort_unstable();
        elements
    }
}

/// Returns whether an address is IPv6 link-local: no client connects to a Service from one.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Returns the address ranges of this node's Pods: its podCIDRs, within those of all Pods.
///
/// Some network plugins do not allocate from podCIDRs. If there are none, or an address of a local
/// Pod or interface is in the Pod ranges but outside the podCIDRs, all Pod ranges count as this
/// node's, as in kube-proxy.
fn own_pod_cidrs<A: Address>(
    pod_cidrs: &[A::Net],
    facts: &NodeFacts,
    store: &Store,
) -> Vec<A::Net> {
    let node = store.node();
    let of_node = node.map_or(&[][..], |node| &node.pod_cidrs);
    let own: Vec<_> = of_node
        .iter()
        .copied()
        .filter_map(A::from_net)
        .flat_map(|own| {
            pod_cidrs
                .iter()
                .filter_map(move |all| A::intersection(own, *all))
        })
        .collect();
    if own.is_empty() {
        return pod_cidrs.to_vec();
    }
    let own = A::aggregate(&own);
    let of_interfaces = facts.own_addresses.iter().flat_map(|own| &own.all);
    let allocates_elsewhere = pod_cidrs.iter().any(|all| {
        gaps::<A>(*all, &own).into_iter().any(|gap| {
            let of_interfaces = of_interfaces.clone().filter(|ip| gap.contains(*ip));
            let mut local = store.local_endpoints_in(gap).chain(of_interfaces.copied());
            local.any(|ip| node.is_none_or(|node| !node.addresses.contains(&ip)))
        })
    });
    if allocates_elsewhere {
        pod_cidrs.to_vec()
    } else {
        own
    }
}

/// Returns the parts of a range that these subranges, sorted and disjoint, do not cover.
fn gaps<A: Address>(all: A::Net, without: &[A::Net]) -> Vec<(Bound<IpAddr>, Bound<IpAddr>)> {
    let first = |net| A::bounds(net).0;
    let mut gaps = Vec::new();
    let mut start = Bound::Included(first(all).into());
    for net in without.iter().filter(|net| A::contains(all, first(**net))) {
        gaps.push((start, Bound::Excluded(first(*net).into())));
        start = Bound::Excluded(A::last_address(*net).into());
    }
    gaps.push((start, Bound::Included(A::last_address(all).into())));
    gaps
}

/// Returns the range of all addresses of a family.
fn default_route(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => Ipv4Net::default().into(),
        Family::Ipv6 => Ipv6Net::default().into(),
    }
}

/// Selects the addresses that serve node ports by `--nodeport-addresses`.
///
/// An address that only a Service has is not selected, unless it is a range of its own.
fn node_port_ips<A: Address>(
    ranges: &[IpNet],
    addresses: Vec<IpAddr>,
    is_service_only: impl Fn(A) -> bool,
) -> BTreeSet<A> {
    let ranges: Vec<_> = ranges.iter().copied().filter_map(A::from_net).collect();
    let is_selected =
        |ip: &A| ranges.is_empty() || ranges.iter().any(|range| A::contains(*range, *ip));
    let is_excluded = |ip: A| is_service_only(ip) && !ranges.contains(&A::host_net(ip));
    addresses
        .into_iter()
        .filter(|ip| !ip.is_loopback())
        .filter_map(A::from_ip)
        .filter(is_selected)
        .filter(|ip| !is_excluded(*ip))
        .collect()
}

#[cfg(test)]
mod tests;
