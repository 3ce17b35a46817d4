//! Removes what kube-proxy left on this node, whichever mode it ran in.

use std::path::Path;

use anyhow::Context;
use futures::TryStreamExt;
use tracing::info;

use crate::leftovers::{Removal, is_ip_set_of_kube_proxy, removal};
use crate::netlink::{Error, Kernel, flush_ipvs};

/// The device that kube-proxy's mode ipvs gives the `ClusterIPs` to.
pub const IPVS_DEVICE: &str = "kube-ipvs0";

/// How often it is begun again, since others changed the ruleset meanwhile.
const ATTEMPTS: usize = 5;

/// Whether there is a network device of this name. (`/sys` may be that of another namespace.)
#[must_use]
pub fn has_device(name: &str) -> bool {
    Path::new("/proc/sys/net/ipv4/conf").join(name).exists()
}

/// The tables of the old variant of iptables, which nftables knows nothing of.
#[must_use]
pub fn legacy_iptables() -> Vec<String> {
    let names = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    let read = names.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let mut tables: Vec<_> = read
        .iter()
        .flat_map(|text| text.lines())
        .map(str::to_owned)
        .collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

/// The IP sets that kube-proxy's mode ipvs left.
///
/// # Errors
/// If the kernel does not tell.
pub fn ip_sets(kernel: &mut Kernel) -> Result<Vec<String>, Error> {
    let mut sets = kernel.ip_sets()?;
    sets.retain(|name| is_ip_set_of_kube_proxy(name));
    Ok(sets)
}

/// Removes all of it: rules in one transaction, then IP sets and IPVS. What was removed; none: nothing was
/// there.
///
/// # Errors
/// If something cannot be removed; what was before it is.
pub async fn remove(kernel: &mut Kernel) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    let rules = remove_rules(kernel)?;
    if !rules.is_empty() {
        removed.push(rules.to_string());
    }
    // Its rules were those that needed them.
    let sets = ip_sets(kernel)?;
    for set in &sets {
        let destroyed = kernel.destroy_ip_set(set);
        destroyed.with_context(|| format!("cannot destroy the IP set {set}"))?;
    }
    if !sets.is_empty() {
        removed.push(format!("IP sets ({})", sets.len()));
    }
    if has_device(IPVS_DEVICE) {
        if flush_ipvs()? {
            removed.push("the virtual servers of IPVS".to_owned());
        }
        delete_device().await?;
        removed.push(format!("device {IPVS_DEVICE}"));
    }
    Ok(removed)
}

/// The same, at the right moment: after our own first commit. What becomes of it is logged.
pub async fn remove_and_tell() {
    let done = match Kernel::open() {
        Ok(mut kernel) => remove(&mut kernel).await,
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(removed) if removed.is_empty() => info!("taken over: kube-proxy had left nothing"),
        Ok(removed) => info!(removed = removed.join(", "), "taken over from kube-proxy"),
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            "cannot remove what kube-proxy left; ours is in force all the same"
        ),
    }
}

fn remove_rules(kernel: &mut Kernel) -> anyhow::Result<Removal> {
    let mut attempt = 1;
    loop {
        let found = removal(&kernel.everyones()?);
        match kernel.remove(&found) {
            Ok(()) => return Ok(found),
            Err(error) if attempt == ATTEMPTS => {
                return Err(error).context("cannot remove kube-proxy's rules");
            }
            // kube-proxy or iptables was at it meanwhile.
            Err(_) => attempt += 1,
        }
    }
}

async fn delete_device() -> anyhow::Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot reach rtnetlink")?;
    let connection = tokio::spawn(connection);
    let name = IPVS_DEVICE.to_owned();
    let links = handle.link().get().match_name(name).execute();
    let deleted = async {
        let links: Vec<_> = links.try_collect().await?;
        for link in links {
            handle.link().del(link.header.index).execute().await?;
        }
        Ok::<_, rtnetlink::Error>(())
    };
    let deleted = deleted.await;
    connection.abort();
    deleted.with_context(|| format!("cannot delete the device {IPVS_DEVICE}"))
}
