//! The parser of a scenario.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::lab::{Family, Protocol};

/// A folder of `tests/scenarios`.
#[derive(Debug)]
pub(super) struct Scenario {
    /// The daemon's flags.
    pub(super) flags: Vec<String>,
    /// The steps in their order. Each step replaces the objects of the step before.
    pub(super) steps: Vec<Step>,
}

/// Objects, and the probes that are sent once they are programmed.
#[derive(Debug)]
pub(super) struct Step {
    /// The objects, each as one YAML document.
    pub(super) objects: Vec<String>,
    pub(super) probes: Vec<Line>,
}

/// One line of a file of probes, for one family and protocol.
#[derive(Debug)]
pub(super) struct Line {
    /// The file and the text of the line, for failure messages.
    pub(super) at: String,
    pub(super) family: Family,
    pub(super) from: String,
    pub(super) kind: ProbeKind,
    pub(super) to: (IpAddr, u16),
    pub(super) expected: Expected,
}

/// The kind of packet that a probe sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeKind {
    Connection(Protocol),
    SctpInit,
    Ping,
}

/// The expected outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Each of these servers answers, and no other server. A server is `HOST:PORT`.
    Servers {
        servers: BTreeSet<String>,
        /// Whether the servers see the client's address, if the line specifies it.
        source_kept: Option<bool>,
        /// Whether one of the servers answers every time.
        same: bool,
    },
    Refused,
    Dropped,
    /// The gateway answers, as it does without kube-dnat.
    Untouched,
}

impl Scenario {
    /// Reads a folder. Panics with the line that it cannot parse.
    pub(super) fn read(folder: &Path) -> Self {
        let flags = fs::read_to_string(folder.join("flags")).unwrap_or_else(|_| {
            let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
            format!("--cluster-cidr {cidrs}")
        });
        let entries = fs::read_dir(folder).expect("a folder");
        let mut later: Vec<_> = entries
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_dir())
            .collect();
        later.sort();
        let steps = [folder.to_owned()].into_iter().chain(later);
        Self {
            flags: flags.split_whitespace().map(str::to_owned).collect(),
            steps: steps.map(|folder| Step::read(&folder)).collect(),
        }
    }

    /// Returns the number of probes of all steps.
    pub(super) fn probes(&self) -> usize {
        self.steps.iter().map(|step| step.probes.len()).sum()
    }
}

impl Step {
    fn read(folder: &Path) -> Self {
        let read = |name: &str| {
            let path = folder.join(name);
            let text = fs::read_to_string(&path);
            text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let objects = read("objects.yaml");
        let objects = objects
            .split("\n---\n")
            .map(|text| text.trim_start_matches("---\n"));
        let objects: Vec<_> = objects.filter(|text| !text.trim().is_empty()).collect();
        let text = read("probes");
        let lines = text.lines().enumerate();
        let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let probes: Vec<_> = lines
            .flat_map(|(number, line)| {
                let at = format!("{}/probes:{}: {line}", folder.display(), number + 1);
                parse(line, &at)
            })
            .collect();
        assert!(!probes.is_empty(), "{} has no probe", folder.display());
        Self {
            objects: objects.into_iter().map(str::to_owned).collect(),
            probes,
        }
    }
}

/// `[IPv4|IPv6] FROM PROTOCOL[,PROTOCOL] TO -> EXPECTED`
fn parse(line: &str, at: &str) -> Vec<Line> {
    let (probe, expected) = line
        .split_once("->")
        .unwrap_or_else(|| panic!("the line has no ->: {at}"));
    let mut words: Vec<_> = probe.split_whitespace().collect();
    let only = Family::ALL
        .into_iter()
        .find(|family| family.kubernetes_name() == words[0]);
    if only.is_some() {
        words.remove(0);
    }
    let [from, kinds, to] = words[..] else {
        panic!("the line does not start with FROM PROTOCOL TO: {at}")
    };
    let families = Family::ALL
        .into_iter()
        .filter(|family| only.is_none_or(|only| only == *family));
    let mut lines = Vec::new();
    for family in families {
        for kind in kinds.split(',') {
            lines.push(Line {
                at: at.to_owned(),
                family,
                from: from.to_owned(),
                kind: match kind {
                    "tcp" => ProbeKind::Connection(Protocol::Tcp),
                    "udp" => ProbeKind::Connection(Protocol::Udp),
                    "sctp" => ProbeKind::SctpInit,
                    "ping" => ProbeKind::Ping,
                    other => panic!("unknown protocol {other}: {at}"),
                },
                to: destination(to, family).unwrap_or_else(|| panic!("unknown destination: {at}")),
                expected: expectation(expected.trim(), at),
            });
        }
    }
    lines
}

/// `NAME:PORT`, or `NAME` for a ping.
fn destination(text: &str, family: Family) -> Option<(IpAddr, u16)> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (text, 0),
    };
    let address = match name {
        "node-1" => family.lan(2),
        "node-1-second" => family.lan(3),
        "loopback" => match family {
            Family::V4 => std::net::Ipv4Addr::LOCALHOST.into(),
            Family::V6 => std::net::Ipv6Addr::LOCALHOST.into(),
        },
        _ => {
            let (kind, number) = name.rsplit_once('-')?;
            let number = number.parse().ok()?;
            match kind {
                "cluster-ip" => family.cluster_ip(number),
                "external-ip" => family.external_ip(number),
                "load-balancer-ip" => family.load_balancer_ip(number),
                _ => return None,
            }
        }
    };
    Some((address, port))
}

fn expectation(text: &str, at: &str) -> Expected {
    match text {
        "refused" => return Expected::Refused,
        "dropped" => return Expected::Dropped,
        "untouched" => return Expected::Untouched,
        _ => {}
    }
    let mut parts = text.split(", ");
    let servers = parts.next().unwrap_or_default().split_whitespace();
    let servers: BTreeSet<_> = servers
        .map(|server| {
            if server.contains(':') {
                server.to_owned()
            } else {
                format!("{server}:8080")
            }
        })
        .collect();
    assert!(!servers.is_empty(), "nothing is expected: {at}");
    let (mut source_kept, mut same) = (None, false);
    for part in parts {
        match part {
            "source kept" => source_kept = Some(true),
            "masqueraded" => source_kept = Some(false),
            "the same each time" => same = true,
            other => panic!("unknown property {other:?}: {at}"),
        }
    }
    Expected::Servers {
        servers,
        source_kept,
        same,
    }
}
