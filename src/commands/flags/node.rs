//! Flags that the ruleset depends on; `render` has them too.

use std::path::PathBuf;

use clap::Args;

use super::set;
use super::value::{SWITCH, switch};
use crate::config::KubeProxyConfiguration;

/// What the node is, and what its Pods are.
#[derive(Debug, Args)]
#[command(next_help_heading = "This node and its Pods")]
pub(in crate::commands) struct NodeFlags {
    /// Take kube-proxy's configuration from this file, a `KubeProxyConfiguration`; `run` ends when it
    /// changes.
    ///
    /// Of kube-proxy's flags only --hostname-override, --master and those of logging count beside it.
    #[arg(long, value_name = "FILE", help_heading = "The process")]
    pub(in crate::commands) config: Option<PathBuf>,

    /// Which Node this is; the host name if it is not given.
    #[arg(long, value_name = "NAME")]
    pub(in crate::commands) hostname_override: Option<String>,

    /// The addresses of the cluster's Pods: one IPv4 range, one IPv6 range, or both with a comma.
    ///
    /// Connections to a ClusterIP from anywhere else are masqueraded. Without it, none is.
    #[arg(long, value_name = "CIDR[,CIDR]")]
    cluster_cidr: Option<String>,

    /// How to tell this node's Pods from everyone else: ClusterCIDR, NodeCIDR, BridgeInterface or
    /// InterfaceNamePrefix [default: ClusterCIDR].
    #[arg(long, value_name = "MODE")]
    detect_local_mode: Option<String>,

    /// The bridge that Pods are connected to, for --detect-local-mode BridgeInterface.
    #[arg(long, value_name = "INTERFACE")]
    pod_bridge_interface: Option<String>,

    /// How the names of Pods' interfaces begin, for --detect-local-mode InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX")]
    pod_interface_name_prefix: Option<String>,

    /// Which addresses of this node serve node ports: `primary` (those that the Node object names
    /// first, one of each family), `all`, or those in one of these ranges [default: primary].
    ///
    /// A family without a range serves them on all its addresses. Addresses of loopback never do.
    #[arg(long, value_name = "primary|all|CIDR[,CIDR...]", value_delimiter = ',')]
    nodeport_addresses: Vec<String>,

    /// This node's primary address, of its family instead of the one that the Node object names;
    /// 0.0.0.0 and :: stand for that one [default: 0.0.0.0].
    #[arg(long, value_name = "IP")]
    bind_address: Option<String>,

    /// Masquerade every connection to a ClusterIP, also those of Pods.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    masquerade_all: Option<bool>,
}

impl NodeFlags {
    /// Moves what was given into `to`, whose mode is set.
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
        } = self;
        set(hostname_override, &mut to.hostname_override);
        set(cluster_cidr, &mut to.cluster_cidr);
        set(detect_local_mode, &mut to.detect_local_mode);
        let local = &mut to.detect_local;
        set(pod_bridge_interface, &mut local.bridge_interface);
        set(pod_interface_name_prefix, &mut local.interface_name_prefix);
        let addresses = nodeport_addresses.into_iter();
        to.node_port_addresses
            .extend(addresses.filter(|address| !address.trim().is_empty()));
        set(bind_address, &mut to.bind_address);
        let section = match to.mode.as_str() {
            "nftables" => &mut to.nftables.masquerade_all,
            _ => &mut to.iptables.masquerade_all,
        };
        set(masquerade_all, section);
    }
}
