//! The flags that the ruleset depends on. `run` and `render` share them.

use std::path::PathBuf;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::super::completions::values;
use super::own::OwnFlags;
use super::set;
use super::syntax::{SWITCH, switch};
use crate::config::KubeProxyConfiguration;

/// The flags that describe the node and its Pods.
#[derive(Debug, Args)]
#[command(next_help_heading = "Node and Pods")]
pub(in crate::commands) struct NodeFlags {
    /// Read the configuration from this file, a `KubeProxyConfiguration`; `run` exits when the file
    /// changes.
    ///
    /// With this flag, kube-proxy's other flags have no effect, except --hostname-override,
    /// --master and the logging flags.
    #[arg(long, value_name = "FILE", help_heading = "General")]
    pub(in crate::commands) config: Option<PathBuf>,

    /// Name of the Node object of this node [default: the host name].
    #[arg(long, value_name = "NAME")]
    pub(in crate::commands) hostname_override: Option<String>,

    /// Address ranges of the cluster's Pods: an IPv4 CIDR, an IPv6 CIDR, or both, comma-separated.
    ///
    /// Connections to a ClusterIP from other addresses are masqueraded. Without this flag, none
    /// are.
    #[arg(long, value_name = "CIDR[,CIDR]")]
    cluster_cidr: Option<String>,

    /// How to detect connections from Pods: ClusterCIDR, NodeCIDR, BridgeInterface or
    /// InterfaceNamePrefix [default: ClusterCIDR].
    #[arg(long, value_name = "MODE", add = ArgValueCandidates::new(values(["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"])))]
    detect_local_mode: Option<String>,

    /// Bridge interface of the Pods, for --detect-local-mode BridgeInterface.
    #[arg(long, value_name = "INTERFACE")]
    pod_bridge_interface: Option<String>,

    /// Name prefix of the Pods' interfaces, for --detect-local-mode InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX")]
    pod_interface_name_prefix: Option<String>,

    /// Addresses of this node that serve node ports: `primary` (the first address of each family in
    /// the Node object), `all`, or the addresses in these CIDRs, and `localhost` in addition
    /// [default: primary].
    ///
    /// A family without a CIDR serves node ports on all its addresses. Loopback addresses serve them
    /// only with `localhost`, as with --localhost-node-ports.
    #[arg(
        long,
        value_name = "primary|all|CIDR[,CIDR...][,localhost]",
        value_delimiter = ','
    )]
    nodeport_addresses: Vec<String>,

    /// Primary address of this node, instead of the one in the Node object; 0.0.0.0 and :: select
    /// the Node object's [default: 0.0.0.0].
    #[arg(long, value_name = "IP")]
    bind_address: Option<String>,

    /// Masquerade every connection to a ClusterIP, including those of Pods.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    masquerade_all: Option<bool>,

    #[command(flatten)]
    /// kube-dnat's own flags.
    pub(super) own: OwnFlags,
}

impl NodeFlags {
    /// Creates the flags of a configuration file and the name of the node.
    pub(in crate::commands) fn of_file(
        config: Option<PathBuf>,
        hostname_override: Option<String>,
    ) -> Self {
        Self {
            config,
            hostname_override,
            cluster_cidr: None,
            detect_local_mode: None,
            pod_bridge_interface: None,
            pod_interface_name_prefix: None,
            nodeport_addresses: Vec::new(),
            bind_address: None,
            masquerade_all: None,
            own: OwnFlags::default(),
        }
    }

    /// Moves the given flags into `to`, whose `mode` is already set.
    pub(in crate::commands) fn apply(self, to: &mut KubeProxyConfiguration) {
        let Self {
            config: _,
            hostname_override,
            cluster_cidr,
            detect_local_mode,
            pod_bridge_interface,
            pod_interface_name_prefix,
            nodeport_addresses,
            bind_address,
            masquerade_all,
            own: _,
        } = self;
        set(hostname_override, &mut to.hostname_override);
        set(cluster_cidr, &mut to.cluster_cidr);
        set(detect_local_mode, &mut to.detect_local_mode);
        let local = &mut to.detect_local;
        set(pod_bridge_interface, &mut local.bridge_interface);
        set(pod_interface_name_prefix, &mut local.interface_name_prefix);
        let addresses = nodeport_addresses
            .into_iter()
            .filter(|address| !address.trim().is_empty());
        to.node_port_addresses.extend(addresses);
        set(bind_address, &mut to.bind_address);
        let section = match to.mode.as_str() {
            "nftables" => &mut to.nftables.masquerade_all,
            _ => &mut to.iptables.masquerade_all,
        };
        set(masquerade_all, section);
    }
}
