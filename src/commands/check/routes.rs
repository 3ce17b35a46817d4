//! Checks whether this node has a route for connections to Services.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use super::CheckResult;
use crate::netlink::Kernel;
use crate::planner::diff::TableStatus;
use crate::planner::model::Address;
use crate::planner::ruleset::SetName;

const CHECK: &str = "route";

/// Addresses for documentation, which only a default route covers.
const UNKNOWN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Checks the routes to the `ClusterIPs` in the tables, or for a default route if there are none.
///
/// The kernel looks the route up before any NAT, so a connection of this node to a `ClusterIP`
/// needs one, whatever the route is.
pub(super) fn to_cluster_ips(kernel: &mut Kernel) -> CheckResult {
    let mut cluster_ips = cluster_ips::<Ipv4Addr>(kernel);
    cluster_ips.extend(self::cluster_ips::<Ipv6Addr>(kernel));
    if cluster_ips.is_empty() {
        return if UNKNOWN.into_iter().any(has_route) {
            CheckResult::ok(CHECK, "a default route exists; there is no ClusterIP yet")
        } else {
            CheckResult::warning(
                CHECK,
                "there is no default route: without a route that covers the ClusterIPs, connections \
                 of this node to Services fail",
                FIX,
            )
        };
    }
    let all = cluster_ips.len();
    let mut without = cluster_ips.into_iter().filter(|ip| !has_route(*ip));
    match without.next() {
        None => CheckResult::ok(CHECK, format!("a route covers each ClusterIP ({all})")),
        Some(ip) => {
            let count = without.count() + 1;
            CheckResult::failure(
                CHECK,
                format!(
                    "no route covers ClusterIP {ip} ({count} of {all} have none): connections of this \
                     node to the Service fail"
                ),
                FIX,
            )
        }
    }
}

/// Checks the route to one `ClusterIP`.
pub(super) fn to_cluster_ip(ip: IpAddr) -> CheckResult {
    if has_route(ip) {
        CheckResult::ok(CHECK, format!("a route covers ClusterIP {ip}"))
    } else {
        CheckResult::failure(
            CHECK,
            format!("no route covers ClusterIP {ip}: connections of this node to Services fail"),
            FIX,
        )
    }
}

/// How to add the route.
const FIX: &str = "add a default route, or: ip route add SERVICE-CIDR dev INTERFACE";

/// Returns the `ClusterIPs` in the table of a family; none if there is no such table.
fn cluster_ips<A: Address>(kernel: &mut Kernel) -> BTreeSet<IpAddr> {
    let names = [SetName::ClusterIps, SetName::ClusterIpsSticky];
    let Ok(TableStatus::Ours(shape)) = kernel.inspect::<A>() else {
        return BTreeSet::new();
    };
    let Ok(Some(table)) = kernel.read_elements(&shape.table, &names) else {
        return BTreeSet::new();
    };
    let keys = names.into_iter().flat_map(|name| table.entries(name));
    keys.filter_map(|(key, _)| key.address().map(Into::into))
        .collect()
}

/// Whether the kernel finds a route to an address. It sends no packet.
fn has_route(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket looks the route up.
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 80)));
    !connected.is_err_and(|error| {
        [
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::AddrNotAvailable,
        ]
        .contains(&error.kind())
    })
}
