//! The removal of what kube-proxy left on this node in any of its modes.

use std::path::Path;

use anyhow::Context;
use futures::TryStreamExt;

use super::ipvs::{IpvsFlush, flush_ipvs, virtual_servers};
use crate::kube_proxy::leftovers::{is_ip_set_of_kube_proxy, removal};
use crate::netlink::{Error, Kernel};

/// The device that holds the `ClusterIPs` in kube-proxy's ipvs mode.
pub const IPVS_DEVICE: &str = "kube-ipvs0";

/// The number of attempts to remove the rules, since other processes may change the ruleset
/// meanwhile.
const ATTEMPTS: usize = 5;

/// Returns whether a network device exists. (`/sys` may belong to another namespace.)
#[must_use]
pub fn has_device(name: &str) -> bool {
    Path::new("/proc/sys/net/ipv4/conf").join(name).exists()
}

/// Returns the tables of the legacy variant of iptables, which are not in nftables.
#[must_use]
pub fn legacy_iptables() -> Vec<String> {
    let names = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    // Without the file, the kernel has no legacy iptables.
    let texts = names.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let mut tables: Vec<_> = texts
        .iter()
        .flat_map(|text| text.lines())
        .map(str::to_owned)
        .collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

/// Lists the IP sets that kube-proxy's ipvs mode left.
///
/// # Errors
/// If the kernel cannot list IP sets.
pub fn ip_sets(kernel: &mut Kernel) -> Result<Vec<String>, Error> {
    let mut sets = kernel.ip_sets()?;
    sets.retain(|name| is_ip_set_of_kube_proxy(name));
    Ok(sets)
}

/// The state of a takeover from one attempt to the next.
#[derive(Debug, Default)]
pub struct Takeover {
    /// Whether there were signs of ipvs mode; without them the virtual servers may be another
    /// program's.
    was_ipvs: bool,
    /// Whether the rules were removed, so that later ones are new.
    pub(super) has_removed_rules: bool,
}

/// The outcome of an attempt.
#[derive(Debug, Default)]
pub struct TakeoverResult {
    /// The removed parts.
    pub removed: Vec<String>,
    /// The errors of the parts that remain.
    pub failed: Vec<anyhow::Error>,
}

impl TakeoverResult {
    /// Adds the outcome of one part: what was removed, if there was anything.
    fn add(&mut self, part: anyhow::Result<Option<String>>) {
        match part {
            Ok(removed) => self.removed.extend(removed),
            Err(error) => self.failed.push(error),
        }
    }
}

impl Takeover {
    /// Removes the rules in one transaction, then IP sets, virtual servers and the device.
    ///
    /// The parts are independent: the failure of one does not prevent the others.
    pub async fn remove(&mut self, kernel: &mut Kernel) -> TakeoverResult {
        let mut result = TakeoverResult::default();
        let rules = remove_rules(kernel);
        self.has_removed_rules |= rules.is_ok();
        result.add(rules);
        // The rules used the IP sets.
        match ip_sets(kernel) {
            Ok(sets) => {
                self.was_ipvs |= !sets.is_empty();
                destroy(kernel, sets, &mut result);
            }
            Err(error) => result.failed.push(error.into()),
        }
        let device = has_device(IPVS_DEVICE);
        self.was_ipvs |= device;
        if self.was_ipvs {
            let flushed = flush_ipvs().context("cannot delete the virtual servers of IPVS");
            let describe = |flush| {
                (flush == IpvsFlush::Deleted).then(|| "the virtual servers of IPVS".to_owned())
            };
            result.add(flushed.map(describe));
        }
        if device {
            let deleted = delete_device().await;
            result.add(deleted.map(|()| Some(format!("device {IPVS_DEVICE}"))));
        }
        result
    }
}

/// Lists what [`Takeover::remove`] would remove, and changes nothing.
///
/// # Errors
/// If the kernel cannot list the rules or the IP sets.
pub fn removable(kernel: &mut Kernel) -> Result<Vec<String>, Error> {
    let rules = removal(&kernel.full_ruleset()?);
    let sets = ip_sets(kernel)?;
    let device = has_device(IPVS_DEVICE);
    let servers = virtual_servers();
    let mut found = Vec::new();
    if !rules.is_empty() {
        found.push(rules.to_string());
    }
    if !sets.is_empty() {
        found.push(format!("IP sets ({})", sets.len()));
    }
    // Without signs of ipvs mode they may be another program's.
    if servers > 0 && (device || !sets.is_empty()) {
        found.push(format!("the virtual servers of IPVS ({servers})"));
    }
    if device {
        found.push(format!("device {IPVS_DEVICE}"));
    }
    Ok(found)
}

/// Destroys IP sets.
fn destroy(kernel: &mut Kernel, sets: Vec<String>, result: &mut TakeoverResult) {
    let all = sets.len();
    let remaining = kernel.destroy_ip_sets(sets);
    if all > remaining.len() {
        result
            .removed
            .push(format!("IP sets ({})", all - remaining.len()));
    }
    let errors = remaining.into_iter().map(|(set, error)| {
        anyhow::Error::new(error).context(format!("cannot destroy the IP set {set}"))
    });
    result.failed.extend(errors);
}

/// Removes the rules, unless the ruleset keeps changing; returns a description of what was removed.
fn remove_rules(kernel: &mut Kernel) -> anyhow::Result<Option<String>> {
    let mut attempt = 1;
    loop {
        let found = removal(&kernel.full_ruleset()?);
        match kernel.remove(&found) {
            Ok(()) => return Ok((!found.is_empty()).then(|| found.to_string())),
            Err(error) if attempt == ATTEMPTS => {
                return Err(error).context("cannot remove kube-proxy's rules");
            }
            // Another process changed the ruleset meanwhile.
            Err(_) => attempt += 1,
        }
    }
}

/// Deletes the device of the ipvs mode.
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
