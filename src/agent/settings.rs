//! Settings of the kernel and of this process, as kube-proxy makes them.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use tracing::{debug, info, warn};

use crate::config::Config;
use crate::logging::LogEvent;
use crate::netlink::Conntrack;
use crate::planner::model::Protocol;
use crate::sysctl::{self, SysctlOutcome};

/// Makes the kernel settings, and no more.
///
/// # Errors
/// What keeps them from being made.
pub fn init(config: &Config) -> anyhow::Result<()> {
    make(&mut Conntrack::open()?, config)?;
    info!(event = %LogEvent::KernelSettingsApplied, "kernel settings applied");
    Ok(())
}

/// Makes them.
pub(super) fn make(conntrack: &mut Conntrack, config: &Config) -> anyhow::Result<()> {
    // As kube-proxy: who may not do this goes without.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", config.oom_score_adj.to_string()) {
        debug!(%error, oom_score_adj = config.oom_score_adj, "cannot set oom_score_adj");
    }
    let sysctls = sysctl::wanted(&config.conntrack, sysctl::online_cpus());
    let root = Path::new("/proc/sys");
    let mut made = sysctl::apply(root, &sysctls);
    if made.as_ref().is_err_and(sysctl::SysctlError::is_missing) {
        // Whoever asks for its entries makes the kernel load connection tracking.
        conntrack.delete::<Ipv4Addr>(&BTreeSet::from([Protocol::Udp]), |_| false)?;
        made = sysctl::apply(root, &sysctls);
    }
    for outcome in made? {
        match outcome {
            SysctlOutcome::Set { sysctl, before } => {
                info!(
                    event = %LogEvent::KernelSettingChanged,
                    setting = sysctl.path,
                    value = sysctl.value,
                    before,
                    "kernel setting changed"
                );
            }
            SysctlOutcome::LeftAlone {
                sysctl,
                value,
                reason,
            } => warn!(
                event = %LogEvent::KernelSettingNotChanged,
                error = %reason,
                setting = sysctl.path,
                value,
                wanted = sysctl.value,
                "cannot change a kernel setting"
            ),
        }
    }
    Ok(())
}
