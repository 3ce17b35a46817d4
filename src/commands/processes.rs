//! Processes of this network namespace, as /proc tells of them.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

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

fn all() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(Process {
            id,
            name: name.trim_end().to_owned(),
        })
    })
}
