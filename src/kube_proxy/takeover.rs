//! Removes what kube-proxy left on this node, whichever mode it ran in.

use std::path::Path;

use anyhow::Context;
use futures::TryStreamExt;

use super::flush_ipvs;
use crate::kube_proxy::leftovers::{is_ip_set_of_kube_proxy, removal};
use crate::netlink::{Error, Kernel};

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

/// The work, and what is known of it from one attempt to the next.
#[derive(Debug, Default)]
pub struct Takeover {
    /// Whether what shows mode ipvs was ever there: else the virtual servers may be another's.
    was_ipvs: bool,
    /// Whether its rules were removed: those that are there later were made since.
    pub(super) rules_went: bool,
}

/// What an attempt came to.
#[derive(Debug, Default)]
pub struct TakeoverResult {
    /// What was removed.
    pub removed: Vec<String>,
    /// Why the rest stays; none: nothing does.
    pub stays: Vec<anyhow::Error>,
}

impl TakeoverResult {
    /// Takes what one part came to: what was removed, if anything was there.
    fn take(&mut self, part: anyhow::Result<Option<String>>) {
        match part {
            Ok(removed) => self.removed.extend(removed),
            Err(error) => self.stays.push(error),
        }
    }
}

impl Takeover {
    /// Removes all of it: rules in one transaction, then IP sets, IPVS, the device. What stays keeps
    /// nothing else.
    pub async fn remove(&mut self, kernel: &mut Kernel) -> TakeoverResult {
        let mut done = TakeoverResult::default();
        let rules = remove_rules(kernel);
        self.rules_went |= rules.is_ok();
        done.take(rules);
        // Its rules were those that needed them.
        match ip_sets(kernel) {
            Ok(sets) => {
                self.was_ipvs |= !sets.is_empty();
                destroy(kernel, sets, &mut done);
            }
            Err(error) => done.stays.push(error.into()),
        }
        let device = has_device(IPVS_DEVICE);
        self.was_ipvs |= device;
        if self.was_ipvs {
            let flushed = flush_ipvs().context("cannot delete the virtual servers of IPVS");
            let words = |flushed: bool| flushed.then(|| "the virtual servers of IPVS".to_owned());
            done.take(flushed.map(words));
        }
        if device {
            let deleted = delete_device().await;
            done.take(deleted.map(|()| Some(format!("device {IPVS_DEVICE}"))));
        }
        done
    }
}

fn destroy(kernel: &mut Kernel, sets: Vec<String>, done: &mut TakeoverResult) {
    let all = sets.len();
    let stay = kernel.destroy_ip_sets(sets);
    if all > stay.len() {
        done.removed.push(format!("IP sets ({})", all - stay.len()));
    }
    let why = stay.into_iter().map(|(set, why)| {
        anyhow::Error::new(why).context(format!("cannot destroy the IP set {set}"))
    });
    done.stays.extend(why);
}

fn remove_rules(kernel: &mut Kernel) -> anyhow::Result<Option<String>> {
    let mut attempt = 1;
    loop {
        let found = removal(&kernel.full_ruleset()?);
        match kernel.remove(&found) {
            Ok(()) => return Ok((!found.is_empty()).then(|| found.to_string())),
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
