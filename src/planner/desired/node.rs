//! What the kernel should know about the node itself and the cluster's address ranges.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Bound, RangeBounds as _};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Claims, ClientSides};
use crate::planner::model::addr::Family;
use crate::planner::model::{Address, OwnAddresses, Protocol, Store};
use crate::planner::ruleset::{
    Element, Interface, Key, PodMatch, Program, SetName, Value, Verdict,
};

/// How this node's Pods are known (`--detect-local-mode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodSource {
    /// `ClusterCIDR`: by their addresses, at most one range of each family.
    ClusterCidr(Vec<IpNet>),
    /// `NodeCIDR`: by the ranges that the Node object names.
    NodeCidr,
    /// `BridgeInterface` and `InterfaceNamePrefix`: by the interface their packets come in by.
    Interface(Interface),
}

impl Default for PodSource {
    fn default() -> Self {
        Self::ClusterCidr(Vec::new())
    }
}

/// What is known of this node besides its Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// How Pods are known.
    pub pods: PodSource,
    /// `--masquerade-all`: masquerade all that goes to a `ClusterIP`.
    pub masquerade_all: bool,
    /// `--connection-counters=false`: frontends do not count connections.
    pub without_counters: bool,
    /// Which of the node's addresses serve node ports.
    pub node_port_addresses: NodePortAddresses,
    /// `--bind-address`: the node's primary address of its family, whatever its Node object says.
    pub node_ip: Option<IpAddr>,
    /// What the kernel says of the addresses of this machine; `None`: it was not asked.
    pub own_addresses: Option<OwnAddresses>,
}

/// Which of the node's addresses serve node ports (`--nodeport-addresses`). Never those of loopback, and one
/// that a Service has only if the Node object or a range names it: its source ranges would not count there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// `primary`: of each family the one that the Node object names first.
    #[default]
    Primary,
    /// Those in one of these ranges; in a family without any, all.
    In(Vec<IpNet>),
}

impl NodeFacts {
    /// The fixed program of family `A` on such a node.
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
            without_counters: self.without_counters,
        }
    }
}

impl NodeFacts {
    /// How the side of a client is known.
    #[must_use]
    pub fn sides<A: Address>(&self, node: &NodeElements<A>) -> ClientSides<A> {
        let by_interface = matches!(self.pods, PodSource::Interface(_));
        let own = self.own_addresses.iter().flat_map(|own| &own.all);
        ClientSides {
            pods: (!by_interface).then(|| node.own_pod_cidrs.clone()),
            own: own
                .copied()
                .filter(|ip| !is_link_local(*ip))
                .filter_map(A::from_ip)
                .chain(node.primary_ip)
                .collect(),
        }
    }
}

/// The elements of one family that belong to no Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeElements<A: Address> {
    pod_cidrs: Vec<A::Net>,
    /// Those of this node's Pods.
    own_pod_cidrs: Vec<A::Net>,
    /// Of this node; the Node object's first, or of the default route.
    primary_ip: Option<A>,
    node_ips: BTreeSet<A>,
    /// All that the machine has.
    own: BTreeSet<A>,
    /// All that the Node object names.
    named: BTreeSet<A>,
    /// Those of which it is counted whom session affinity could not remember.
    counted: &'static [Protocol],
    service_cidrs: Vec<A::Net>,
    /// Whether what no element serves is denied: in every table but one of which nothing is known.
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
            denies: false,
        }
    }
}

impl<A: Address> NodeElements<A> {
    /// What `facts` and the objects in `store` say of family `A`, given what Services claim.
    #[must_use]
    pub fn new(facts: &NodeFacts, store: &Store, claims: &Claims<A>) -> Self {
        let own = facts.own_addresses.as_ref();
        let of_default_route = own.map_or(&[][..], |own| &own.of_default_route);
        let of_node = store
            .node()
            .map_or(of_default_route, |node| &node.addresses);
        let told = facts.node_ip.iter();
        let primary_ip = told.chain(of_node).copied().find_map(A::from_ip);
        let node_ips = match &facts.node_port_addresses {
            NodePortAddresses::Primary => primary_ip.into_iter().collect(),
            NodePortAddresses::In(ranges) => {
                let all: Vec<_> = match own {
                    Some(own) => own.all.iter().copied().collect(),
                    None => of_node.to_vec(),
                };
                let is_named = |ip: A| primary_ip == Some(ip) || of_node.contains(&ip.into());
                let is_only_theirs = |ip| claims.is_of_service(ip) && !is_named(ip);
                served(ranges, all, is_only_theirs)
            }
        };
        let of_family = |nets: &mut dyn Iterator<Item = IpNet>| {
            // The kernel refuses overlapping ranges in one set.
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
            // Of a family without a podCIDR nobody is known to come from outside, so nobody is masqueraded
            // for that.
            pod_cidrs = of_family(&mut [everything(A::FAMILY)].into_iter());
        }
        let all = own.iter().flat_map(|own| &own.all);
        let all = all.copied().filter_map(A::from_ip);
        let service_cidrs = store.service_cidrs().flat_map(|object| &object.cidrs);
        Self {
            pod_cidrs,
            own_pod_cidrs,
            primary_ip,
            node_ips,
            own: all.collect(),
            named: of_node.iter().copied().filter_map(A::from_ip).collect(),
            counted: &Protocol::ALL,
            service_cidrs: of_family(&mut service_cidrs.copied()),
            denies: true,
        }
    }

    /// The address by which the cluster knows this node.
    #[must_use]
    pub fn primary_ip(&self) -> Option<A> {
        self.primary_ip
    }

    /// The ranges that `ClusterIPs` are allocated from.
    #[must_use]
    pub fn service_cidrs(&self) -> &[A::Net] {
        &self.service_cidrs
    }

    /// Whether an address is in one of those ranges.
    #[must_use]
    pub fn is_in_service_cidrs(&self, address: A) -> bool {
        let mut cidrs = self.service_cidrs.iter();
        cidrs.any(|cidr| A::contains(*cidr, address))
    }

    /// The addresses that serve node ports.
    pub fn node_ips(&self) -> impl Iterator<Item = A> {
        self.node_ips.iter().copied()
    }

    /// Whether an address serves node ports.
    #[must_use]
    pub fn is_node_ip(&self, address: A) -> bool {
        self.node_ips.contains(&address)
    }

    /// The ranges of Pods, where they are known by ranges.
    #[must_use]
    pub fn pod_cidrs(&self) -> &[A::Net] {
        &self.pod_cidrs
    }

    /// Whether an endpoint on this node is neither in the ranges of Pods, where there are any, nor the
    /// node itself.
    #[must_use]
    pub fn is_outside_pod_ranges(&self, address: A) -> bool {
        let ranges = &self.pod_cidrs;
        let is_node = self.own.contains(&address) || self.named.contains(&address);
        !ranges.is_empty() && !is_node && !ranges.iter().any(|range| A::contains(*range, address))
    }

    /// The addresses of this machine.
    #[must_use]
    pub fn own(&self) -> &BTreeSet<A> {
        &self.own
    }

    /// The addresses that health checks are answered on, as kube-proxy has it: those that serve
    /// node ports; if those are all of the family, any.
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

    /// The elements, in order.
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

/// Whether nobody connects from there to a Service: each interface of a Pod may have one.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The ranges of this node's Pods: its podCIDRs, within those of all Pods. Where there are none, or an
/// address of a Pod or of an interface here shows that they are not what addresses here come from
/// (some network plugins allocate their own), the ranges of all Pods count as this node's, as in kube-proxy.
fn own_pod_cidrs<A: Address>(
    pod_cidrs: &[A::Net],
    facts: &NodeFacts,
    store: &Store,
) -> Vec<A::Net> {
    let node = store.node();
    let of_node = node.map_or(&[][..], |node| &node.pod_cidrs);
    let of_node = of_node.iter().copied().filter_map(A::from_net);
    let own: Vec<_> = of_node
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
    let shows = pod_cidrs.iter().any(|all| {
        gaps::<A>(*all, &own).into_iter().any(|gap| {
            let of_interfaces = of_interfaces.clone().filter(|ip| gap.contains(*ip));
            let here = store.endpoints_here(gap).chain(of_interfaces.copied());
            let mut here = here.filter(|ip| node.is_none_or(|node| !node.addresses.contains(ip)));
            here.next().is_some()
        })
    });
    if shows { pod_cidrs.to_vec() } else { own }
}

/// What a range holds beside these, which are in order and apart.
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

fn everything(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => Ipv4Net::default().into(),
        Family::Ipv6 => Ipv6Net::default().into(),
    }
}

/// Those of a node's addresses that serve node ports, if these ranges are to. One that only Services have
/// does not, unless it is a range of its own.
fn served<A: Address>(
    ranges: &[IpNet],
    addresses: Vec<IpAddr>,
    is_only_theirs: impl Fn(A) -> bool,
) -> BTreeSet<A> {
    let ranges: Vec<_> = ranges.iter().copied().filter_map(A::from_net).collect();
    let wanted = |ip: &A| ranges.is_empty() || ranges.iter().any(|range| A::contains(*range, *ip));
    let is_theirs = |ip: A| is_only_theirs(ip) && !ranges.contains(&A::host_net(ip));
    let addresses = addresses.into_iter().filter(|ip| !ip.is_loopback());
    let addresses = addresses.filter_map(A::from_ip).filter(wanted);
    addresses.filter(|ip| !is_theirs(*ip)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::model::parse;

    #[test]
    fn a_primary_address_that_is_told_stands_for_its_family_alone() {
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let facts = NodeFacts {
            node_ip: "192.0.2.9".parse().ok(),
            own_addresses: Some(OwnAddresses {
                all: addresses.into(),
                of_default_route: addresses.to_vec(),
            }),
            ..NodeFacts::default()
        };
        let ipv4 = NodeElements::<Ipv4Addr>::new(&facts, &Store::default(), &Claims::default());
        assert_eq!(ipv4.primary_ip(), "192.0.2.9".parse().ok());
        assert_eq!(
            ipv4.node_ips().collect::<Vec<_>>(),
            ["192.0.2.9".parse::<Ipv4Addr>().unwrap()]
        );
        let ipv6 = NodeElements::<Ipv6Addr>::new(&facts, &Store::default(), &Claims::default());
        assert_eq!(ipv6.primary_ip(), "2001:db8::1".parse().ok());
    }

    /// The ranges of this node's Pods on a node of `10.244.1.0/24` with this address and this endpoint.
    fn own_pods(cluster: &str, own_address: &str, endpoint: &str) -> Vec<String> {
        let mut store = Store::default();
        let node = "{metadata: {name: n1}, spec: {podCIDRs: [10.244.1.0/24]}, \
                    status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}";
        let slice = format!(
            "{{metadata: {{namespace: shop, name: a, labels: {{kubernetes.io/service-name: cart}}}}, \
             addressType: IPv4, ports: [{{port: 80}}], \
             endpoints: [{{addresses: [{endpoint}], nodeName: n1}}]}}"
        );
        store.apply(parse::node(&yaml_serde::from_str(node).unwrap(), "n1"));
        store.apply(parse::slice(&yaml_serde::from_str(&slice).unwrap(), "n1"));
        let facts = NodeFacts {
            pods: PodSource::ClusterCidr(vec![cluster.parse().unwrap()]),
            own_addresses: Some(OwnAddresses {
                all: ["192.0.2.1", own_address]
                    .map(|ip| ip.parse().unwrap())
                    .into(),
                of_default_route: Vec::new(),
            }),
            ..NodeFacts::default()
        };
        let node = NodeElements::<Ipv4Addr>::new(&facts, &store, &Claims::default());
        node.own_pod_cidrs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_endpoint_is_outside_the_ranges_of_pods_unless_it_is_the_node() {
        let mut store = Store::default();
        let node = "{metadata: {name: n1}, \
                    status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}";
        store.apply(parse::node(&yaml_serde::from_str(node).unwrap(), "n1"));
        let outside = |pods: PodSource, address: &str| {
            let facts = NodeFacts {
                pods,
                own_addresses: Some(OwnAddresses {
                    all: ["192.0.2.7".parse().unwrap()].into(),
                    of_default_route: Vec::new(),
                }),
                ..NodeFacts::default()
            };
            let node = NodeElements::<Ipv4Addr>::new(&facts, &store, &Claims::default());
            node.is_outside_pod_ranges(address.parse().unwrap())
        };
        let range = || PodSource::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()]);
        assert!(outside(range(), "10.32.0.1"));
        assert!(!outside(range(), "10.244.7.1"));
        for of_node in ["192.0.2.1", "192.0.2.7"] {
            assert!(!outside(range(), of_node), "{of_node}");
        }
        // Where no range of the family is known, none is outside.
        assert!(!outside(PodSource::default(), "10.32.0.1"));
        assert!(!outside(PodSource::NodeCidr, "10.32.0.1"));
    }

    #[test]
    fn the_gaps_are_all_but_what_is_taken_out() {
        let nets = |nets: &[&str]| -> Vec<Ipv4Net> {
            nets.iter().map(|net| net.parse().unwrap()).collect()
        };
        let all: Ipv4Net = "10.0.0.0/28".parse().unwrap();
        for without in [
            nets(&["10.0.0.0/28"]),
            nets(&["10.0.0.0/32", "10.0.0.15/32"]),
            nets(&["10.0.0.4/30", "10.0.0.8/32", "10.0.0.12/31"]),
            nets(&["10.0.1.0/28"]),
        ] {
            let gaps = gaps::<Ipv4Addr>(all, &without);
            for last in 0..=255 {
                let address = Ipv4Addr::new(10, 0, 0, last);
                let is_left = all.contains(&address);
                let is_left = is_left && !without.iter().any(|net| net.contains(&address));
                let address = IpAddr::V4(address);
                let in_gap = gaps.iter().any(|gap| gap.contains(&address));
                assert_eq!(in_gap, is_left, "{address} without {without:?}");
            }
        }
    }

    #[test]
    fn own_pods_are_those_of_the_podcidrs_unless_an_address_here_is_outside() {
        let (gateway, pod) = ("10.244.1.1", "10.244.1.9");
        assert_eq!(own_pods("10.244.0.0/16", gateway, pod), ["10.244.1.0/24"]);
        assert_eq!(own_pods("10.244.1.0/25", gateway, pod), ["10.244.1.0/25"]);
        assert_eq!(own_pods("10.32.0.0/16", gateway, pod), ["10.32.0.0/16"]);
        // The node's own address is none of a Pod.
        assert_eq!(own_pods("0.0.0.0/0", gateway, pod), ["10.244.1.0/24"]);
        assert_eq!(
            own_pods("10.244.0.0/16", gateway, "192.0.2.1"),
            ["10.244.1.0/24"]
        );
        // A network plugin that does not go by podCIDRs.
        let elsewhere = "10.244.7.65";
        assert_eq!(own_pods("10.244.0.0/16", elsewhere, pod), ["10.244.0.0/16"]);
        assert_eq!(
            own_pods("10.244.0.0/16", gateway, elsewhere),
            ["10.244.0.0/16"]
        );
    }
}
