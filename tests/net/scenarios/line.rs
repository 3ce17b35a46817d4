//! A line of a file of probes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lab::{Family, Protocol};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProbeKind {
    Connection(Protocol),
    SctpInit,
    Ping,
    /// A GET request.
    Http {
        path: String,
    },
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
    /// The answer to an HTTP request has this status code.
    Status(u16),
}

/// `[IPv4|IPv6] FROM PROTOCOL[,PROTOCOL] TO -> EXPECTED`
pub(super) fn parse(line: &str, at: &str) -> Vec<Line> {
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
    let (to, path) = to.find('/').map_or((to, ""), |slash| to.split_at(slash));
    let mut lines = Vec::new();
    for family in families {
        for kind in kinds.split(',') {
            assert!(
                path.is_empty() || kind == "http",
                "{kind} has no path: {at}"
            );
            lines.push(Line {
                at: at.to_owned(),
                family,
                from: from.to_owned(),
                kind: match kind {
                    "tcp" => ProbeKind::Connection(Protocol::Tcp),
                    "udp" => ProbeKind::Connection(Protocol::Udp),
                    "sctp" => ProbeKind::SctpInit,
                    "ping" => ProbeKind::Ping,
                    "http" => ProbeKind::Http {
                        path: path.to_owned(),
                    },
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
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
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
    if let Ok(status) = text.parse() {
        return Expected::Status(status);
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
