//! What each of kube-proxy's settings means here: the fields of the file, and the flags.

/// A field of the file and the flags that say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The path of the field; empty for flags that no field stands for.
    pub field: &'static str,
    /// The names of the flags, without dashes.
    pub flags: &'static [&'static str],
    /// Whether it has a meaning here.
    pub here: Support,
}

/// Whether a setting has a meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As kube-proxy's nftables mode has it.
    Honoured,
    /// In the section of the mode that is asked for; the others' have none.
    InSectionOfMode,
    /// Accepted, to no effect.
    WithoutMeaning,
}

use Support::{Honoured, InSectionOfMode, WithoutMeaning};

const fn setting(field: &'static str, flags: &'static [&'static str], here: Support) -> Setting {
    Setting { field, flags, here }
}

/// All of them, in the order of docs/configuration.md.
pub const SETTINGS: &[Setting] = &[
    setting("", &["config"], Honoured),
    setting("", &["write-config-to"], Honoured),
    setting("", &["cleanup"], Honoured),
    setting("", &["init-only"], Honoured),
    setting("", &["master"], Honoured),
    setting("clientConnection.kubeconfig", &["kubeconfig"], Honoured),
    setting("clientConnection.acceptContentTypes", &[], WithoutMeaning),
    setting(
        "clientConnection.contentType",
        &["kube-api-content-type"],
        WithoutMeaning,
    ),
    setting("clientConnection.qps", &["kube-api-qps"], WithoutMeaning),
    setting(
        "clientConnection.burst",
        &["kube-api-burst"],
        WithoutMeaning,
    ),
    setting("configSyncPeriod", &["config-sync-period"], WithoutMeaning),
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
    setting("enableProfiling", &["profiling"], WithoutMeaning),
    setting(
        "showHiddenMetricsForVersion",
        &["show-hidden-metrics-for-version"],
        WithoutMeaning,
    ),
    setting("featureGates", &["feature-gates"], WithoutMeaning),
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
    setting("nftables.masqueradeBit", &[], WithoutMeaning),
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
        WithoutMeaning,
    ),
    setting(
        "iptables.localhostNodePorts",
        &["iptables-localhost-nodeports"],
        WithoutMeaning,
    ),
    setting("iptables.snatNodeInternalIP", &[], WithoutMeaning),
    setting("ipvs.syncPeriod", &["ipvs-sync-period"], InSectionOfMode),
    setting(
        "ipvs.minSyncPeriod",
        &["ipvs-min-sync-period"],
        InSectionOfMode,
    ),
    setting("ipvs.scheduler", &["ipvs-scheduler"], WithoutMeaning),
    setting("ipvs.excludeCIDRs", &["ipvs-exclude-cidrs"], WithoutMeaning),
    setting("ipvs.strictARP", &["ipvs-strict-arp"], WithoutMeaning),
    setting("ipvs.tcpTimeout", &["ipvs-tcp-timeout"], WithoutMeaning),
    setting(
        "ipvs.tcpFinTimeout",
        &["ipvs-tcpfin-timeout"],
        WithoutMeaning,
    ),
    setting("ipvs.udpTimeout", &["ipvs-udp-timeout"], WithoutMeaning),
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
    setting("logging.vmodule", &["vmodule"], WithoutMeaning),
    setting(
        "logging.flushFrequency",
        &["log-flush-frequency"],
        WithoutMeaning,
    ),
    setting(
        "logging.options.text.splitStream",
        &["log-text-split-stream"],
        WithoutMeaning,
    ),
    setting(
        "logging.options.text.infoBufferSize",
        &["log-text-info-buffer-size"],
        WithoutMeaning,
    ),
    setting(
        "logging.options.json.splitStream",
        &["log-json-split-stream"],
        WithoutMeaning,
    ),
    setting(
        "logging.options.json.infoBufferSize",
        &["log-json-info-buffer-size"],
        WithoutMeaning,
    ),
    setting("portRange", &[], WithoutMeaning),
    setting("winkernel.networkName", &[], WithoutMeaning),
    setting("winkernel.sourceVip", &[], WithoutMeaning),
    setting("winkernel.enableDSR", &[], WithoutMeaning),
    setting("winkernel.rootHnsEndpointName", &[], WithoutMeaning),
    setting("winkernel.forwardHealthCheckVip", &[], WithoutMeaning),
    setting("windowsRunAsService", &[], WithoutMeaning),
    setting("", &["add-dir-header"], WithoutMeaning),
    setting("", &["alsologtostderr"], WithoutMeaning),
    setting("", &["boot-id-file"], WithoutMeaning),
    setting("", &["log-backtrace-at"], WithoutMeaning),
    setting("", &["log-dir"], WithoutMeaning),
    setting("", &["log-file"], WithoutMeaning),
    setting("", &["log-file-max-size"], WithoutMeaning),
    setting("", &["logtostderr"], WithoutMeaning),
    setting("", &["machine-id-file"], WithoutMeaning),
    setting("", &["one-output"], WithoutMeaning),
    setting("", &["skip-headers"], WithoutMeaning),
    setting("", &["skip-log-headers"], WithoutMeaning),
    setting("", &["stderrthreshold"], WithoutMeaning),
];

impl Setting {
    /// That of a flag.
    #[must_use]
    pub fn of_flag(flag: &str) -> Option<&'static Self> {
        SETTINGS
            .iter()
            .find(|setting| setting.flags.contains(&flag))
    }

    /// That of a field, or of an element of one: `nodePortAddresses[1]`.
    #[must_use]
    pub fn of_field(field: &str) -> Option<&'static Self> {
        let (field, _) = field.split_once('[').unwrap_or((field, ""));
        SETTINGS.iter().find(|setting| setting.field == field)
    }

    /// Whether a flag counts beside `--config` too. kube-proxy takes all that a field stands for
    /// from the file, but for the Node's name and logging.
    #[must_use]
    pub fn counts_beside_a_file(&self) -> bool {
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
    use crate::config::read::known;

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
        paths(&known(), "", &mut fields);
        assert!(fields.remove("apiVersion") && fields.remove("kind"));
        let settings = SETTINGS.iter().map(|setting| setting.field.to_owned());
        assert_eq!(settings.collect::<BTreeSet<_>>(), fields);
    }
}
