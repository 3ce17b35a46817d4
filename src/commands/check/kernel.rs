//! What the kernel lets us do.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use nix::errno::Errno;

use super::Finding;
use crate::model::Address;
use crate::model::addr::Family;
use crate::netlink::{Error, Kernel, Standing};
use crate::ruleset::{Pods, Program};
use crate::sysctl;

/// `CAP_NET_ADMIN` of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;

/// Whether this process may change nftables.
pub(super) fn capability() -> anyhow::Result<Finding> {
    const WHAT: &str = "capability";
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .context("/proc/self/status does not tell the capabilities")?;
    Ok(if effective & (1 << CAP_NET_ADMIN) == 0 {
        Finding::failure(
            WHAT,
            "CAP_NET_ADMIN is missing: nftables cannot be changed",
            "run as root, or give the container the capability NET_ADMIN",
        )
    } else {
        Finding::ok(WHAT, "CAP_NET_ADMIN is there")
    })
}

pub(super) fn no_nftables(error: &Error) -> Finding {
    const WHAT: &str = "nftables";
    match error {
        Error::Permission => Finding::failure(
            WHAT,
            "it cannot be looked at without CAP_NET_ADMIN",
            "run this check as root",
        ),
        Error::NoNftables
        | Error::Socket { .. }
        | Error::Refused(_)
        | Error::Lost
        | Error::Owned(_) => Finding::failure(WHAT, error.to_string(), "modprobe nf_tables"),
    }
}

/// Whether the kernel takes our tables, and what it can besides.
pub(super) fn abilities(kernel: &mut Kernel) -> Vec<Finding> {
    vec![takes_our_tables(kernel), owner(kernel)]
}

fn takes_our_tables(kernel: &mut Kernel) -> Finding {
    const WHAT: &str = "nftables";
    let there = [is_there::<Ipv4Addr>(kernel), is_there::<Ipv6Addr>(kernel)];
    if there.contains(&true) {
        return Finding::ok(WHAT, "the kernel takes our tables: they are there");
    }
    let everything = Program {
        pods: Pods::Cidrs,
        masquerade_all: false,
        without_counters: false,
    };
    // As the daemon, which makes no IPv6 table where the kernel has none.
    let families: &[_] = if sysctl::has_ipv6() {
        &[Family::Ipv4, Family::Ipv6]
    } else {
        &[Family::Ipv4]
    };
    match kernel.rehearse(&everything, families) {
        Ok(()) => Finding::ok(
            WHAT,
            "the kernel takes our tables: all of them were tried in a transaction and undone",
        ),
        Err(Error::Refused(refusals))
            if refusals.iter().all(|refusal| refusal.errno == Errno::EPERM) =>
        {
            Finding::failure(
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
            let mend = mend(refusals.iter().map(|refusal| refusal.operation.as_str()));
            Finding::failure(WHAT, format!("the kernel refuses {first}{more}"), mend)
        }
        Err(error) => Finding::failure(WHAT, error.to_string(), "run this check as root"),
    }
}

fn is_there<A: Address>(kernel: &mut Kernel) -> bool {
    matches!(kernel.look::<A>(), Ok(Standing::Ours(_)))
}

/// The modules that refused rules need, by the words of nft in them.
fn mend<'a>(refused: impl Iterator<Item = &'a str>) -> String {
    const MODULES: [(&str, &str); 7] = [
        ("fib ", "nft_fib_ipv4 and nft_fib_ipv6"),
        ("numgen ", "nft_numgen"),
        ("masquerade", "nft_masq"),
        ("dnat ", "nft_nat"),
        ("reject", "nft_reject_ipv4 and nft_reject_ipv6"),
        ("ct ", "nft_ct"),
        ("type nat", "nft_chain_nat"),
    ];
    let mut needed: Vec<_> = refused
        .flat_map(|rule| MODULES.iter().filter(|(word, _)| rule.contains(word)))
        .map(|(_, module)| *module)
        .collect();
    needed.sort_unstable();
    needed.dedup();
    if needed.is_empty() {
        return "Linux 5.13 or newer is needed".to_owned();
    }
    format!("load the kernel modules {}", needed.join(", "))
}

fn owner(kernel: &mut Kernel) -> Finding {
    const WHAT: &str = "table owner";
    match kernel.can_own_tables() {
        Ok(true) => Finding::ok(WHAT, "the tables can be kept from other programs"),
        Ok(false) => Finding::warning(
            WHAT,
            "other programs, `nft flush ruleset` too, can change the tables; that is repaired",
            "nothing need be done; Linux 6.9 or newer keeps them out",
        ),
        Err(error) => Finding::warning(WHAT, error.to_string(), "run this check as root"),
    }
}
