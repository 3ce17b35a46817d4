//! Flags that several commands share. Their names are kube-proxy's.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::desired::{NodeFacts, NodePortAddresses, PodSource};
use crate::ruleset::Interface;

/// What the node is, and what its Pods are.
#[derive(Debug, Args)]
pub(super) struct NodeFlags {
    /// Which Node this is; the host name if it is not given.
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,

    /// The addresses of the cluster's Pods: one IPv4 range, one IPv6 range, or both with a comma.
    ///
    /// Connections to a ClusterIP from anywhere else are masqueraded. Without it, none is.
    #[arg(long, value_name = "CIDR[,CIDR]")]
    cluster_cidr: Option<ClusterCidrs>,

    /// How to tell this node's Pods from everyone else.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "ClusterCIDR",
        ignore_case = true
    )]
    detect_local_mode: DetectLocalMode,

    /// The bridge that Pods are connected to, for --detect-local-mode BridgeInterface.
    #[arg(long, value_name = "INTERFACE")]
    pod_bridge_interface: Option<String>,

    /// How the names of Pods' interfaces begin, for --detect-local-mode InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX")]
    pod_interface_name_prefix: Option<String>,

    /// Which addresses of this node serve node ports: `primary` (those that the Node object names
    /// first, one of each family), `all`, or those in one of these ranges.
    ///
    /// A family without a range serves them on all its addresses. Addresses of loopback never do.
    #[arg(
        long,
        value_name = "primary|all|CIDR[,CIDR...]",
        default_value = "primary"
    )]
    nodeport_addresses: Nodeports,

    /// Masquerade every connection to a ClusterIP, also those of Pods.
    #[arg(long)]
    masquerade_all: bool,
}

/// How this node's Pods are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DetectLocalMode {
    /// By their addresses: --cluster-cidr.
    #[value(name = "ClusterCIDR")]
    ClusterCidr,
    /// By their addresses: spec.podCIDRs of the Node.
    #[value(name = "NodeCIDR")]
    NodeCidr,
    /// By the bridge they are connected to.
    #[value(name = "BridgeInterface")]
    BridgeInterface,
    /// By the names of their interfaces.
    #[value(name = "InterfaceNamePrefix")]
    InterfaceNamePrefix,
}

impl NodeFlags {
    /// The name of our Node, as kube-proxy has it: trimmed, in lower case.
    pub(super) fn node_name(&self) -> anyhow::Result<String> {
        let name = match &self.hostname_override {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()
                .context("cannot read the host name")?
                .to_string_lossy()
                .into_owned(),
        };
        let name = name.trim().to_lowercase();
        anyhow::ensure!(
            !name.is_empty(),
            "the name of this Node is empty: --hostname-override"
        );
        Ok(name)
    }

    /// What the flags say of the node.
    pub(super) fn facts(&self) -> anyhow::Result<NodeFacts> {
        let interface = |name: &Option<String>, flag: &str, make: fn(Arc<str>) -> Interface| {
            let name = name.as_deref().unwrap_or_default();
            // IFNAMSIZ with its NUL; nft takes no quote in a name.
            let usable =
                !name.is_empty() && name.len() < 16 && !name.contains(['"', '/', ' ', '*']);
            anyhow::ensure!(usable, "{flag} \"{name}\" is not the name of an interface");
            Ok(PodSource::Interface(make(name.into())))
        };
        let cidrs = self.cluster_cidr.as_ref();
        let pods = match self.detect_local_mode {
            DetectLocalMode::ClusterCidr => {
                PodSource::ClusterCidr(cidrs.map(|cidrs| cidrs.0.clone()).unwrap_or_default())
            }
            DetectLocalMode::NodeCidr => PodSource::NodeCidr,
            DetectLocalMode::BridgeInterface => {
                let bridge = &self.pod_bridge_interface;
                interface(bridge, "--pod-bridge-interface", Interface::Named)?
            }
            DetectLocalMode::InterfaceNamePrefix => {
                let prefix = &self.pod_interface_name_prefix;
                interface(prefix, "--pod-interface-name-prefix", Interface::Prefixed)?
            }
        };
        Ok(NodeFacts {
            pods,
            masquerade_all: self.masquerade_all,
            node_port_addresses: self.nodeport_addresses.clone().0,
            own_addresses: None,
        })
    }
}

/// At most one range of each family.
#[derive(Clone, Debug)]
struct ClusterCidrs(Vec<IpNet>);

impl FromStr for ClusterCidrs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cidrs: Vec<IpNet> = Vec::new();
        for part in parts(text) {
            let cidr = range(part)?;
            let same = |other: &IpNet| other.addr().is_ipv4() == cidr.addr().is_ipv4();
            if let Some(other) = cidrs.iter().find(|other| same(other)) {
                return Err(format!(
                    "{other} and {cidr} are of one family; one of each is taken"
                ));
            }
            cidrs.push(cidr);
        }
        Ok(Self(cidrs))
    }
}

/// [`NodePortAddresses`] as they are written on a command line.
#[derive(Clone, Debug)]
struct Nodeports(NodePortAddresses);

impl FromStr for Nodeports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let addresses = match parts(text).collect::<Vec<_>>().as_slice() {
            // As kube-proxy's default.
            [] | ["primary"] => NodePortAddresses::Primary,
            ["all"] => NodePortAddresses::In(Vec::new()),
            parts if parts.contains(&"primary") || parts.contains(&"all") => {
                return Err("primary and all stand alone".to_owned());
            }
            parts => {
                let ranges = parts.iter().map(|part| range(part));
                NodePortAddresses::In(ranges.collect::<Result<_, _>>()?)
            }
        };
        Ok(Self(addresses))
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

fn range(text: &str) -> Result<IpNet, String> {
    text.parse()
        .map_err(|error| format!("\"{text}\" is not an address range: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_range_of_each_family_is_taken() {
        let cases = [
            ("", Ok(0)),
            ("10.244.0.0/16", Ok(1)),
            ("10.244.0.0/16, fd00:10:244::/56", Ok(2)),
            ("10.244.0.0/16,10.245.0.0/16", Err("one family")),
            ("10.244.0.0", Err("not an address range")),
            ("10.244.0.0/33", Err("not an address range")),
        ];
        for (text, expected) in cases {
            match (text.parse::<ClusterCidrs>(), expected) {
                (Ok(cidrs), Ok(count)) => assert_eq!(cidrs.0.len(), count, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[test]
    fn node_ports_are_on_the_primary_addresses_on_all_or_in_ranges() {
        let ranges = |texts: &[&str]| {
            let ranges = texts.iter().map(|text| text.parse().unwrap());
            Ok(NodePortAddresses::In(ranges.collect()))
        };
        let cases = [
            ("", Ok(NodePortAddresses::Primary)),
            ("primary", Ok(NodePortAddresses::Primary)),
            ("all", ranges(&[])),
            ("0.0.0.0/0,::/0", ranges(&["0.0.0.0/0", "::/0"])),
            ("10.0.0.0/8, fd00::/8", ranges(&["10.0.0.0/8", "fd00::/8"])),
            ("primary,10.0.0.0/8", Err("stand alone")),
            ("10.0.0.1", Err("not an address range")),
        ];
        for (text, expected) in cases {
            match (text.parse::<Nodeports>(), expected) {
                (Ok(addresses), Ok(expected)) => assert_eq!(addresses.0, expected, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }
}
