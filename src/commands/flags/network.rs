//! Flags of what the daemon is connected to, and of its pace.

use std::path::PathBuf;

use clap::Args;

use super::set;
use super::value::{SWITCH, switch};
use crate::config::{GoDuration, HEALTHZ_PORT, KubeProxyConfiguration, METRICS_PORT, append_port};

/// The API server, the servers that are asked for health and metrics, and the pace.
#[derive(Debug, Args)]
pub(in crate::commands) struct NetworkFlags {
    /// How to reach the API server; without it and --master: as a Pod of the cluster does.
    #[arg(long, value_name = "FILE", help_heading = "API server")]
    kubeconfig: Option<PathBuf>,

    /// Where health is asked for; empty: nowhere [default: 0.0.0.0:10256].
    #[arg(long, value_name = "IP[:PORT]", help_heading = "Health and metrics")]
    healthz_bind_address: Option<String>,

    /// Deprecated: the port of --healthz-bind-address; 0: nowhere.
    #[arg(long, value_name = "PORT", help_heading = "Health and metrics")]
    healthz_port: Option<u16>,

    /// Where metrics are asked for; empty: nowhere [default: 127.0.0.1:10249].
    #[arg(long, value_name = "IP[:PORT]", help_heading = "Health and metrics")]
    metrics_bind_address: Option<String>,

    /// Deprecated: the port of --metrics-bind-address; 0: nowhere.
    #[arg(long, value_name = "PORT", help_heading = "Health and metrics")]
    metrics_port: Option<u16>,

    /// End if one of these addresses cannot be had, instead of trying again.
    #[arg(long, value_name = SWITCH, value_parser = switch, help_heading = "Health and metrics")]
    bind_address_hard_fail: Option<bool>,

    /// nftables, iptables or ipvs: whatever it is, nftables serves.
    #[arg(long, value_name = "MODE", help_heading = "This node and its Pods")]
    proxy_mode: Option<String>,

    /// How long after a sync the next begins at the earliest [default: 0s]; the name is kube-proxy's
    /// in mode nftables too.
    #[arg(
        long,
        visible_alias = "min-sync-period",
        value_name = "DURATION",
        help_heading = "Pace"
    )]
    iptables_min_sync_period: Option<GoDuration>,

    /// How long after a sync that failed it is tried again at the latest [default: 30s].
    #[arg(long, value_name = "DURATION", help_heading = "Pace")]
    iptables_sync_period: Option<GoDuration>,

    /// As --iptables-min-sync-period, with --proxy-mode ipvs.
    #[arg(long, value_name = "DURATION", help_heading = "Pace")]
    ipvs_min_sync_period: Option<GoDuration>,

    /// As --iptables-sync-period, with --proxy-mode ipvs.
    #[arg(long, value_name = "DURATION", help_heading = "Pace")]
    ipvs_sync_period: Option<GoDuration>,
}

impl NetworkFlags {
    /// Moves what was given into `to`.
    pub(in crate::commands) fn apply(self, to: &mut KubeProxyConfiguration) {
        let Self {
            kubeconfig,
            healthz_bind_address,
            healthz_port,
            metrics_bind_address,
            metrics_port,
            bind_address_hard_fail,
            proxy_mode,
            iptables_min_sync_period,
            iptables_sync_period,
            ipvs_min_sync_period,
            ipvs_sync_period,
        } = self;
        let kubeconfig = kubeconfig.map(|path| path.to_string_lossy().into_owned());
        set(kubeconfig, &mut to.client_connection.kubeconfig);
        let healthz = bind(healthz_bind_address, healthz_port, "0.0.0.0", HEALTHZ_PORT);
        set(healthz, &mut to.healthz_bind_address);
        let metrics = bind(
            metrics_bind_address,
            metrics_port,
            "127.0.0.1",
            METRICS_PORT,
        );
        set(metrics, &mut to.metrics_bind_address);
        set(bind_address_hard_fail, &mut to.bind_address_hard_fail);
        set(proxy_mode, &mut to.mode);
        let nftables = to.mode == "nftables";
        let (longest, shortest) = if nftables {
            (
                &mut to.nftables.sync_period,
                &mut to.nftables.min_sync_period,
            )
        } else {
            (
                &mut to.iptables.sync_period,
                &mut to.iptables.min_sync_period,
            )
        };
        set(iptables_sync_period, longest);
        set(iptables_min_sync_period, shortest);
        set(ipvs_sync_period, &mut to.ipvs.sync_period);
        set(ipvs_min_sync_period, &mut to.ipvs.min_sync_period);
    }
}

/// An address and a deprecated port make one address; a port of 0 none.
fn bind(address: Option<String>, port: Option<u16>, ip: &str, default: u16) -> Option<String> {
    match (address, port) {
        (None, None) => None,
        (_, Some(0)) => Some(String::new()),
        (address, port) => {
            let mut address = address.unwrap_or_else(|| ip.to_owned());
            append_port(&mut address, port.unwrap_or(default));
            Some(address)
        }
    }
}
