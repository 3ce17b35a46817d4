//! Resolves addresses, address ranges and interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::InvalidSettings;
use crate::config::{KubeProxyConfiguration, address};
use crate::planner::desired::{NodePortAddresses, PodSource};
use crate::planner::model::parse::range;
use crate::planner::ruleset::Interface;

/// Parses the primary address of the node. `None` selects the address in the Node object.
pub(super) fn node_ip(text: &str) -> Result<Option<IpAddr>, String> {
    let ip = address(text).ok_or_else(|| format!("\"{text}\" is not an IP address"))?;
    Ok((!ip.is_unspecified()).then_some(ip))
}

/// Parses `IP:port`, with an IPv6 address in brackets.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let split = text.rsplit_once(':').and_then(|(host, port)| {
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bracketed {
            Some(host) => Some((host, port)),
            None => (!host.contains(':')).then_some((host, port)),
        }
    });
    let Some((host, port)) = split else {
        return Err(format!("\"{text}\" is not IP:port"));
    };
    let ip = address(host).ok_or_else(|| format!("\"{text}\": \"{host}\" is not an IP address"))?;
    match port.parse() {
        Ok(port) if port > 0 => Ok(SocketAddr::new(ip, port)),
        _ => Err(format!("\"{text}\": \"{port}\" is not a port")),
    }
}

/// Resolves how to detect connections from Pods.
pub(super) fn pods(written: &KubeProxyConfiguration, problems: &mut InvalidSettings) -> PodSource {
    let local = &written.detect_local;
    match written.detect_local_mode.to_lowercase().as_str() {
        "" | "clustercidr" => {
            let ranges = cluster_cidrs(&written.cluster_cidr);
            PodSource::ClusterCidr(problems.take("clusterCIDR", ranges))
        }
        "nodecidr" => PodSource::NodeCidr,
        "bridgeinterface" => {
            let name = &local.bridge_interface;
            interface(written, "detectLocal.bridgeInterface", name, problems);
            PodSource::Interface(Interface::Named(Arc::from(name.as_str())))
        }
        "interfacenameprefix" => {
            let prefix = &local.interface_name_prefix;
            interface(written, "detectLocal.interfaceNamePrefix", prefix, problems);
            PodSource::Interface(Interface::Prefixed(Arc::from(prefix.as_str())))
        }
        _ => {
            let problem = format!(
                "\"{}\" is not one of ClusterCIDR, NodeCIDR, BridgeInterface and InterfaceNamePrefix",
                written.detect_local_mode
            );
            problems.add("detectLocalMode", problem);
            PodSource::default()
        }
    }
}

/// Checks the name or the name prefix of an interface.
fn interface(
    written: &KubeProxyConfiguration,
    field: &str,
    name: &str,
    problems: &mut InvalidSettings,
) {
    // IFNAMSIZ includes the NUL. nft does not accept quotes in a name.
    if name.is_empty() {
        let mode = written.detect_local_mode.as_str();
        problems.add(field, format!("is missing: {mode} needs it"));
        return;
    }
    let usable = name.len() < 16 && !name.contains(['"', '/', ' ', '*']);
    if !usable {
        problems.add(field, format!("\"{name}\" is not the name of an interface"));
    }
}

/// Parses the address ranges of Pods: at most one of each family.
fn cluster_cidrs(text: &str) -> Result<Vec<IpNet>, String> {
    let mut ranges: Vec<IpNet> = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let range = cidr(part)?;
        let same = |other: &&IpNet| other.addr().is_ipv4() == range.addr().is_ipv4();
        if let Some(other) = ranges.iter().find(same) {
            return Err(format!(
                "\"{text}\" has {other} and {range} of one family; at most one per family is supported"
            ));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

/// Parses an address range.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    range(text).ok_or_else(|| format!("\"{text}\" is not a CIDR such as 10.0.0.0/8"))
}

/// The loopback addresses.
const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// The word that adds the loopback addresses (KEP-6032).
const LOCALHOST: &str = "localhost";

/// Whether node ports are served at localhost.
pub(super) fn has_localhost(texts: &[String]) -> bool {
    texts.iter().any(|text| text.trim() == LOCALHOST)
}

/// Resolves the addresses of the node that serve node ports. The rules never serve loopback addresses,
/// so `localhost` means no address of a family without another value.
pub(super) fn node_ports(texts: &[String], problems: &mut InvalidSettings) -> NodePortAddresses {
    let texts: Vec<_> = texts.iter().map(|text| text.trim()).collect();
    let others = texts.iter().copied().filter(|text| *text != LOCALHOST);
    let others: Vec<_> = others.collect();
    match others.as_slice() {
        // The default of kube-proxy's mode nftables.
        [] if texts.is_empty() => return NodePortAddresses::Primary,
        ["primary"] => return NodePortAddresses::Primary,
        ["all"] => return NodePortAddresses::In(Vec::new()),
        _ => {}
    }
    let ranges = texts.iter().enumerate().map(|(i, text)| {
        let range = match *text {
            "primary" | "all" => Err(format!("\"{text}\" can only be combined with localhost")),
            LOCALHOST => Ok(LOOPBACK.to_vec()),
            text => cidr(text).map(|range| vec![range]),
        };
        let field = format!("nodePortAddresses[{i}]");
        problems.take(&field, range)
    });
    NodePortAddresses::In(ranges.flatten().collect())
}
