//! `kube-dnat cleanup`: deletes kube-dnat's tables, and optionally kube-proxy's rules.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{bail, ensure};
use clap::Args;
use tracing::{info, warn};

use super::{output, processes};
use crate::kube_proxy::takeover::{self, Takeover, TakeoverResult};
use crate::kube_proxy::virtual_servers;
use crate::netlink::{Error, Kernel};
use crate::planner::diff::TableStatus;
use crate::planner::model::Address;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::{TABLE, layer};

/// The arguments of `kube-dnat cleanup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat cleanup                 (after the daemon has stopped)\n  \
    kube-dnat cleanup --kube-proxy    (and remove kube-proxy's rules)\n  \
    kube-dnat cleanup --dry-run --kube-proxy\n\n\
    Exit codes:\n  0  everything was removed\n  1  error: a daemon owns the tables, no permission, no nftables")]
pub(super) struct Cleanup {
    /// Remove kube-proxy's rules too: its nftables tables, its iptables chains and the jumps to
    /// them (nft variant), its IPVS virtual servers and its IP sets.
    #[arg(long)]
    kube_proxy: bool,

    /// List what would be deleted, and change nothing. Fails where the deletion would fail.
    #[arg(long)]
    dry_run: bool,
}

impl Cleanup {
    /// Deletes only kube-dnat's own tables, as `run --cleanup` does.
    pub(super) fn own_tables() -> Self {
        Self {
            kube_proxy: false,
            dry_run: false,
        }
    }

    /// Deletes the tables, and kube-proxy's rules if requested.
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let Self {
            kube_proxy,
            dry_run,
        } = self;
        let mut kernel = Kernel::open()?;
        if dry_run {
            print_removable(&mut kernel, kube_proxy)?;
        }
        let families = [Family::Ipv4, Family::Ipv6];
        let is_owned = families
            .into_iter()
            .any(|family| owner_of(&mut kernel, family).is_some());
        if !is_owned && let Some(daemon) = processes::daemons().first() {
            bail!("{daemon} is running and would recreate the tables: stop it first");
        }
        if dry_run {
            for family in families {
                let is_owned = owner_of(&mut kernel, family).is_some();
                ensure!(!is_owned, owned_message(&mut kernel, family));
            }
            return Ok(());
        }
        let deleted = match kernel.delete_tables() {
            Err(Error::Owned(family)) => bail!(owned_message(&mut kernel, family)),
            result => result?,
        };
        for family in &deleted {
            info!(%family, "table deleted");
        }
        if deleted.is_empty() {
            info!("no table to delete");
        }
        if kube_proxy {
            remove_kube_proxy_rules(&mut kernel)?;
        }
        Ok(())
    }
}

/// Prints what would be deleted, one item a line.
fn print_removable(kernel: &mut Kernel, kube_proxy: bool) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    lines.extend(own_table::<Ipv4Addr>(kernel)?);
    lines.extend(own_table::<Ipv6Addr>(kernel)?);
    if kube_proxy {
        lines.extend(takeover::removable(kernel)?);
    }
    let lines = lines
        .into_iter()
        .map(|line| format!("would delete {line}\n"));
    let mut text: String = lines.collect();
    if text.is_empty() {
        "nothing to delete\n".clone_into(&mut text);
    }
    output::print(text.as_bytes())
}

/// Describes the table of family `A`, if there is one.
fn own_table<A: Address>(kernel: &mut Kernel) -> anyhow::Result<Option<String>> {
    let name = format!("table {} {TABLE}", layer(A::FAMILY));
    Ok(match kernel.inspect::<A>()? {
        TableStatus::Missing => None,
        TableStatus::Foreign(_) => Some(name),
        TableStatus::Ours(_) => {
            let elements: usize = kernel.element_counts::<A>()?.values().sum();
            Some(format!("{name} ({elements} elements)"))
        }
    })
}

/// Explains that a table cannot be deleted because another process owns it.
fn owned_message(kernel: &mut Kernel, family: Family) -> String {
    let process = owner_of(kernel, family)
        .and_then(processes::of_netlink_port)
        .map_or_else(String::new, |process| format!(", {process}"));
    format!(
        "the {family} table {TABLE} is owned by another process{process}: stop the daemon first"
    )
}

/// Returns the netlink port of the socket that owns the table of a family.
fn owner_of(kernel: &mut Kernel, family: Family) -> Option<u32> {
    match family {
        Family::Ipv4 => owner::<Ipv4Addr>(kernel),
        Family::Ipv6 => owner::<Ipv6Addr>(kernel),
    }
}

/// Returns the netlink port of the socket that owns the table of family `A`.
fn owner<A: Address>(kernel: &mut Kernel) -> Option<u32> {
    match kernel.inspect::<A>() {
        Ok(TableStatus::Ours(shape)) => shape.owner,
        Ok(TableStatus::Missing | TableStatus::Foreign(_)) | Err(_) => None,
    }
}

/// Removes kube-proxy's rules, and logs what was removed and what remains.
fn remove_kube_proxy_rules(kernel: &mut Kernel) -> anyhow::Result<()> {
    let mut takeover = Takeover::default();
    let TakeoverResult { removed, failed } =
        crate::agent::runtime()?.block_on(takeover.remove(kernel));
    for removed in &removed {
        info!("{removed} deleted");
    }
    if removed.is_empty() && failed.is_empty() {
        info!("no rules of kube-proxy found");
    }
    let servers = virtual_servers();
    if servers > 0 && failed.is_empty() {
        warn!(
            servers,
            "IPVS has virtual servers that cannot be attributed to kube-proxy: list them with \
             `ipvsadm --list --numeric`; `ipvsadm --clear` deletes all of them"
        );
    }
    let legacy = takeover::legacy_iptables();
    if !legacy.is_empty() {
        warn!(
            tables = legacy.join(","),
            "the legacy variant of iptables is in use: `iptables-legacy-save | grep KUBE-` shows \
             whether kube-proxy has rules there, and `kube-proxy --cleanup` removes them"
        );
    }
    let errors: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
    ensure!(errors.is_empty(), "{}", errors.join("; "));
    Ok(())
}
