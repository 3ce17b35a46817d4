//! What the kernel lets us do.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use nix::errno::Errno;
use procfs::process::Process;

use super::CheckResult;
use crate::netlink::{Ability, Error, Kernel, TableStatus};
use crate::planner::model::Address;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{PodMatch, Program};
use crate::sysctl;

/// `CAP_NET_ADMIN` of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;

/// Whether this process may change nftables.
pub(super) fn capability() -> anyhow::Result<CheckResult> {
    const WHAT: &str = "capability";
    let status = Process::myself().and_then(|process| process.status());
    let effective = status.context("cannot read /proc/self/status")?.capeff;
    Ok(if effective & (1 << CAP_NET_ADMIN) == 0 {
        CheckResult::failure(
            WHAT,
            "CAP_NET_ADMIN is missing: nftables cannot be changed",
            "run as root, or give the container the capability NET_ADMIN",
        )
    } else {
        CheckResult::ok(WHAT, "CAP_NET_ADMIN is there")
    })
}

pub(super) fn no_nftables(error: &Error) -> CheckResult {
    const WHAT: &str = "nftables";
    match error {
        Error::Permission => CheckResult::failure(
            WHAT,
            "it cannot be looked at without CAP_NET_ADMIN",
            "run this check as root",
        ),
        Error::NoNftables
        | Error::Socket { .. }
        | Error::Refused(_)
        | Error::Lost
        | Error::Lacks(_)
        | Error::Owned(_) => CheckResult::failure(WHAT, error.to_string(), "modprobe nf_tables"),
    }
}

/// The least supported kernel, as README has it.
const LEAST: (u32, u32) = (5, 13);

/// Which kernel it is.
pub(super) fn release() -> anyhow::Result<CheckResult> {
    let name = nix::sys::utsname::uname().context("cannot ask which kernel this is")?;
    Ok(of_release(&name.release().to_string_lossy()))
}

fn of_release(release: &str) -> CheckResult {
    const WHAT: &str = "kernel";
    let found = format!("Linux {release}");
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return CheckResult::warning(
            WHAT,
            format!("{found}: it is not known how old that is"),
            "Linux 5.13 or newer is supported",
        );
    };
    if (major, minor) < LEAST {
        CheckResult::warning(
            WHAT,
            format!("{found} is older than 5.13, the least supported one"),
            "use Linux 5.13 or newer; what is tried below may work all the same",
        )
    } else {
        CheckResult::ok(WHAT, found)
    }
}

/// Whether the kernel takes our tables, and what it can besides.
pub(super) fn abilities(kernel: &mut Kernel) -> Vec<CheckResult> {
    vec![takes_our_tables(kernel), owner(kernel)]
}

fn takes_our_tables(kernel: &mut Kernel) -> CheckResult {
    const WHAT: &str = "nftables";
    let there = [is_there::<Ipv4Addr>(kernel), is_there::<Ipv6Addr>(kernel)];
    if there.contains(&true) {
        return CheckResult::ok(WHAT, "the kernel takes our tables: they are there");
    }
    let everything = Program {
        pods: PodMatch::Cidrs,
        masquerade_all: false,
        without_counters: false,
    };
    // As the daemon, which makes no IPv6 table where the kernel has none.
    let families: &[_] = if sysctl::has_ipv6() {
        &[Family::Ipv4, Family::Ipv6]
    } else {
        &[Family::Ipv4]
    };
    match kernel.dry_run(&everything, families) {
        Ok(()) => CheckResult::ok(
            WHAT,
            "the kernel takes our tables: all of them were tried in a transaction and undone",
        ),
        Err(Error::Refused(refusals))
            if refusals.iter().all(|refusal| refusal.errno == Errno::EPERM) =>
        {
            CheckResult::failure(
                WHAT,
                "another process owns a table of our name, which is not of this version",
                "stop it, or let the rolling update of its DaemonSet do so",
            )
        }
        Err(Error::Refused(refusals)) => {
            let first = refusals.first().map(ToString::to_string);
            let first = first.unwrap_or_default();
            let more = match refusals.len() {
                0 | 1 => String::new(),
                many => format!(" (and {} more)", many - 1),
            };
            match kernel.missing(families) {
                Ok(missing) if !missing.is_empty() => lacks(missing),
                _ => CheckResult::failure(
                    WHAT,
                    format!("the kernel refuses {first}{more}"),
                    "Linux 5.13 or newer is needed",
                ),
            }
        }
        Err(error) => CheckResult::failure(WHAT, error.to_string(), "run this check as root"),
    }
}

fn is_there<A: Address>(kernel: &mut Kernel) -> bool {
    matches!(kernel.look::<A>(), Ok(TableStatus::Ours(_)))
}

/// The same words as the start, and how to load what is missing.
fn lacks(missing: Vec<Ability>) -> CheckResult {
    let modules: Vec<_> = missing.iter().map(|ability| ability.modules()).collect();
    let fix = format!("modprobe -a {}", modules.join(" "));
    CheckResult::failure("nftables", Error::Lacks(missing).to_string(), fix)
}

fn owner(kernel: &mut Kernel) -> CheckResult {
    const WHAT: &str = "table owner";
    match kernel.can_own_tables() {
        Ok(true) => CheckResult::ok(WHAT, "the tables can be kept from other programs"),
        Ok(false) => CheckResult::warning(
            WHAT,
            "other programs, `nft flush ruleset` too, can change the tables; that is repaired",
            "nothing need be done; Linux 6.9 or newer keeps them out",
        ),
        Err(error) => CheckResult::warning(WHAT, error.to_string(), "run this check as root"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_kernel_below_the_least_supported_one_is_warned_of() {
        for (release, level) in [
            ("6.18.5", Level::Ok),
            ("5.13.0-19-generic", Level::Ok),
            ("5.15.0", Level::Ok),
            ("5.10.0-30-amd64", Level::Warning),
            ("4.18.0-553.el8_10.x86_64", Level::Warning),
            ("mine", Level::Warning),
        ] {
            let finding = of_release(release);
            assert_eq!(finding.level, level, "{release}");
            assert!(finding.found.contains(release), "{}", finding.found);
        }
    }
}
