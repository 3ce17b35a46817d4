//! From what is written to what is meant: kube-proxy's validation
//! (`pkg/proxy/apis/config/validation`), which leaves no text to parse later.

mod network;
mod problems;
#[cfg(test)]
mod tests;
mod unused;

use std::path::PathBuf;

use network::{node_ip, node_ports, pods, socket_address};
use problems::InvalidSettings;
use unused::check_unused;

use super::schema::{ConntrackConfiguration, KubeProxyConfiguration, Logging};
use super::{Config, ConntrackSettings, GoDuration, InvalidSetting, LogFormat, LogSettings, Mode};
use crate::planner::desired::NodeFacts;

/// What `written`, with its defaults set, means on a machine of this name.
pub(super) fn resolve(
    written: KubeProxyConfiguration,
    host_name: &str,
) -> Result<Config, Vec<InvalidSetting>> {
    let mut problems = InvalidSettings::default();
    let mode = mode(&written, &mut problems);
    let (masquerade_all, sync_period, min_sync_period) = section(&written, mode, &mut problems);
    check_unused(&written, mode, &mut problems);
    let node_ip = problems.take("bindAddress", node_ip(&written.bind_address));
    let facts = NodeFacts {
        pods: pods(&written, &mut problems),
        masquerade_all,
        node_port_addresses: node_ports(&written.node_port_addresses, &mut problems),
        node_ip,
        own_addresses: None,
        counters: true,
    };
    let bind = |field: &str, text: &str, problems: &mut InvalidSettings| {
        let address = (!text.is_empty()).then(|| socket_address(text)).transpose();
        problems.take(field, address)
    };
    let healthz_bind_address = bind(
        "healthzBindAddress",
        &written.healthz_bind_address,
        &mut problems,
    );
    let metrics_bind_address = bind(
        "metricsBindAddress",
        &written.metrics_bind_address,
        &mut problems,
    );
    let kubeconfig = &written.client_connection.kubeconfig;
    let config = Config {
        file: None,
        node: problems.take(
            "hostnameOverride",
            node(&written.hostname_override, host_name),
        ),
        kubeconfig: (!kubeconfig.is_empty()).then(|| PathBuf::from(kubeconfig)),
        mode,
        facts,
        sync_period: sync_period.to_std(),
        min_sync_period: min_sync_period.to_std(),
        healthz_bind_address,
        metrics_bind_address,
        bind_address_hard_fail: written.bind_address_hard_fail,
        profiling: written.enable_profiling,
        show_hidden_metrics_for_version: hidden_metrics(&written, &mut problems),
        feature_gates: written.feature_gates.clone(),
        conntrack: conntrack(&written.conntrack, &mut problems),
        oom_score_adj: written.oom_score_adj.unwrap_or_default(),
        logging: logging(&written.logging, &mut problems),
        written,
    };
    problems.within("oomScoreAdj", config.written.oom_score_adj, -1000..=1000);
    if problems.0.is_empty() {
        Ok(config)
    } else {
        Err(problems.0)
    }
}

fn mode(written: &KubeProxyConfiguration, problems: &mut InvalidSettings) -> Mode {
    match written.mode.as_str() {
        "" => Mode::Unset,
        "iptables" => Mode::Iptables,
        "ipvs" => Mode::Ipvs,
        "nftables" => Mode::Nftables,
        other => {
            let what = format!("\"{other}\" is none of nftables, iptables and ipvs");
            problems.add("mode", what);
            Mode::Unset
        }
    }
}

/// What the section of the mode says, as kube-proxy picks it
/// (`Convert_v1alpha1_KubeProxyConfiguration_To_config_KubeProxyConfiguration`): whether all is
/// masqueraded, and the longest and shortest time between two full loads.
fn section(
    written: &KubeProxyConfiguration,
    mode: Mode,
    problems: &mut InvalidSettings,
) -> (bool, GoDuration, GoDuration) {
    let KubeProxyConfiguration {
        iptables,
        ipvs,
        nftables,
        ..
    } = written;
    let (name, masquerade_all, longest, shortest) = match mode {
        Mode::Nftables => (
            "nftables",
            nftables.masquerade_all,
            nftables.sync_period,
            nftables.min_sync_period,
        ),
        Mode::Ipvs => (
            "ipvs",
            iptables.masquerade_all,
            ipvs.sync_period,
            ipvs.min_sync_period,
        ),
        Mode::Iptables | Mode::Unset => (
            "iptables",
            iptables.masquerade_all,
            iptables.sync_period,
            iptables.min_sync_period,
        ),
    };
    if longest.is_zero() || longest.is_negative() {
        problems.add(
            &format!("{name}.syncPeriod"),
            format!("{longest} is not more than 0"),
        );
    } else if shortest > longest {
        problems.add(
            &format!("{name}.minSyncPeriod"),
            format!("{shortest} is more than syncPeriod, which is {longest}"),
        );
    }
    problems.not_negative(&format!("{name}.minSyncPeriod"), shortest);
    (masquerade_all, longest, shortest)
}

/// The name of our Node, as kube-proxy has it: trimmed, in lower case.
fn node(written: &str, host_name: &str) -> Result<String, String> {
    let name = if written.is_empty() {
        host_name
    } else {
        written
    };
    match name.trim().to_lowercase() {
        name if name.is_empty() => Err("is empty, and so would be the name of this Node".into()),
        name => Ok(name),
    }
}

fn hidden_metrics(
    written: &KubeProxyConfiguration,
    problems: &mut InvalidSettings,
) -> Option<String> {
    let version = &written.show_hidden_metrics_for_version;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let valid = version
        .split_once('.')
        .is_some_and(|(major, minor)| is_number(major) && is_number(minor));
    if version.is_empty() {
        return None;
    }
    if !valid {
        let what = format!("\"{version}\" is not a version such as 1.35");
        problems.add("showHiddenMetricsForVersion", what);
    }
    Some(version.clone())
}

fn conntrack(
    written: &ConntrackConfiguration,
    problems: &mut InvalidSettings,
) -> ConntrackSettings {
    problems.within("conntrack.maxPerCore", written.max_per_core, 0..=i32::MAX);
    problems.within("conntrack.min", written.min, 0..=i32::MAX);
    let count = |value: Option<i32>| u32::try_from(value.unwrap_or_default()).unwrap_or_default();
    let mut time = |field: &str, value: GoDuration| {
        problems.not_negative(&format!("conntrack.{field}"), value);
        value.to_std()
    };
    ConntrackSettings {
        max_per_core: count(written.max_per_core),
        min: count(written.min),
        tcp_established_timeout: time(
            "tcpEstablishedTimeout",
            written.tcp_established_timeout.unwrap_or_default(),
        ),
        tcp_close_wait_timeout: time(
            "tcpCloseWaitTimeout",
            written.tcp_close_wait_timeout.unwrap_or_default(),
        ),
        tcp_be_liberal: written.tcp_be_liberal,
        udp_timeout: time("udpTimeout", written.udp_timeout),
        udp_stream_timeout: time("udpStreamTimeout", written.udp_stream_timeout),
    }
}

fn logging(written: &Logging, problems: &mut InvalidSettings) -> LogSettings {
    let format = match written.format.as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("\"{other}\" is neither text nor json")),
    };
    let format = problems.take("logging.format", format);
    // klog's are positive and of 32 bits.
    let fits = |verbosity: u32| i32::try_from(verbosity).is_ok();
    if !fits(written.verbosity) {
        let what = format!("{} is more than {}", written.verbosity, i32::MAX);
        problems.add("logging.verbosity", what);
    }
    if format == LogFormat::Json && !written.vmodule.is_empty() {
        problems.add("logging.vmodule", "goes with the text format only");
    }
    for (i, module) in written.vmodule.iter().enumerate() {
        let pattern = &module.file_pattern;
        if pattern.is_empty() || pattern.contains(['=', ',']) || !fits(module.verbosity) {
            let field = format!("logging.vmodule[{i}]");
            problems.add(
                &field,
                format!(
                    "\"{pattern}={}\" is not a pattern and a verbosity",
                    module.verbosity
                ),
            );
        }
    }
    LogSettings {
        format,
        verbosity: written.verbosity,
        vmodule: written.vmodule.clone(),
    }
}
