//! Checks of the kernel settings that forwarding depends on.

use std::fs;
use std::path::Path;

use futures::TryStreamExt;
use nix::ifaddrs::getifaddrs;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::CheckResult;

/// The directory of the network settings.
const NET: &str = "/proc/sys/net";

/// Reads a setting below `/proc/sys/net`. Returns `None` if it does not exist.
fn read(setting: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(NET).join(setting)).ok()?;
    Some(text.trim().to_owned())
}

/// Checks all settings.
pub(super) fn all() -> Vec<CheckResult> {
    [
        Some(forwarding()),
        ipv6_forwarding(),
        Some(reverse_path()),
        bridges(),
        Some(conntrack()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Checks whether the node forwards IPv4 packets.
fn forwarding() -> CheckResult {
    const CHECK: &str = "ip_forward";
    match read("ipv4/ip_forward").as_deref() {
        Some("1") => CheckResult::ok(CHECK, "IPv4 forwarding is on"),
        _ if has_global_ipv6() && !has_ipv4() => {
            CheckResult::ok(CHECK, "off, and this node has no IPv4 address")
        }
        _ => CheckResult::failure(
            CHECK,
            "net.ipv4.ip_forward is 0: Pods and external clients cannot reach endpoints through this node",
            "sysctl -w net.ipv4.ip_forward=1, and the same setting in /etc/sysctl.d",
        ),
    }
}

/// Checks whether the node forwards IPv6 packets. Returns `None` if the kernel has no IPv6.
fn ipv6_forwarding() -> Option<CheckResult> {
    const CHECK: &str = "ipv6 forwarding";
    let value = read("ipv6/conf/all/forwarding")?;
    if value == "1" {
        return Some(CheckResult::ok(CHECK, "IPv6 forwarding is on"));
    }
    Some(if has_global_ipv6() {
        CheckResult::warning(
            CHECK,
            "net.ipv6.conf.all.forwarding is 0, and this node has IPv6 addresses",
            "in a cluster with IPv6, sysctl -w net.ipv6.conf.all.forwarding=1",
        )
    } else {
        CheckResult::ok(CHECK, "off, and this node has no global IPv6 address")
    })
}

/// Whether an interface has an IPv6 address that is neither loopback nor link-local.
fn has_global_ipv6() -> bool {
    getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in6()?.ip()))
        .any(|address| !address.is_loopback() && !address.is_unicast_link_local())
}

/// Whether an interface has an IPv4 address that is neither loopback nor link-local.
fn has_ipv4() -> bool {
    getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .any(|address| !address.is_loopback() && !address.is_link_local())
}

/// Checks for interfaces with strict reverse path filtering.
///
/// The kernel uses the maximum of the value of `all` and the interface's own
/// (`Documentation/networking/ip-sysctl.rst`).
fn reverse_path() -> CheckResult {
    const CHECK: &str = "rp_filter";
    const SHOWN: usize = 3;
    let value = |interface: &str| -> u8 {
        let value = read(&format!("ipv4/conf/{interface}/rp_filter"));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let all = value("all");
    let mut strict: Vec<_> = fs::read_dir(Path::new(NET).join("ipv4/conf"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["all", "default", "lo"].contains(&name.as_str()))
        .filter(|name| value(name).max(all) == 1)
        .collect();
    strict.sort_unstable();
    if strict.is_empty() {
        return CheckResult::ok(CHECK, "no interface has strict reverse path filtering");
    }
    let more = match strict.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    strict.truncate(SHOWN);
    let names = strict.join(", ");
    CheckResult::warning(
        CHECK,
        format!(
            "strict on {names}{more}: the kernel drops packets whose reply would leave through \
             another interface"
        ),
        "no action is required if routing is symmetric; else sysctl -w net.ipv4.conf.all.rp_filter=2",
    )
}

/// Checks whether packets between ports of a bridge pass nftables. Returns `None` if no bridge has
/// ports.
fn bridges() -> Option<CheckResult> {
    const CHECK: &str = "bridge-nf-call";
    let name = match bridge_with_ports() {
        Ok(name) => name?,
        Err(error) => {
            let message = format!("{error:#}");
            return Some(CheckResult::warning(
                CHECK,
                message,
                "run this check as root",
            ));
        }
    };
    let calls = [
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
    ];
    let on = calls.map(|setting| read(setting).as_deref() == Some("1"));
    Some(if on == [true, true] {
        CheckResult::ok(CHECK, "bridged packets pass nftables")
    } else {
        CheckResult::warning(
            CHECK,
            format!(
                "replies between two ports of bridge {name} do not pass nftables: a Pod gets no \
                 reply from a Service whose endpoint is on the same bridge"
            ),
            "if Pods are attached to this bridge: modprobe br_netfilter; sysctl -w \
             net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
        )
    })
}

/// Returns the name of the first bridge that has a port.
///
/// It asks rtnetlink, because `/sys` can belong to another network namespace.
fn bridge_with_ports() -> anyhow::Result<Option<String>> {
    let links = crate::agent::runtime()?.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        connection.abort();
        anyhow::Ok(links)
    })?;
    let has_port = |bridge: u32| {
        let mut attributes = links.iter().flat_map(|link| &link.attributes);
        attributes.any(|attribute| *attribute == LinkAttribute::Controller(bridge))
    };
    let is_bridge = |link: &&LinkMessage| {
        let mut attributes = link.attributes.iter();
        attributes.any(|attribute| {
            matches!(attribute, LinkAttribute::LinkInfo(info)
                if info.contains(&LinkInfo::Kind(InfoKind::Bridge)))
        })
    };
    let name = |link: &LinkMessage| {
        link.attributes.iter().find_map(|attribute| {
            if let LinkAttribute::IfName(name) = attribute {
                Some(name.clone())
            } else {
                None
            }
        })
    };
    let bridges = links.iter().filter(is_bridge);
    let mut with_ports = bridges.filter(|link| has_port(link.header.index));
    Ok(with_ports.find_map(name))
}

/// Checks how full the conntrack table is.
fn conntrack() -> CheckResult {
    const CHECK: &str = "conntrack";
    let number = |setting: &str| read(setting).and_then(|value| value.parse::<u64>().ok());
    let Some(max) = number("netfilter/nf_conntrack_max") else {
        return CheckResult::ok(CHECK, "module not loaded; kube-dnat loads it at startup");
    };
    let count = number("netfilter/nf_conntrack_count").unwrap_or(0);
    let message = format!("{count} of {max} entries in use");
    if count > max / 10 * 8 {
        CheckResult::warning(
            CHECK,
            message,
            "increase conntrack.maxPerCore in the configuration",
        )
    } else {
        CheckResult::ok(CHECK, message)
    }
}
