//! The kernel settings that kube-proxy makes at its start (`pkg/proxy/conntrack/sysctls.go`).

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use crate::config::ConntrackSettings;

/// What kube-proxy 1.36 does not exceed by itself: many cores want no more entries than that.
const MOST_ENTRIES: u64 = 1_048_576;

/// A number below `/proc/sys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Its path there.
    pub path: &'static str,
    /// What it should be.
    pub value: u64,
    /// Of whom it is.
    pub scope: SysctlScope,
}

/// Of whom a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysctlScope {
    /// Of the machine: never made smaller, and left alone where it may not be written, which is so
    /// in every network namespace but the first.
    Machine,
    /// Of this network namespace.
    Namespace,
}

/// What became of one that was not as it should be.
#[derive(Debug)]
pub enum SysctlOutcome {
    /// It is now.
    Set {
        /// Which.
        sysctl: Sysctl,
        /// What it was.
        before: u64,
    },
    /// It is not ours to set.
    LeftAlone {
        /// Which.
        sysctl: Sysctl,
        /// What it is.
        value: u64,
        /// Why.
        reason: io::Error,
    },
}

/// A setting cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} the kernel setting {}: {source}", .path.replace('/', "."))]
pub struct SysctlError {
    attempt: String,
    path: &'static str,
    source: io::Error,
}

impl SysctlError {
    /// Whether there is no such setting, as when the kernel's module is not loaded.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == ErrorKind::NotFound
    }
}

/// What connection tracking should be set to on a node with so many CPUs.
#[must_use]
pub fn wanted(settings: &ConntrackSettings, cpus: u32) -> Vec<Sysctl> {
    let ConntrackSettings {
        max_per_core,
        min,
        tcp_established_timeout,
        tcp_close_wait_timeout,
        tcp_be_liberal,
        udp_timeout,
        udp_stream_timeout,
    } = settings;
    let machine = |path, value| Sysctl {
        path,
        value,
        scope: SysctlScope::Machine,
    };
    let ours = |path, value| Sysctl {
        path,
        value,
        scope: SysctlScope::Namespace,
    };
    let mut sysctls = Vec::new();
    if *max_per_core > 0 {
        let scaled = u64::from(*max_per_core) * u64::from(cpus);
        let entries = if scaled > MOST_ENTRIES {
            MOST_ENTRIES
        } else {
            scaled.max(u64::from(*min))
        };
        sysctls.push(machine("net/netfilter/nf_conntrack_max", entries));
        sysctls.push(machine("net/netfilter/nf_conntrack_buckets", entries / 4));
    }
    let times = [
        (
            "net/netfilter/nf_conntrack_tcp_timeout_established",
            tcp_established_timeout,
        ),
        (
            "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
            tcp_close_wait_timeout,
        ),
        ("net/netfilter/nf_conntrack_udp_timeout", udp_timeout),
        (
            "net/netfilter/nf_conntrack_udp_timeout_stream",
            udp_stream_timeout,
        ),
    ];
    let times = times
        .into_iter()
        .filter(|(_, time)| **time > Duration::ZERO);
    sysctls.extend(times.map(|(path, time)| ours(path, time.as_secs())));
    if *tcp_be_liberal {
        sysctls.push(ours("net/netfilter/nf_conntrack_tcp_be_liberal", 1));
    }
    sysctls
}

/// Makes them so below `root`, which is `/proc/sys`. What is so already is not written.
///
/// # Errors
/// If one cannot be read, or one of the namespace cannot be written though the file system can.
pub fn apply(root: &Path, sysctls: &[Sysctl]) -> Result<Vec<SysctlOutcome>, SysctlError> {
    let mut outcomes = Vec::new();
    for &sysctl in sysctls {
        let Sysctl { path, value, scope } = sysctl;
        let failed = |attempt: String| {
            move |source| SysctlError {
                attempt,
                path,
                source,
            }
        };
        let file = root.join(path);
        let before = number(&file).map_err(failed("read".to_owned()))?;
        let is_so = match scope {
            SysctlScope::Machine => before >= value,
            SysctlScope::Namespace => before == value,
        };
        if is_so {
            continue;
        }
        match fs::write(&file, value.to_string()) {
            Ok(()) => outcomes.push(SysctlOutcome::Set { sysctl, before }),
            Err(reason) if may_be_left(scope, &reason) => {
                outcomes.push(SysctlOutcome::LeftAlone {
                    sysctl,
                    value: before,
                    reason,
                });
            }
            Err(source) => return Err(failed(format!("write {value} to"))(source)),
        }
    }
    Ok(outcomes)
}

/// A container has `/proc/sys` read-only unless it is privileged: Services work all the same.
fn may_be_left(scope: SysctlScope, error: &io::Error) -> bool {
    let kind = error.kind();
    kind == ErrorKind::ReadOnlyFilesystem
        || (kind == ErrorKind::PermissionDenied && scope == SysctlScope::Machine)
}

fn number(file: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let number = text.trim().parse();
    number.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Whether the kernel has IPv6.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// How many CPUs the node has, whatever part of them is ours, by `/sys/devices/system/cpu/online`.
#[must_use]
pub fn online_cpus() -> u32 {
    let ours = || std::thread::available_parallelism().map_or(1, usize::from);
    fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|text| count(&text))
        .unwrap_or_else(|| u32::try_from(ours()).unwrap_or(u32::MAX))
}

/// The number of CPUs in a list: `0-3,8`.
fn count(list: &str) -> Option<u32> {
    let mut count: u32 = 0;
    for part in list.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let more = to.parse::<u32>().ok()?.checked_sub(from.parse().ok()?)?;
        count = count.checked_add(more)?.checked_add(1)?;
    }
    Some(count)
}
