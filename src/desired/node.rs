//! What the kernel should know about the node itself and the cluster's address ranges.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::model::{Address, Store};
use crate::ruleset::{Element, Interface, Key, Pods, Program, SetName, Value};

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
    /// Addresses that serve node ports when there is no Node object to name them.
    pub fallback_ips: Vec<std::net::IpAddr>,
}

impl NodeFacts {
    /// The fixed program of family `A` on such a node.
    #[must_use]
    pub fn program<A: Address>(&self) -> Program {
        let pods = match &self.pods {
            PodSource::ClusterCidr(cidrs) => {
                let mut cidrs = cidrs.iter();
                if cidrs.any(|cidr| A::net_of(*cidr).is_some()) {
                    Pods::Cidrs
                } else {
                    Pods::Unknown
                }
            }
            PodSource::NodeCidr => Pods::Cidrs,
            PodSource::Interface(interface) => Pods::Interface(interface.clone()),
        };
        Program {
            pods,
            masquerade_all: self.masquerade_all,
        }
    }
}

/// The elements of one family that belong to no Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeContribution<A: Address> {
    pod_cidrs: Vec<A::Net>,
    node_ips: BTreeSet<A>,
    service_cidrs: Vec<A::Net>,
}

impl<A: Address> Default for NodeContribution<A> {
    fn default() -> Self {
        Self {
            pod_cidrs: Vec::new(),
            node_ips: BTreeSet::new(),
            service_cidrs: Vec::new(),
        }
    }
}

impl<A: Address> NodeContribution<A> {
    /// What `facts` and the objects in `store` say of family `A`.
    #[must_use]
    pub fn new(facts: &NodeFacts, store: &Store) -> Self {
        let node_ips = store
            .node()
            .map_or(&facts.fallback_ips, |node| &node.internal_ips);
        let of_family = |nets: &mut dyn Iterator<Item = IpNet>| {
            // The kernel refuses overlapping ranges in one set.
            A::aggregate(&nets.filter_map(A::net_of).collect::<Vec<_>>())
        };
        let pod_cidrs = match &facts.pods {
            PodSource::ClusterCidr(cidrs) => cidrs.as_slice(),
            PodSource::NodeCidr => store.node().map_or(&[][..], |node| &node.pod_cidrs),
            PodSource::Interface(_) => &[],
        };
        let service_cidrs = store.service_cidrs().flat_map(|object| &object.cidrs);
        Self {
            pod_cidrs: of_family(&mut pod_cidrs.iter().copied()),
            // kube-proxy's `primary`: the first InternalIP of each family.
            node_ips: node_ips.iter().copied().filter_map(A::of).take(1).collect(),
            service_cidrs: of_family(&mut service_cidrs.copied()),
        }
    }

    /// The addresses that serve node ports.
    pub fn node_ips(&self) -> impl Iterator<Item = A> {
        self.node_ips.iter().copied()
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
        let node_ips = self.node_ips.iter().copied();
        elements.extend(node_ips.map(|ip| element(SetName::NodeIps, Key::Address(ip))));
        elements.extend(nets(SetName::ServiceCidrs, &self.service_cidrs));
        elements
    }
}
