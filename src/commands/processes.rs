//! Finds processes of this network namespace in `/proc`.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use procfs::process::{self as proc, FDTarget};
use serde::Serialize;

use crate::metrics::ProcessUsage;
use crate::planner::ruleset::TABLE;

/// A process, for messages and answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Process {
    /// The process ID.
    pub(super) id: u32,
    /// The name of the program.
    pub(super) name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

/// Returns the process that has the netfilter socket with this port (`/proc/net/netlink`).
///
/// Returns `None` if the process is in a PID namespace that is not visible from here, or if its
/// files are not.
pub(super) fn of_netlink_port(port: u32) -> Option<Process> {
    const NETFILTER: &str = "12";
    let sockets = fs::read_to_string("/proc/net/netlink").ok()?;
    let inode = sockets.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let matches = fields.get(1) == Some(&NETFILTER)
            && fields.get(2).and_then(|field| field.parse().ok()) == Some(port);
        fields.get(9).filter(|_| matches)?.parse().ok()
    })?;
    of_socket(inode)
}

/// The process that listens on a TCP port of any address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortListener {
    /// No process listens.
    Nobody,
    /// The process is not visible from here.
    Hidden,
    /// This process listens.
    Seen(Process),
}

/// Returns the process that listens on a TCP port, without opening a socket.
pub(super) fn listener(port: u16) -> PortListener {
    let sockets = [tcp(), tcp6()];
    match listening(sockets.iter().flatten().flatten(), port) {
        None => PortListener::Nobody,
        Some(inode) => of_socket(inode).map_or(PortListener::Hidden, PortListener::Seen),
    }
}

/// Returns the age and the memory of a process; `None` if it has exited.
pub(super) fn usage(process: &Process) -> Option<ProcessUsage> {
    let process = proc::Process::new(process.id.try_into().ok()?).ok()?;
    ProcessUsage::of(&process)
}

/// Returns the TCP addresses at which a process listens, with loopback for the unspecified address;
/// none if its files are not visible.
pub(super) fn listening_addresses(process: &Process) -> Vec<SocketAddr> {
    let id = i32::try_from(process.id).ok();
    let files = id.and_then(|id| proc::Process::new(id).ok()?.fd().ok());
    let inodes = files.into_iter().flatten().flatten().filter_map(|file| {
        if let FDTarget::Socket(inode) = file.target {
            Some(inode)
        } else {
            None
        }
    });
    let inodes: BTreeSet<_> = inodes.collect();
    let sockets = [tcp(), tcp6()];
    let own = sockets
        .iter()
        .flatten()
        .flatten()
        .filter(|socket| socket.state == TcpState::Listen && inodes.contains(&socket.inode));
    let addresses: BTreeSet<_> = own.map(|socket| reachable(socket.local_address)).collect();
    addresses.into_iter().collect()
}

/// Returns the address to connect to a listener: loopback if it listens on all addresses.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // Such a socket usually accepts IPv4, too.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    (ip, address.port()).into()
}

/// Returns the inode of the socket that listens on a port.
fn listening<'s>(mut sockets: impl Iterator<Item = &'s TcpNetEntry>, port: u16) -> Option<u64> {
    let listens = |socket: &&TcpNetEntry| {
        socket.state == TcpState::Listen && socket.local_address.port() == port
    };
    sockets.find(listens).map(|socket| socket.inode)
}

/// Returns the process that has a socket.
fn of_socket(inode: u64) -> Option<Process> {
    let holder = all().find(|process| {
        let mut files = process.fd().into_iter().flatten().flatten();
        files.any(|file| file.target == FDTarget::Socket(inode))
    })?;
    describe(&holder)
}

/// Returns the visible processes of this name in this network namespace.
pub(super) fn named(name: &str) -> Vec<Process> {
    in_this_namespace()
        .filter_map(|process| describe(&process))
        .filter(|process| process.name == name)
        .collect()
}

/// Returns the visible kube-dnat daemons in this network namespace, without processes of other
/// subcommands.
pub(super) fn daemons() -> Vec<Process> {
    in_this_namespace()
        .filter(is_run)
        .filter_map(|process| describe(&process))
        .filter(|process| process.name == TABLE && process.id != std::process::id())
        .collect()
}

/// Whether the command line of a process is that of `run`.
fn is_run(process: &proc::Process) -> bool {
    process.cmdline().is_ok_and(|line| {
        let first = line.get(1);
        first.is_none_or(|first| first == "run" || first.starts_with('-'))
    })
}

/// Returns all visible processes.
fn all() -> impl Iterator<Item = proc::Process> {
    proc::all_processes().into_iter().flatten().flatten()
}

/// Returns the visible processes in this network namespace.
fn in_this_namespace() -> impl Iterator<Item = proc::Process> {
    let namespace = |id: &str| fs::read_link(format!("/proc/{id}/ns/net")).ok();
    let own = namespace("self");
    all().filter(move |process| namespace(&process.pid().to_string()) == own)
}

/// Describes a process. Returns `None` if it has exited.
fn describe(process: &proc::Process) -> Option<Process> {
    let name = if runs_kube_dnat(process) {
        TABLE.to_owned()
    } else {
        process.stat().ok()?.comm
    };
    let id = process.pid().try_into().ok()?;
    Some(Process { id, name })
}

/// Whether a process runs kube-dnat, even under another name: the image has a link `kube-proxy` to
/// this program.
fn runs_kube_dnat(process: &proc::Process) -> bool {
    process.exe().is_ok_and(|program| {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        name.trim_end_matches(" (deleted)") == TABLE
    })
}

#[cfg(test)]
mod tests {
    use procfs::FromReadSI;
    use procfs::net::TcpNetEntries;

    use super::*;

    #[test]
    fn a_listening_socket_is_distinguished_from_a_connection() {
        let sockets = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n   \
            1: 0100007F:2809 0100007F:9000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n";
        let info = procfs::current_system_info();
        let sockets = TcpNetEntries::from_read(sockets.as_bytes(), info)
            .unwrap()
            .0;
        assert_eq!(listening(sockets.iter(), 10256), Some(4711));
        assert_eq!(listening(sockets.iter(), 10249), None);
    }
}
