//! Resolves kube-proxy's configuration to typed settings, with kube-proxy's validation
//! (`pkg/proxy/apis/config/validation`).

mod network;
#[cfg(test)]
mod tests;
mod unused;

use std::ops::RangeInclusive;
use std::path::PathBuf;

use network::{has_localhost, node_ip, node_ports, pods, socket_address};
use unused::check_unused;

use super::schema::{ConntrackConfiguration, KubeProxyConfiguration, Logging};
use super::{
    AcceptedTypes, Config, ConntrackSettings, InvalidSetting, LogFormat, LogSettings, Mode,
};
use crate::duration::GoDuration;
use crate::planner::desired::NodeFacts;

/// The invalid settings that were found so far, so that one error names all of them.
#[derive(Debug, Default)]
struct InvalidSettings(Vec<InvalidSetting>);

impl InvalidSettings {
    /// Adds an invalid setting.
    fn add(&mut self, field: &str, problem: impl Into<String>) {
        self.0.push(InvalidSetting {
            field: field.to_owned(),
            problem: problem.into(),
        });
    }

    /// Returns the parsed value of a field. Adds an error as an invalid setting, and returns the
    /// default.
    fn take<T: Default>(&mut self, field: &str, parsed: Result<T, String>) -> T {
        parsed.unwrap_or_else(|problem| {
            self.add(field, problem);
            T::default()
        })
    }

    /// Adds a value outside the range.
    fn check_range(&mut self, field: &str, value: Option<i32>, range: RangeInclusive<i32>) {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            let (least, most) = range.into_inner();
            let problem = match most {
                i32::MAX => format!("{value} is less than {least}"),
                _ => format!("{value} is not between {least} and {most}"),
            };
            self.add(field, problem);
        }
    }

    /// Adds a negative duration.
    fn check_not_negative(&mut self, field: &str, value: GoDuration) {
        if value.is_negative() {
            self.add(field, format!("{value} is less than 0"));
        }
    }
}

/// Resolves `written`, with its defaults set, for a machine with this host name.
pub(super) fn resolve(
    written: KubeProxyConfiguration,
    host_name: &str,
) -> Result<Config, Vec<InvalidSetting>> {
    let mut problems = InvalidSettings::default();
    let mode = mode(&written, &mut problems);
    let (masquerade_all, sync_period, min_sync_period) = section(&written, mode, &mut problems);
    check_unused(&written, mode, &mut problems);
    check_hidden_metrics(&written, &mut problems);
    let node_ip = problems.take("bindAddress", node_ip(&written.bind_address));
    // kube-dnat's own flags set the other facts.
    let facts = NodeFacts {
        pods: pods(&written, &mut problems),
        masquerade_all,
        node_port_addresses: node_ports(&written.node_port_addresses, &mut problems),
        node_ip,
        ..NodeFacts::default()
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
    let client = &written.client_connection;
    let config = Config {
        file: None,
        node: problems.take(
            "hostnameOverride",
            node(&written.hostname_override, host_name),
        ),
        kubeconfig: (!client.kubeconfig.is_empty()).then(|| PathBuf::from(&client.kubeconfig)),
        accepted_types: AcceptedTypes::of(client).unwrap_or_default(),
        mode,
        facts,
        localhost_node_ports: has_localhost(&written.node_port_addresses),
        sync_period: sync_period.to_std(),
        min_sync_period: min_sync_period.to_std(),
        healthz_bind_address,
        metrics_bind_address,
        bind_address_hard_fail: written.bind_address_hard_fail,
        conntrack: conntrack(&written.conntrack, &mut problems),
        oom_score_adj: written.oom_score_adj.unwrap_or_default(),
        logging: logging(&written.logging, &mut problems),
        written,
    };
    problems.check_range("oomScoreAdj", config.written.oom_score_adj, -1000..=1000);
    if problems.0.is_empty() {
        Ok(config)
    } else {
        Err(problems.0)
    }
}

/// Parses the mode.
fn mode(written: &KubeProxyConfiguration, problems: &mut InvalidSettings) -> Mode {
    match written.mode.as_str() {
        "" => Mode::Unset,
        "iptables" => Mode::Iptables,
        "ipvs" => Mode::Ipvs,
        "nftables" => Mode::Nftables,
        other => {
            let problem = format!("\"{other}\" is not one of nftables, iptables and ipvs");
            problems.add("mode", problem);
            Mode::Unset
        }
    }
}

/// Resolves the settings of the section of the mode, which kube-proxy selects in
/// `Convert_v1alpha1_KubeProxyConfiguration_To_config_KubeProxyConfiguration`: `masqueradeAll`,
/// `syncPeriod` and `minSyncPeriod`.
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
    let (name, masquerade_all, sync_period, min_sync_period) = match mode {
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
    if sync_period.is_zero() || sync_period.is_negative() {
        problems.add(
            &format!("{name}.syncPeriod"),
            format!("{sync_period} is not greater than 0"),
        );
    } else if min_sync_period > sync_period {
        problems.add(
            &format!("{name}.minSyncPeriod"),
            format!("{min_sync_period} is greater than syncPeriod, which is {sync_period}"),
        );
    }
    problems.check_not_negative(&format!("{name}.minSyncPeriod"), min_sync_period);
    (masquerade_all, sync_period, min_sync_period)
}

/// Returns the name of the Node like kube-proxy: trimmed and in lower case.
fn node(written: &str, host_name: &str) -> Result<String, String> {
    let name = if written.is_empty() {
        host_name
    } else {
        written
    };
    match name.trim().to_lowercase() {
        name if name.is_empty() => Err("is empty: the Node needs a name".into()),
        name => Ok(name),
    }
}

/// Checks the version whose hidden metrics are shown. It has no effect.
fn check_hidden_metrics(written: &KubeProxyConfiguration, problems: &mut InvalidSettings) {
    let version = &written.show_hidden_metrics_for_version;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let valid = version
        .split_once('.')
        .is_some_and(|(major, minor)| is_number(major) && is_number(minor));
    if !version.is_empty() && !valid {
        let problem = format!("\"{version}\" is not a version such as 1.35");
        problems.add("showHiddenMetricsForVersion", problem);
    }
}

/// Resolves the conntrack settings.
fn conntrack(
    written: &ConntrackConfiguration,
    problems: &mut InvalidSettings,
) -> ConntrackSettings {
    problems.check_range("conntrack.maxPerCore", written.max_per_core, 0..=i32::MAX);
    problems.check_range("conntrack.min", written.min, 0..=i32::MAX);
    // Unset keeps the kernel's value, like zero. A negative value is invalid already.
    let count = |value: Option<i32>| value.unwrap_or(0).max(0).unsigned_abs();
    let mut timeout = |field: &str, value: GoDuration| {
        problems.check_not_negative(&format!("conntrack.{field}"), value);
        value.to_std()
    };
    ConntrackSettings {
        max_per_core: count(written.max_per_core),
        min: count(written.min),
        tcp_established_timeout: timeout(
            "tcpEstablishedTimeout",
            written.tcp_established_timeout.unwrap_or_default(),
        ),
        tcp_close_wait_timeout: timeout(
            "tcpCloseWaitTimeout",
            written.tcp_close_wait_timeout.unwrap_or_default(),
        ),
        tcp_be_liberal: written.tcp_be_liberal,
        udp_timeout: timeout("udpTimeout", written.udp_timeout),
        udp_stream_timeout: timeout("udpStreamTimeout", written.udp_stream_timeout),
    }
}

/// Resolves the logging settings.
fn logging(written: &Logging, problems: &mut InvalidSettings) -> LogSettings {
    let format = match written.format.as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("\"{other}\" is neither text nor json")),
    };
    let format = problems.take("logging.format", format);
    // klog's verbosity is a positive int32.
    let fits = |verbosity: u32| i32::try_from(verbosity).is_ok();
    if !fits(written.verbosity) {
        let problem = format!("{} is greater than {}", written.verbosity, i32::MAX);
        problems.add("logging.verbosity", problem);
    }
    if format == LogFormat::Json && !written.vmodule.is_empty() {
        problems.add("logging.vmodule", "is only valid with the text format");
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
    }
}
