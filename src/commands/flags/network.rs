//! The flags for the API server, for health and metrics, and for the sync interval.

use std::path::PathBuf;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::super::completions::values;
use super::set;
use super::syntax::{SWITCH, switch};
use crate::config::{HEALTHZ_PORT, KubeProxyConfiguration, METRICS_PORT, append_port};
use crate::duration::GoDuration;

/// The flags for the API server, for health and metrics, and for the sync interval.
#[derive(Debug, Args)]
pub(in crate::commands) struct NetworkFlags {
    /// Kubeconfig file; without it and --master, kube-dnat uses the service account of its Pod.
    #[arg(long, value_name = "FILE", help_heading = "API server")]
    kubeconfig: Option<PathBuf>,

    /// Content type of the API server's answers: application/vnd.kubernetes.protobuf, with JSON
    /// where a server does not have it, or application/json
    /// [default: application/vnd.kubernetes.protobuf].
    #[arg(long, value_name = "TYPE", help_heading = "API server")]
    kube_api_content_type: Option<String>,

    /// Address to serve health checks on; empty disables them [default: 0.0.0.0:10256].
    #[arg(long, value_name = "IP[:PORT]", help_heading = "Health and metrics")]
    healthz_bind_address: Option<String>,

    /// Deprecated: port of --healthz-bind-address; 0 disables health checks.
    #[arg(long, value_name = "PORT", help_heading = "Health and metrics")]
    healthz_port: Option<u16>,

    /// Address to serve metrics on; empty disables them [default: 127.0.0.1:10249].
    #[arg(long, value_name = "IP[:PORT]", help_heading = "Health and metrics")]
    metrics_bind_address: Option<String>,

    /// Deprecated: port of --metrics-bind-address; 0 disables metrics.
    #[arg(long, value_name = "PORT", help_heading = "Health and metrics")]
    metrics_port: Option<u16>,

    /// Exit if one of these addresses cannot be bound, instead of retrying.
    #[arg(long, value_name = SWITCH, value_parser = switch, help_heading = "Health and metrics")]
    bind_address_hard_fail: Option<bool>,

    /// nftables, iptables or ipvs; kube-dnat uses nftables in every mode.
    #[arg(long, value_name = "MODE", help_heading = "Node and Pods", add = ArgValueCandidates::new(values(["nftables", "iptables", "ipvs"])))]
    proxy_mode: Option<String>,

    /// Minimum interval between syncs, in mode nftables too [default: 0s].
    #[arg(
        long,
        visible_alias = "min-sync-period",
        value_name = "DURATION",
        help_heading = "Sync"
    )]
    iptables_min_sync_period: Option<GoDuration>,

    /// Maximum retry interval after a failed sync [default: 30s].
    #[arg(long, value_name = "DURATION", help_heading = "Sync")]
    iptables_sync_period: Option<GoDuration>,

    /// Same as --iptables-min-sync-period, for --proxy-mode ipvs.
    #[arg(long, value_name = "DURATION", help_heading = "Sync")]
    ipvs_min_sync_period: Option<GoDuration>,

    /// Same as --iptables-sync-period, for --proxy-mode ipvs.
    #[arg(long, value_name = "DURATION", help_heading = "Sync")]
    ipvs_sync_period: Option<GoDuration>,
}

impl NetworkFlags {
    /// Moves the given flags into `to`.
    pub(in crate::commands) fn apply(self, to: &mut KubeProxyConfiguration) {
        let Self {
            kubeconfig,
            kube_api_content_type,
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
        set(
            kube_api_content_type,
            &mut to.client_connection.content_type,
        );
        let healthz = bind_address(healthz_bind_address, healthz_port, "0.0.0.0", HEALTHZ_PORT);
        set(healthz, &mut to.healthz_bind_address);
        let metrics = bind_address(
            metrics_bind_address,
            metrics_port,
            "127.0.0.1",
            METRICS_PORT,
        );
        set(metrics, &mut to.metrics_bind_address);
        set(bind_address_hard_fail, &mut to.bind_address_hard_fail);
        set(proxy_mode, &mut to.mode);
        let (sync_period, min_sync_period) = if to.mode == "nftables" {
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
        set(iptables_sync_period, sync_period);
        set(iptables_min_sync_period, min_sync_period);
        set(ipvs_sync_period, &mut to.ipvs.sync_period);
        set(ipvs_min_sync_period, &mut to.ipvs.min_sync_period);
    }
}

/// Combines an address with a deprecated port. Port 0 gives the empty address, which disables the
/// server.
fn bind_address(
    address: Option<String>,
    port: Option<u16>,
    ip: &str,
    default: u16,
) -> Option<String> {
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
