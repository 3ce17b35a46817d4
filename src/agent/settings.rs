//! Applies the settings of the kernel and of this process at startup, like kube-proxy.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use tracing::{debug, info, warn};

use crate::config::Config;
use crate::logging::LogEvent;
use crate::netlink::Conntrack;
use crate::planner::conntrack::EntryScope;
use crate::planner::model::Protocol;
use crate::sysctl::{self, SysctlOutcome};

/// Applies the kernel settings, for `--init-only`.
///
/// # Errors
/// If a setting cannot be applied.
pub fn init(config: &Config) -> anyhow::Result<()> {
    apply(&mut Conntrack::open()?, config)?;
    info!(event = %LogEvent::KernelSettingsApplied, "kernel settings applied");
    Ok(())
}

/// Applies the settings. Values that are already right are not written.
pub(super) fn apply(conntrack: &mut Conntrack, config: &Config) -> anyhow::Result<()> {
    // Like kube-proxy, kube-dnat continues without the permission for this.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", config.oom_score_adj.to_string()) {
        debug!(%error, oom_score_adj = config.oom_score_adj, "cannot set oom_score_adj");
    }
    let sysctls = sysctl::wanted(&config.conntrack, sysctl::online_cpus());
    let root = Path::new("/proc/sys");
    let mut applied = sysctl::apply(root, &sysctls);
    if applied.as_ref().is_err_and(sysctl::SysctlError::is_missing) {
        // A request for its entries makes the kernel load conntrack.
        conntrack.delete::<Ipv4Addr>(&EntryScope::from(Protocol::Udp), |_| false)?;
        applied = sysctl::apply(root, &sysctls);
    }
    for outcome in applied? {
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
