//! Kernel settings that decide whether packets are forwarded at all.

use std::fs;
use std::path::Path;

use futures::TryStreamExt;
use nix::ifaddrs::getifaddrs;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::CheckResult;

const NET: &str = "/proc/sys/net";

fn read(setting: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(NET).join(setting)).ok()?;
    Some(text.trim().to_owned())
}

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

fn forwarding() -> CheckResult {
    const WHAT: &str = "ip_forward";
    match read("ipv4/ip_forward").as_deref() {
        Some("1") => CheckResult::ok(WHAT, "IPv4 packets are forwarded"),
        _ => CheckResult::failure(
            WHAT,
            "net.ipv4.ip_forward is 0: no Pod and nobody outside reaches an endpoint through this node",
            "sysctl -w net.ipv4.ip_forward=1, and the same line in /etc/sysctl.d",
        ),
    }
}

/// `None`: no IPv6 here.
fn ipv6_forwarding() -> Option<CheckResult> {
    const WHAT: &str = "ipv6 forwarding";
    let value = read("ipv6/conf/all/forwarding")?;
    if value == "1" {
        return Some(CheckResult::ok(WHAT, "IPv6 packets are forwarded"));
    }
    Some(if has_global_ipv6() {
        CheckResult::warning(
            WHAT,
            "net.ipv6.conf.all.forwarding is 0, and this node has IPv6 addresses",
            "in a cluster with IPv6: sysctl -w net.ipv6.conf.all.forwarding=1",
        )
    } else {
        CheckResult::ok(WHAT, "off, and this node has no global IPv6 address")
    })
}

fn has_global_ipv6() -> bool {
    let addresses = getifaddrs().into_iter().flatten();
    let addresses =
        addresses.filter_map(|interface| Some(interface.address?.as_sockaddr_in6()?.ip()));
    addresses
        .into_iter()
        .any(|address| !address.is_loopback() && !address.is_unicast_link_local())
}

/// The kernel takes the stricter of `all` and the interface's own
/// (`Documentation/networking/ip-sysctl.rst`).
fn reverse_path() -> CheckResult {
    const WHAT: &str = "rp_filter";
    let value = |interface: &str| -> u8 {
        let value = read(&format!("ipv4/conf/{interface}/rp_filter"));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let all = value("all");
    let interfaces = fs::read_dir(Path::new(NET).join("ipv4/conf"));
    let interfaces = interfaces.into_iter().flatten().flatten();
    let mut strict: Vec<_> = interfaces
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["all", "default", "lo"].contains(&name.as_str()))
        .filter(|name| value(name).max(all) == 1)
        .collect();
    strict.sort_unstable();
    if strict.is_empty() {
        return CheckResult::ok(WHAT, "no interface filters strictly by the reverse path");
    }
    let shown = strict.len().min(3);
    let more = match strict.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = strict.get(..shown).unwrap_or_default().join(", ");
    CheckResult::warning(
        WHAT,
        format!(
            "strict on {names}{more}: what comes in by another interface than its answer would take is dropped"
        ),
        "fine with one way in and out; else sysctl -w net.ipv4.conf.all.rp_filter=2",
    )
}

/// `None`: no bridge has ports.
fn bridges() -> Option<CheckResult> {
    const WHAT: &str = "bridge-nf-call";
    let name = match bridge_with_ports() {
        Ok(name) => name?,
        Err(error) => {
            let found = format!("{error:#}");
            return Some(CheckResult::warning(WHAT, found, "run this check as root"));
        }
    };
    let calls = [
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
    ];
    let on = calls.map(|setting| read(setting).as_deref() == Some("1"));
    Some(if on == [true, true] {
        CheckResult::ok(WHAT, "what crosses a bridge is seen by nftables")
    } else {
        CheckResult::warning(
            WHAT,
            format!(
                "answers between two ports of the bridge {name} do not pass nftables: a Pod that \
                 is sent to another Pod of the bridge by a Service gets none"
            ),
            "if Pods are its ports: modprobe br_netfilter; sysctl -w \
             net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
        )
    })
}

/// The first bridge that has a port. `/sys` may be that of another network namespace.
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

fn conntrack() -> CheckResult {
    const WHAT: &str = "conntrack";
    let number = |setting: &str| read(setting).and_then(|value| value.parse::<u64>().ok());
    let Some(max) = number("netfilter/nf_conntrack_max") else {
        return CheckResult::ok(WHAT, "not loaded yet; the daemon loads it");
    };
    let count = number("netfilter/nf_conntrack_count").unwrap_or(0);
    let found = format!("{count} of {max} connections are followed");
    if count > max / 10 * 8 {
        CheckResult::warning(
            WHAT,
            found,
            "raise conntrack.maxPerCore in the configuration",
        )
    } else {
        CheckResult::ok(WHAT, found)
    }
}
