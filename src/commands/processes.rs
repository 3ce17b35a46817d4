//! Processes of this network namespace, as /proc tells of them.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::planner::ruleset::TABLE;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Process {
    /// Its number.
    pub(super) id: u32,
    /// The name of its program.
    pub(super) name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

/// The process that has the netfilter socket with this port (`/proc/net/netlink`). `None`: it is in
/// a PID namespace that is hidden from here, or its files are.
pub(super) fn of_netlink_port(port: u32) -> Option<Process> {
    const NETFILTER: &str = "12";
    let sockets = fs::read_to_string("/proc/net/netlink").ok()?;
    let inode = sockets.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let matches = fields.get(1) == Some(&NETFILTER)
            && fields.get(2).and_then(|field| field.parse().ok()) == Some(port);
        fields.get(9).filter(|_| matches).map(ToString::to_string)
    })?;
    of_socket(&inode)
}

/// Who listens at a TCP port of any address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortListener {
    /// Nobody.
    Nobody,
    /// A process that cannot be seen from here.
    Hidden,
    /// This one.
    Seen(Process),
}

/// Looks who listens at a TCP port, without a socket of our own.
pub(super) fn listener(port: u16) -> PortListener {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let mut inodes = tables.iter().filter_map(|path| {
        let sockets = fs::read_to_string(path).ok()?;
        listening(&sockets, port).map(str::to_owned)
    });
    match inodes.next() {
        None => PortListener::Nobody,
        Some(inode) => of_socket(&inode).map_or(PortListener::Hidden, PortListener::Seen),
    }
}

/// The inode of the socket that listens at a port, in the words of `/proc/net/tcp`.
fn listening(sockets: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let at_port = format!(":{port:04X}");
    sockets.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        (state == LISTEN && local.ends_with(&at_port)).then_some(inode)
    })
}

fn of_socket(inode: &str) -> Option<Process> {
    let wanted = format!("socket:[{inode}]");
    all().find(|process| {
        let files = fs::read_dir(format!("/proc/{}/fd", process.id));
        let mut files = files.into_iter().flatten().flatten();
        files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&wanted)))
    })
}

/// The processes of this name in our network namespace; those that cannot be looked at are left out.
pub(super) fn named(name: &str) -> Vec<Process> {
    let namespace = |id: &str| fs::read_link(format!("/proc/{id}/ns/net")).ok();
    let ours = namespace("self");
    all()
        .filter(|process| process.name == name && namespace(&process.id.to_string()) == ours)
        .collect()
}

/// The daemons of ours in our network namespace, as far as they can be seen: not who asks, nor
/// another command.
pub(super) fn daemons() -> Vec<Process> {
    let mut ours = named(TABLE);
    ours.retain(|process| process.id != std::process::id() && is_run(process.id));
    ours
}

fn is_run(id: u32) -> bool {
    let Ok(line) = fs::read_to_string(format!("/proc/{id}/cmdline")) else {
        return false;
    };
    let first = line.split('\0').nth(1).unwrap_or_default();
    first.is_empty() || first == "run" || first.starts_with('-')
}

fn all() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let name = if runs_our_program(&entry.path()) {
            TABLE
        } else {
            name.trim_end()
        };
        let name = name.to_owned();
        Some(Process { id, name })
    })
}

/// Whether a process is one of ours, though it was started by another name: the image has a link
/// `kube-proxy` to this program.
fn runs_our_program(process: &Path) -> bool {
    fs::read_link(process.join("exe")).is_ok_and(|program| {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        name.trim_end_matches(" (deleted)") == TABLE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_told_from_who_is_connected() {
        let sockets = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n   \
            1: 0100007F:2809 0100007F:9000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n";
        assert_eq!(listening(sockets, 10256), Some("4711"));
        assert_eq!(listening(sockets, 10249), None);
    }
}
