//! Checks of the kernel: its version, capabilities, and support for the tables.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use nix::errno::Errno;
use procfs::process::Process;

use super::CheckResult;
use crate::netlink::{Ability, Error, Kernel};
use crate::planner::diff::TableStatus;
use crate::planner::model::Address;
use crate::planner::ruleset::{PodMatch, Program};
use crate::sysctl;

/// `CAP_NET_ADMIN` of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;

/// Checks whether this process has the capability to change nftables.
pub(super) fn capability() -> anyhow::Result<CheckResult> {
    const CHECK: &str = "capability";
    let status = Process::myself().and_then(|process| process.status());
    let effective = status.context("cannot read /proc/self/status")?.capeff;
    Ok(if effective & (1 << CAP_NET_ADMIN) == 0 {
        CheckResult::failure(
            CHECK,
            "CAP_NET_ADMIN is missing: this process cannot change nftables",
            "run as root, or add the capability NET_ADMIN to the container",
        )
    } else {
        CheckResult::ok(CHECK, "CAP_NET_ADMIN is effective")
    })
}

/// Reports why the nftables socket cannot be opened.
pub(super) fn no_nftables(error: &Error) -> CheckResult {
    const CHECK: &str = "nftables";
    match error {
        Error::Permission => CheckResult::failure(
            CHECK,
            "cannot read nftables without CAP_NET_ADMIN",
            "run this check as root",
        ),
        Error::NoNftables
        | Error::Socket { .. }
        | Error::Rejected(_)
        | Error::TooLarge { .. }
        | Error::Lost
        | Error::Lacks(_)
        | Error::Owned(_) => CheckResult::failure(CHECK, error.to_string(), "modprobe nf_tables"),
    }
}

/// The oldest supported kernel, as documented in README.md.
const OLDEST_SUPPORTED: (u32, u32) = (5, 10);

/// Checks the version of the running kernel.
pub(super) fn release() -> anyhow::Result<CheckResult> {
    let name = nix::sys::utsname::uname().context("cannot read the kernel release")?;
    Ok(check_release(&name.release().to_string_lossy()))
}

/// Checks a kernel release, as in `uname -r`.
fn check_release(release: &str) -> CheckResult {
    const CHECK: &str = "kernel";
    let message = format!("Linux {release}");
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return CheckResult::warning(
            CHECK,
            format!("{message}: unknown version format"),
            "use Linux 5.10 or newer",
        );
    };
    if (major, minor) < OLDEST_SUPPORTED {
        CheckResult::warning(
            CHECK,
            format!("{message} is older than 5.10, the oldest supported version"),
            "use Linux 5.10 or newer; kube-dnat can still work if the checks below pass",
        )
    } else {
        CheckResult::ok(CHECK, message)
    }
}

/// Checks whether the kernel accepts kube-dnat's tables, and what only some Services or nodes use.
pub(super) fn abilities(kernel: &mut Kernel) -> Vec<CheckResult> {
    vec![nftables(kernel), hash(kernel), table_owner(kernel)]
}

/// Checks whether the kernel accepts kube-dnat's tables, with a transaction that is undone.
fn nftables(kernel: &mut Kernel) -> CheckResult {
    const CHECK: &str = "nftables";
    if has_table::<Ipv4Addr>(kernel) || has_table::<Ipv6Addr>(kernel) {
        return CheckResult::ok(CHECK, "kube-dnat's tables exist");
    }
    let program = Program {
        pods: PodMatch::Cidrs,
        masquerade_all: false,
        refuse_load_balancer_ports: true,
        counters: true,
    };
    // Like the daemon, which creates no IPv6 table if the kernel has no IPv6.
    let families = sysctl::families();
    match kernel.dry_run(&program, families) {
        Ok(()) => CheckResult::ok(
            CHECK,
            "the kernel accepts kube-dnat's tables (tried in a transaction that was undone)",
        ),
        Err(Error::Rejected(rejections))
            if rejections
                .iter()
                .all(|rejection| rejection.errno == Errno::EPERM) =>
        {
            CheckResult::failure(
                CHECK,
                "another process owns a kube-dnat table of another version",
                "stop that process, or let the rolling update of its DaemonSet stop it",
            )
        }
        Err(error @ Error::Rejected(_)) => match kernel.missing_abilities(families) {
            Ok(missing) if !missing.is_empty() => missing_abilities(missing),
            _ => CheckResult::failure(CHECK, error.to_string(), "use Linux 5.10 or newer"),
        },
        Err(error) => CheckResult::failure(CHECK, error.to_string(), "run this check as root"),
    }
}

/// Whether kube-dnat's table of family `A` exists.
fn has_table<A: Address>(kernel: &mut Kernel) -> bool {
    matches!(kernel.inspect::<A>(), Ok(TableStatus::Ours(_)))
}

/// Reports the missing kernel features as the daemon's start does, and the modules that provide
/// them.
fn missing_abilities(missing: Vec<Ability>) -> CheckResult {
    let modules: Vec<_> = missing.iter().map(|ability| ability.modules()).collect();
    let fix = format!("modprobe -a {}", modules.join(" "));
    CheckResult::failure("nftables", Error::Lacks(missing).to_string(), fix)
}

/// Checks whether the kernel has the hash of `kube-dnat.io/balance`.
fn hash(kernel: &mut Kernel) -> CheckResult {
    const CHECK: &str = "balance";
    let ability = Ability::Hash;
    match kernel.lacks(ability, sysctl::families()) {
        Ok(false) => CheckResult::ok(CHECK, "the kernel supports kube-dnat.io/balance"),
        Ok(true) => CheckResult::warning(
            CHECK,
            format!(
                "the kernel lacks {ability}: Services with kube-dnat.io/balance are not served"
            ),
            format!(
                "modprobe {}; no action is required without that annotation",
                ability.modules()
            ),
        ),
        Err(error) => CheckResult::warning(CHECK, error.to_string(), "run this check as root"),
    }
}

/// Checks whether a process can own its tables, so that no other process can change them.
fn table_owner(kernel: &mut Kernel) -> CheckResult {
    const CHECK: &str = "table owner";
    match kernel.supports_table_ownership() {
        Ok(true) => CheckResult::ok(CHECK, "the kernel supports table ownership"),
        Ok(false) => CheckResult::warning(
            CHECK,
            "no table ownership: other programs can change the tables, and kube-dnat repairs them",
            "no action is required; Linux 6.9 or newer supports ownership",
        ),
        Err(error) => CheckResult::warning(CHECK, error.to_string(), "run this check as root"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_kernel_older_than_the_oldest_supported_one_is_a_warning() {
        for (release, level) in [
            ("6.18.5", Level::Ok),
            ("5.13.0-19-generic", Level::Ok),
            ("5.10.0-30-amd64", Level::Ok),
            ("5.15.0", Level::Ok),
            ("5.4.0-200-generic", Level::Warning),
            ("4.18.0-553.el8_10.x86_64", Level::Warning),
            ("mine", Level::Warning),
        ] {
            let result = check_release(release);
            assert_eq!(result.level, level, "{release}");
            assert!(result.message.contains(release), "{}", result.message);
        }
    }
}
