//! The settings of kube-proxy, as fields of the file and flags, and whether kube-dnat supports
//! them.

/// A field of the file and the flags that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The path of the field. Empty for flags without a field.
    pub field: &'static str,
    /// The names of the flags, without dashes.
    pub flags: &'static [&'static str],
    /// Whether the setting has an effect.
    pub support: Support,
}

/// Whether a setting has an effect in kube-dnat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// The setting has the same effect as in kube-proxy's mode nftables.
    Honoured,
    /// The setting has an effect in the section of the configured mode only.
    InSectionOfMode,
    /// The setting has an effect if it names a content type that kube-dnat decodes.
    IfContentType,
    /// The setting is accepted and has no effect.
    NoEffect,
}

use Support::{Honoured, IfContentType, InSectionOfMode, NoEffect};

/// Creates a row of [`SETTINGS`].
const fn setting(field: &'static str, flags: &'static [&'static str], support: Support) -> Setting {
    Setting {
        field,
        flags,
        support,
    }
}

/// All settings, in the order of docs/configuration.md.
pub const SETTINGS: &[Setting] = &[
    setting("", &["config"], Honoured),
    setting("", &["write-config-to"], Honoured),
    setting("", &["cleanup"], Honoured),
    setting("", &["init-only"], Honoured),
    setting("", &["master"], Honoured),
    setting("clientConnection.kubeconfig", &["kubeconfig"], Honoured),
    setting("clientConnection.acceptContentTypes", &[], IfContentType),
    setting(
        "clientConnection.contentType",
        &["kube-api-content-type"],
        IfContentType,
    ),
    setting("clientConnection.qps", &["kube-api-qps"], NoEffect),
    setting("clientConnection.burst", &["kube-api-burst"], NoEffect),
    setting("configSyncPeriod", &["config-sync-period"], NoEffect),
    setting("hostnameOverride", &["hostname-override"], Honoured),
    setting("bindAddress", &["bind-address"], Honoured),
    setting(
        "healthzBindAddress",
        &["healthz-bind-address", "healthz-port"],
        Honoured,
    ),
    setting(
        "metricsBindAddress",
        &["metrics-bind-address", "metrics-port"],
        Honoured,
    ),
    setting("bindAddressHardFail", &["bind-address-hard-fail"], Honoured),
    setting("enableProfiling", &["profiling"], NoEffect),
    setting(
        "showHiddenMetricsForVersion",
        &["show-hidden-metrics-for-version"],
        NoEffect,
    ),
    setting("featureGates", &["feature-gates"], NoEffect),
    setting("mode", &["proxy-mode"], Honoured),
    setting("clusterCIDR", &["cluster-cidr"], Honoured),
    setting("detectLocalMode", &["detect-local-mode"], Honoured),
    setting(
        "detectLocal.bridgeInterface",
        &["pod-bridge-interface"],
        Honoured,
    ),
    setting(
        "detectLocal.interfaceNamePrefix",
        &["pod-interface-name-prefix"],
        Honoured,
    ),
    setting("nodePortAddresses", &["nodeport-addresses"], Honoured),
    setting(
        "nftables.masqueradeAll",
        &["masquerade-all"],
        InSectionOfMode,
    ),
    setting(
        "nftables.syncPeriod",
        &["iptables-sync-period"],
        InSectionOfMode,
    ),
    setting(
        "nftables.minSyncPeriod",
        &["iptables-min-sync-period"],
        InSectionOfMode,
    ),
    setting("nftables.masqueradeBit", &[], NoEffect),
    setting(
        "iptables.masqueradeAll",
        &["masquerade-all"],
        InSectionOfMode,
    ),
    setting(
        "iptables.syncPeriod",
        &["iptables-sync-period"],
        InSectionOfMode,
    ),
    setting(
        "iptables.minSyncPeriod",
        &["iptables-min-sync-period"],
        InSectionOfMode,
    ),
    setting(
        "iptables.masqueradeBit",
        &["iptables-masquerade-bit"],
        NoEffect,
    ),
    setting(
        "iptables.localhostNodePorts",
        &["iptables-localhost-nodeports"],
        NoEffect,
    ),
    setting("iptables.snatNodeInternalIP", &[], NoEffect),
    setting("ipvs.syncPeriod", &["ipvs-sync-period"], InSectionOfMode),
    setting(
        "ipvs.minSyncPeriod",
        &["ipvs-min-sync-period"],
        InSectionOfMode,
    ),
    setting("ipvs.scheduler", &["ipvs-scheduler"], NoEffect),
    setting("ipvs.excludeCIDRs", &["ipvs-exclude-cidrs"], NoEffect),
    setting("ipvs.strictARP", &["ipvs-strict-arp"], NoEffect),
    setting("ipvs.tcpTimeout", &["ipvs-tcp-timeout"], NoEffect),
    setting("ipvs.tcpFinTimeout", &["ipvs-tcpfin-timeout"], NoEffect),
    setting("ipvs.udpTimeout", &["ipvs-udp-timeout"], NoEffect),
    setting(
        "conntrack.maxPerCore",
        &["conntrack-max-per-core"],
        Honoured,
    ),
    setting("conntrack.min", &["conntrack-min"], Honoured),
    setting(
        "conntrack.tcpEstablishedTimeout",
        &["conntrack-tcp-timeout-established"],
        Honoured,
    ),
    setting(
        "conntrack.tcpCloseWaitTimeout",
        &["conntrack-tcp-timeout-close-wait"],
        Honoured,
    ),
    setting(
        "conntrack.tcpBeLiberal",
        &["conntrack-tcp-be-liberal"],
        Honoured,
    ),
    setting("conntrack.udpTimeout", &["conntrack-udp-timeout"], Honoured),
    setting(
        "conntrack.udpStreamTimeout",
        &["conntrack-udp-timeout-stream"],
        Honoured,
    ),
    setting("oomScoreAdj", &["oom-score-adj"], Honoured),
    setting("logging.format", &["logging-format"], Honoured),
    setting("logging.verbosity", &["v"], Honoured),
    setting("logging.vmodule", &["vmodule"], NoEffect),
    setting("logging.flushFrequency", &["log-flush-frequency"], NoEffect),
    setting(
        "logging.options.text.splitStream",
        &["log-text-split-stream"],
        NoEffect,
    ),
    setting(
        "logging.options.text.infoBufferSize",
        &["log-text-info-buffer-size"],
        NoEffect,
    ),
    setting(
        "logging.options.json.splitStream",
        &["log-json-split-stream"],
        NoEffect,
    ),
    setting(
        "logging.options.json.infoBufferSize",
        &["log-json-info-buffer-size"],
        NoEffect,
    ),
    setting("portRange", &[], NoEffect),
    setting("winkernel.networkName", &[], NoEffect),
    setting("winkernel.sourceVip", &[], NoEffect),
    setting("winkernel.enableDSR", &[], NoEffect),
    setting("winkernel.rootHnsEndpointName", &[], NoEffect),
    setting("winkernel.forwardHealthCheckVip", &[], NoEffect),
    setting("windowsRunAsService", &[], NoEffect),
    setting("", &["add-dir-header"], NoEffect),
    setting("", &["alsologtostderr"], NoEffect),
    setting("", &["boot-id-file"], NoEffect),
    setting("", &["log-backtrace-at"], NoEffect),
    setting("", &["log-dir"], NoEffect),
    setting("", &["log-file"], NoEffect),
    setting("", &["log-file-max-size"], NoEffect),
    setting("", &["logtostderr"], NoEffect),
    setting("", &["machine-id-file"], NoEffect),
    setting("", &["one-output"], NoEffect),
    setting("", &["skip-headers"], NoEffect),
    setting("", &["skip-log-headers"], NoEffect),
    setting("", &["stderrthreshold"], NoEffect),
];

impl Setting {
    /// Returns the setting of a flag.
    #[must_use]
    pub fn of_flag(flag: &str) -> Option<&'static Self> {
        SETTINGS
            .iter()
            .find(|setting| setting.flags.contains(&flag))
    }

    /// Returns the setting of a field, or of an element of a list: `nodePortAddresses[1]`.
    #[must_use]
    pub fn of_field(field: &str) -> Option<&'static Self> {
        let (field, _) = field.split_once('[').unwrap_or((field, ""));
        SETTINGS.iter().find(|setting| setting.field == field)
    }

    /// Whether the flags of this setting have an effect together with `--config`.
    ///
    /// Like kube-proxy, kube-dnat takes the settings that have a field from the file, except the
    /// name of the Node and logging.
    #[must_use]
    pub fn works_with_config_file(&self) -> bool {
        self.field.is_empty()
            || self.field == "hostnameOverride"
            || self.field.starts_with("logging.")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::config::read::default_fields;

    /// Collects the paths of all fields.
    fn paths(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    paths(value, &crate::config::document::join(path, name), into);
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                into.insert(path.to_owned());
            }
        }
    }

    #[test]
    fn each_field_of_the_file_is_a_setting() {
        let mut fields = BTreeSet::from([String::new()]);
        paths(&default_fields(), "", &mut fields);
        assert!(fields.remove("apiVersion") && fields.remove("kind"));
        let settings = SETTINGS.iter().map(|setting| setting.field.to_owned());
        assert_eq!(settings.collect::<BTreeSet<_>>(), fields);
    }
}
