//! `kube-dnat cleanup`: deletes kube-dnat's tables, and optionally kube-proxy's rules.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{bail, ensure};
use clap::Args;
use tracing::{info, warn};

use super::processes;
use crate::kube_proxy::takeover::{self, Takeover, TakeoverResult};
use crate::kube_proxy::virtual_servers;
use crate::netlink::{Error, Kernel, TableStatus};
use crate::planner::model::Address;
use crate::planner::model::addr::Family;
use crate::planner::ruleset::TABLE;

/// The arguments of `kube-dnat cleanup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat cleanup                 (after the daemon has stopped)\n  \
    kube-dnat cleanup --kube-proxy    (and remove kube-proxy's rules)\n\n\
    Exit codes:\n  0  everything was removed\n  1  error: a daemon owns the tables, no permission, no nftables")]
pub(super) struct Cleanup {
    /// Remove kube-proxy's rules too: its nftables tables, its iptables chains and the jumps to them
    /// (nft variant), its IPVS virtual servers and its IP sets.
    #[arg(long)]
    kube_proxy: bool,
}

impl Cleanup {
    /// Of our own tables only.
    pub(super) fn of_ours() -> Self {
        Self { kube_proxy: false }
    }

    pub(super) fn execute(self) -> anyhow::Result<()> {
        let Self { kube_proxy } = self;
        let mut kernel = Kernel::open()?;
        let is_owned = owner::<Ipv4Addr>(&mut kernel).or(owner::<Ipv6Addr>(&mut kernel));
        if is_owned.is_none()
            && let Some(daemon) = processes::daemons().first()
        {
            bail!("{daemon} runs and would make the tables again: stop the daemon first");
        }
        let deleted = match kernel.delete_tables() {
            Err(Error::Owned(family)) => bail!(owned(&mut kernel, family)),
            result => result?,
        };
        for family in &deleted {
            info!(%family, "table deleted");
        }
        if deleted.is_empty() {
            info!("there is no table to delete");
        }
        if kube_proxy {
            of_kube_proxy(&mut kernel)?;
        }
        Ok(())
    }
}

/// Why a table that a daemon owns is not deleted.
fn owned(kernel: &mut Kernel, family: Family) -> String {
    let owner = match family {
        Family::Ipv4 => owner::<Ipv4Addr>(kernel),
        Family::Ipv6 => owner::<Ipv6Addr>(kernel),
    };
    let owner = owner.and_then(processes::of_netlink_port);
    let owner = owner.map_or_else(String::new, |owner| format!(", {owner}"));
    format!("the {family} table {TABLE} belongs to another process{owner}: stop the daemon first")
}

/// The netlink port of the socket that owns the table.
fn owner<A: Address>(kernel: &mut Kernel) -> Option<u32> {
    match kernel.look::<A>() {
        Ok(TableStatus::Ours(shape)) => shape.owner,
        Ok(TableStatus::Nothing | TableStatus::Foreign(_)) | Err(_) => None,
    }
}

fn of_kube_proxy(kernel: &mut Kernel) -> anyhow::Result<()> {
    let mut takeover = Takeover::default();
    let TakeoverResult { removed, stays } =
        crate::agent::runtime()?.block_on(takeover.remove(kernel));
    for removed in &removed {
        info!("{removed} deleted");
    }
    if removed.is_empty() && stays.is_empty() {
        info!("kube-proxy has left nothing");
    }
    let servers = virtual_servers();
    if servers > 0 && stays.is_empty() {
        warn!(
            servers,
            "IPVS has virtual servers, and nothing shows that kube-proxy made them: \
             `ipvsadm --list --numeric` shows them, and `ipvsadm --clear` deletes them all"
        );
    }
    let legacy = takeover::legacy_iptables();
    if !legacy.is_empty() {
        warn!(
            tables = legacy.join(","),
            "the old variant of iptables is in use too: `iptables-legacy-save | grep KUBE-` shows \
             whether kube-proxy left something there, and `kube-proxy --cleanup` removes it"
        );
    }
    let stays: Vec<_> = stays.iter().map(|error| format!("{error:#}")).collect();
    ensure!(stays.is_empty(), "{}", stays.join("; "));
    Ok(())
}
