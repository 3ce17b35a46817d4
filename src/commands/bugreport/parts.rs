//! The parts of a bug report, and where each comes from.

use crate::planner::model::addr::Family;

/// A part of a bug report.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The file in the archive.
    pub(super) file: &'static str,
    /// The source of its content.
    pub(super) source: Source,
}

/// The source of a part.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A subcommand of this program with its arguments.
    Own(&'static [&'static str]),
    /// Another program with its arguments.
    Program(&'static str, &'static [&'static str]),
    /// A file of the kernel or of the system.
    File(&'static str),
    /// A path that the daemon serves at one of its addresses.
    Daemon(&'static str),
    /// kube-dnat's table of a family, as nft text.
    Table(Family),
    /// The addresses of the interfaces.
    Interfaces,
    /// The command line and the limits of the daemon.
    Process,
}

/// Returns all parts. None of them contains a credential: no kubeconfig, no environment.
pub(super) fn all() -> Vec<Part> {
    let part = |file, source| Part { file, source };
    let mut parts = vec![
        part("version.txt", Source::Own(&["--version"])),
        part("status.txt", Source::Own(&["status"])),
        part("status.json", Source::Own(&["status", "-o", "json"])),
        part("services.txt", Source::Own(&["services", "-o", "wide"])),
        part("services.json", Source::Own(&["services", "-o", "json"])),
        part("check.txt", Source::Own(&["check"])),
        part("check.json", Source::Own(&["check", "-o", "json"])),
        part("tables/ip.nft", Source::Table(Family::Ipv4)),
        part("tables/ip6.nft", Source::Table(Family::Ipv6)),
        part("nft/version.txt", Source::Program("nft", &["--version"])),
        part(
            "nft/ruleset-without-elements.nft",
            Source::Program("nft", &["--terse", "list", "ruleset"]),
        ),
    ];
    let daemon = [
        ("daemon/log.txt", "/debug/log"),
        ("daemon/status.json", "/debug/status"),
        ("daemon/state.json", "/debug/state"),
        ("daemon/problems.json", "/debug/problems"),
        ("daemon/configuration.json", "/configz"),
        ("daemon/metrics.txt", "/metrics"),
        ("daemon/livez.json", "/livez"),
    ];
    parts.extend(daemon.map(|(file, path)| part(file, Source::Daemon(path))));
    parts.push(part("daemon/process.txt", Source::Process));
    parts.push(part("system/interfaces.txt", Source::Interfaces));
    let files = [
        ("system/kernel.txt", "/proc/version"),
        ("system/os-release.txt", "/etc/os-release"),
        ("system/modules.txt", "/proc/modules"),
        ("system/memory.txt", "/proc/meminfo"),
        ("system/load.txt", "/proc/loadavg"),
        ("system/routes-ipv4.txt", "/proc/net/route"),
        ("system/routes-ipv6.txt", "/proc/net/ipv6_route"),
        ("system/netlink.txt", "/proc/net/netlink"),
        ("system/sockets.txt", "/proc/net/sockstat"),
        ("system/snmp.txt", "/proc/net/snmp"),
        ("conntrack/statistics.txt", "/proc/net/stat/nf_conntrack"),
        (
            "conntrack/count.txt",
            "/proc/sys/net/netfilter/nf_conntrack_count",
        ),
        (
            "conntrack/max.txt",
            "/proc/sys/net/netfilter/nf_conntrack_max",
        ),
        (
            "conntrack/buckets.txt",
            "/proc/sys/net/netfilter/nf_conntrack_buckets",
        ),
        (
            "conntrack/tcp-be-liberal.txt",
            "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal",
        ),
    ];
    parts.extend(files.map(|(file, path)| part(file, Source::File(path))));
    parts
}
