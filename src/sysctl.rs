//! The kernel settings that kube-proxy makes at its start (`pkg/proxy/conntrack/sysctls.go`).

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
    pub scope: Scope,
}

/// Of whom a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of the machine: never made smaller, and left alone where it may not be written, which is so
    /// in every network namespace but the first.
    Machine,
    /// Of this network namespace.
    Namespace,
}

/// What became of one that was not as it should be.
#[derive(Debug)]
pub enum Outcome {
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
pub struct Error {
    attempt: String,
    path: &'static str,
    source: io::Error,
}

impl Error {
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
        scope: Scope::Machine,
    };
    let ours = |path, value| Sysctl {
        path,
        value,
        scope: Scope::Namespace,
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
/// If one cannot be read, or one of the namespace cannot be written.
pub fn apply(root: &Path, sysctls: &[Sysctl]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::new();
    for &sysctl in sysctls {
        let Sysctl { path, value, scope } = sysctl;
        let failed = |attempt: String| {
            move |source| Error {
                attempt,
                path,
                source,
            }
        };
        let file = root.join(path);
        let before = number(&file).map_err(failed("read".to_owned()))?;
        let is_so = match scope {
            Scope::Machine => before >= value,
            Scope::Namespace => before == value,
        };
        if is_so {
            continue;
        }
        match fs::write(&file, value.to_string()) {
            Ok(()) => outcomes.push(Outcome::Set { sysctl, before }),
            Err(reason) if scope == Scope::Machine && is_forbidden(&reason) => {
                outcomes.push(Outcome::LeftAlone {
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

fn is_forbidden(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

fn number(file: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(file)?;
    let number = text.trim().parse();
    number.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ConntrackSettings {
        ConntrackSettings {
            max_per_core: 32 * 1024,
            min: 128 * 1024,
            tcp_established_timeout: Duration::from_hours(24),
            tcp_close_wait_timeout: Duration::from_hours(1),
            ..ConntrackSettings::default()
        }
    }

    fn texts(sysctls: &[Sysctl]) -> Vec<String> {
        let name = |path: &str| path.replace("net/netfilter/nf_conntrack_", "");
        let sysctls = sysctls.iter();
        sysctls
            .map(|sysctl| format!("{} {}", name(sysctl.path), sysctl.value))
            .collect()
    }

    #[test]
    fn the_defaults_are_kube_proxys() {
        let expected = [
            "max 262144",
            "buckets 65536",
            "tcp_timeout_established 86400",
            "tcp_timeout_close_wait 3600",
        ];
        assert_eq!(texts(&wanted(&settings(), 8)), expected);
    }

    #[test]
    fn entries_are_by_cpu_but_no_fewer_than_min_and_no_more_than_a_million() {
        for (max_per_core, min, cpus, expected) in [
            (32 * 1024, 128 * 1024, 1, Some(128 * 1024)),
            (32 * 1024, 128 * 1024, 8, Some(256 * 1024)),
            (32 * 1024, 128 * 1024, 256, Some(MOST_ENTRIES)),
            (
                i32::MAX.unsigned_abs(),
                i32::MAX.unsigned_abs(),
                1,
                Some(MOST_ENTRIES),
            ),
            (1, i32::MAX.unsigned_abs(), 1, Some(i32::MAX as u64)),
            (0, 128 * 1024, 8, None),
        ] {
            let settings = ConntrackSettings {
                max_per_core,
                min,
                ..settings()
            };
            let sysctls = wanted(&settings, cpus);
            let entries = sysctls.iter().find(|sysctl| sysctl.path.ends_with("_max"));
            assert_eq!(entries.map(|sysctl| sysctl.value), expected, "{settings:?}");
        }
    }

    #[test]
    fn zero_leaves_a_setting_as_it_is() {
        assert!(wanted(&ConntrackSettings::default(), 8).is_empty());
        let settings = ConntrackSettings {
            tcp_be_liberal: true,
            udp_timeout: Duration::from_secs(10),
            udp_stream_timeout: Duration::from_secs(20),
            ..ConntrackSettings::default()
        };
        let expected = [
            "udp_timeout 10",
            "udp_timeout_stream 20",
            "tcp_be_liberal 1",
        ];
        assert_eq!(texts(&wanted(&settings, 8)), expected);
    }

    /// A directory like `/proc/sys` with these numbers.
    fn root(numbers: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("net/netfilter")).unwrap();
        for (name, number) in numbers {
            let path = format!("net/netfilter/nf_conntrack_{name}");
            fs::write(root.path().join(path), number).unwrap();
        }
        root
    }

    #[test]
    fn only_what_differs_is_written_and_the_machines_never_made_smaller() {
        let root = root(&[
            ("max", "1000000\n"),
            ("buckets", "1000\n"),
            ("tcp_timeout_established", "432000\n"),
            ("tcp_timeout_close_wait", "3600\n"),
        ]);
        let sysctls = wanted(&settings(), 4);
        let outcomes = apply(root.path(), &sysctls).unwrap();
        let set: Vec<_> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Set { sysctl, before } => (sysctl.value, *before),
                Outcome::LeftAlone { .. } => panic!("{outcome:?}"),
            })
            .collect();
        assert_eq!(set, [(32 * 1024, 1000), (86_400, 432_000)]);
        let again = apply(root.path(), &sysctls).unwrap();
        assert!(again.is_empty(), "{again:?}");
    }

    #[test]
    fn a_setting_that_is_missing_or_of_others_is_named() {
        let root = root(&[("max", "1\n")]);
        let error = apply(root.path(), &wanted(&settings(), 4)).unwrap_err();
        assert!(error.is_missing());
        let said = error.to_string();
        let expected = "cannot read the kernel setting net.netfilter.nf_conntrack_buckets: No such";
        assert!(said.starts_with(expected), "{said}");
        let file = root.path().join("net/netfilter/nf_conntrack_max");
        assert_eq!(fs::read_to_string(&file).unwrap(), "131072");
        assert_eq!(count("0-3,8\n"), Some(5));
        assert_eq!(count("0\n"), Some(1));
        assert_eq!(count("x"), None);
    }
}
