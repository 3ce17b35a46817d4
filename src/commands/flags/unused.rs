//! The flags of kube-proxy that have no effect in kube-dnat.

use clap::Args;

use super::set;
use super::syntax::{SWITCH, gate, switch};
use crate::config::KubeProxyConfiguration;
use crate::duration::GoDuration;

/// The flags for fields of the configuration that have no effect.
#[derive(Debug, Args)]
#[command(next_help_heading = "kube-proxy flags accepted for compatibility (no effect)")]
pub(in crate::commands) struct UnusedFlags {
    #[arg(long, value_name = "GATE=true|false,...", value_delimiter = ',', value_parser = gate)]
    feature_gates: Vec<(String, bool)>,
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    profiling: Option<bool>,
    #[arg(long, value_name = "VERSION")]
    show_hidden_metrics_for_version: Option<String>,
    #[arg(long, value_name = "DURATION")]
    config_sync_period: Option<GoDuration>,
    #[arg(long, value_name = "N")]
    kube_api_qps: Option<f32>,
    #[arg(long, value_name = "N")]
    kube_api_burst: Option<i32>,
    #[arg(long, value_name = "BIT")]
    iptables_masquerade_bit: Option<i32>,
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    iptables_localhost_nodeports: Option<bool>,
    #[arg(long, value_name = "NAME")]
    ipvs_scheduler: Option<String>,
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    ipvs_exclude_cidrs: Vec<String>,
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    ipvs_strict_arp: Option<bool>,
    #[arg(long, value_name = "DURATION")]
    ipvs_tcp_timeout: Option<GoDuration>,
    #[arg(long, value_name = "DURATION")]
    ipvs_tcpfin_timeout: Option<GoDuration>,
    #[arg(long, value_name = "DURATION")]
    ipvs_udp_timeout: Option<GoDuration>,
}

impl UnusedFlags {
    /// Moves the given flags into `to`, to be validated and written.
    pub(in crate::commands) fn apply(self, to: &mut KubeProxyConfiguration) {
        to.feature_gates.extend(self.feature_gates);
        set(self.profiling, &mut to.enable_profiling);
        set(
            self.show_hidden_metrics_for_version,
            &mut to.show_hidden_metrics_for_version,
        );
        set(self.config_sync_period, &mut to.config_sync_period);
        let client = &mut to.client_connection;
        set(self.kube_api_qps, &mut client.qps);
        set(self.kube_api_burst, &mut client.burst);
        let bit = self.iptables_masquerade_bit;
        set(bit.map(Some), &mut to.iptables.masquerade_bit);
        let localhost = self.iptables_localhost_nodeports;
        set(localhost.map(Some), &mut to.iptables.localhost_node_ports);
        let ipvs = &mut to.ipvs;
        set(self.ipvs_scheduler, &mut ipvs.scheduler);
        ipvs.exclude_cidrs.extend(self.ipvs_exclude_cidrs);
        set(self.ipvs_strict_arp, &mut ipvs.strict_arp);
        set(self.ipvs_tcp_timeout, &mut ipvs.tcp_timeout);
        set(self.ipvs_tcpfin_timeout, &mut ipvs.tcp_fin_timeout);
        set(self.ipvs_udp_timeout, &mut ipvs.udp_timeout);
    }
}

/// The flags of the libraries that kube-proxy is built with.
#[derive(Debug, Args)]
#[command(next_help_heading = "kube-proxy flags accepted for compatibility (no effect)")]
pub(in crate::commands) struct LibraryFlags {
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    add_dir_header: Option<bool>,
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    alsologtostderr: Option<bool>,
    #[arg(long, value_name = "FILES")]
    boot_id_file: Option<String>,
    #[arg(long, value_name = "FILE:LINE")]
    log_backtrace_at: Option<String>,
    #[arg(long, value_name = "DIR")]
    log_dir: Option<String>,
    #[arg(long, value_name = "FILE")]
    log_file: Option<String>,
    #[arg(long, value_name = "MEGABYTES")]
    log_file_max_size: Option<u64>,
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    logtostderr: Option<bool>,
    #[arg(long, value_name = "FILES")]
    machine_id_file: Option<String>,
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    one_output: Option<bool>,
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    skip_headers: Option<bool>,
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    skip_log_headers: Option<bool>,
    #[arg(long, value_name = "SEVERITY")]
    stderrthreshold: Option<String>,
}
