//! The kernel settings that kube-proxy applies at startup (`pkg/proxy/conntrack/sysctls.go`).

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use crate::config::ConntrackSettings;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::TcpPickup;

/// The maximum of `nf_conntrack_max` that is computed from the number of CPUs, as in kube-proxy
/// 1.36.
const MAX_ENTRIES: u64 = 1_048_576;

/// A numeric kernel setting below `/proc/sys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The path below `/proc/sys`.
    pub path: &'static str,
    /// The value to apply.
    pub value: u64,
    /// Whether the setting belongs to the machine or to the network namespace.
    pub scope: SysctlScope,
}

/// The scope of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysctlScope {
    /// The setting belongs to the machine. It is never decreased, and it stays where it cannot be
    /// written: in every network namespace except the initial one.
    Machine,
    /// The setting belongs to this network namespace.
    Namespace,
}

/// The outcome of a setting whose value was not right.
#[derive(Debug)]
pub enum SysctlOutcome {
    /// The value was written.
    Set {
        /// The setting.
        sysctl: Sysctl,
        /// The previous value.
        before: u64,
    },
    /// The value cannot be written from here.
    LeftAlone {
        /// The setting.
        sysctl: Sysctl,
        /// The current value.
        value: u64,
        /// The cause.
        reason: io::Error,
    },
}

/// A setting that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} the kernel setting {}: {source}", .path.replace('/', "."))]
pub struct SysctlError {
    attempt: String,
    path: &'static str,
    source: io::Error,
}

impl SysctlError {
    /// Whether the setting does not exist, for example because its module is not loaded.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.kind() == ErrorKind::NotFound
    }
}

/// Reads how conntrack treats packets of unknown TCP connections, below `root`, which is
/// `/proc/sys`. Without connection tracking it is the kernel's default.
#[must_use]
pub fn tcp_pickup(root: &Path) -> TcpPickup {
    let value = fs::read_to_string(root.join("net/netfilter/nf_conntrack_tcp_loose"));
    match value.as_deref().map(str::trim) {
        Ok("0") => TcpPickup::Strict,
        Ok(_) | Err(_) => TcpPickup::Loose,
    }
}

/// Returns the settings of conntrack for a node with this number of CPUs.
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
    let namespaced = |path, value| Sysctl {
        path,
        value,
        scope: SysctlScope::Namespace,
    };
    let mut sysctls = Vec::new();
    if *max_per_core > 0 {
        let scaled = u64::from(*max_per_core) * u64::from(cpus);
        let entries = if scaled > MAX_ENTRIES {
            MAX_ENTRIES
        } else {
            scaled.max(u64::from(*min))
        };
        sysctls.push(machine("net/netfilter/nf_conntrack_max", entries));
        sysctls.push(machine("net/netfilter/nf_conntrack_buckets", entries / 4));
    }
    let timeouts = [
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
    sysctls.extend(
        timeouts
            .into_iter()
            .filter(|(_, timeout)| **timeout > Duration::ZERO)
            .map(|(path, timeout)| namespaced(path, timeout.as_secs())),
    );
    if *tcp_be_liberal {
        sysctls.push(namespaced("net/netfilter/nf_conntrack_tcp_be_liberal", 1));
    }
    sysctls
}

/// Applies settings below `root`, which is `/proc/sys`. Values that are already right are not
/// written.
///
/// # Errors
/// If a setting cannot be read, or if a setting of the namespace cannot be written although the file
/// system is writable.
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
        let is_right = match scope {
            SysctlScope::Machine => before >= value,
            SysctlScope::Namespace => before == value,
        };
        if is_right {
            continue;
        }
        match fs::write(&file, value.to_string()) {
            Ok(()) => outcomes.push(SysctlOutcome::Set { sysctl, before }),
            Err(reason) if is_optional(scope, &reason) => {
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

/// Whether Services work without a setting that cannot be written: `/proc/sys` is read-only in a
/// container that is not privileged.
fn is_optional(scope: SysctlScope, error: &io::Error) -> bool {
    let kind = error.kind();
    kind == ErrorKind::ReadOnlyFilesystem
        || (kind == ErrorKind::PermissionDenied && scope == SysctlScope::Machine)
}

/// Reads a number from a file.
fn number(file: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let number = text.trim().parse();
    number.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Returns the IP families of the kernel, each of which has a table.
#[must_use]
pub fn families() -> &'static [Family] {
    if Path::new("/proc/net/if_inet6").exists() {
        &[Family::Ipv4, Family::Ipv6]
    } else {
        &[Family::Ipv4]
    }
}

/// Returns the number of online CPUs of the node (`/sys/devices/system/cpu/online`), regardless of
/// the CPUs that this process can use.
#[must_use]
pub fn online_cpus() -> u32 {
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|text| count(&text))
        .unwrap_or_else(|| u32::try_from(available()).unwrap_or(u32::MAX))
}

/// Counts the CPUs in a list: `0-3,8`.
fn count(list: &str) -> Option<u32> {
    let mut count: u32 = 0;
    for part in list.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let more = to.parse::<u32>().ok()?.checked_sub(from.parse().ok()?)?;
        count = count.checked_add(more)?.checked_add(1)?;
    }
    Some(count)
}
