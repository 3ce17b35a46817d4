//! kube-proxy's defaults (`SetDefaults_KubeProxyConfiguration`), for fields that are unset, empty
//! or zero.
//!
//! One default differs: `minSyncPeriod` is 0, not 1 s. A sync of kube-proxy can take seconds. The
//! cost of a sync of kube-dnat depends on the change, so syncs need not be delayed.

use std::net::IpAddr;

use super::address;
use super::schema::{
    API_VERSION, ClientConnection, ConntrackConfiguration, Iptables, Ipvs, KIND,
    KubeProxyConfiguration, Logging, Nftables,
};
use crate::duration::GoDuration;

/// The default port of health checks.
pub const HEALTHZ_PORT: u16 = 10256;
/// The default port of metrics.
pub const METRICS_PORT: u16 = 10249;

/// The default of every `syncPeriod`.
const SYNC_PERIOD: GoDuration = GoDuration::from_seconds(30);
/// The default of every `masqueradeBit`.
const MASQUERADE_BIT: i32 = 14;

impl KubeProxyConfiguration {
    /// The configuration without a file and without flags.
    #[must_use]
    pub fn defaulted() -> Self {
        let mut config = Self::default();
        config.set_defaults();
        config
    }

    /// Sets the default of each field that is not set.
    pub fn set_defaults(&mut self) {
        API_VERSION.clone_into(&mut self.api_version);
        KIND.clone_into(&mut self.kind);
        text(&mut self.bind_address, "0.0.0.0");
        let (healthz, metrics) = if address(&self.bind_address).is_some_and(|ip| ip.is_ipv4()) {
            ("0.0.0.0", "127.0.0.1")
        } else {
            ("::", "::1")
        };
        text(&mut self.healthz_bind_address, healthz);
        append_port(&mut self.healthz_bind_address, HEALTHZ_PORT);
        text(&mut self.metrics_bind_address, metrics);
        append_port(&mut self.metrics_bind_address, METRICS_PORT);
        // `qos.KubeProxyOOMScoreAdj`.
        self.oom_score_adj.get_or_insert(-999);
        duration(
            &mut self.config_sync_period,
            GoDuration::from_seconds(15 * 60),
        );
        self.client_connection.set_defaults();
        self.logging.set_defaults();
        self.iptables.set_defaults();
        self.ipvs.set_defaults();
        self.nftables.set_defaults();
        self.conntrack.set_defaults();
    }
}

impl ClientConnection {
    /// Sets the default of each field that is not set.
    fn set_defaults(&mut self) {
        text(
            &mut self.content_type,
            "application/vnd.kubernetes.protobuf",
        );
        if self.qps == 0.0 {
            self.qps = 5.0;
        }
        if self.burst == 0 {
            self.burst = 10;
        }
    }
}

impl Logging {
    /// Sets the default of each field that is not set.
    fn set_defaults(&mut self) {
        text(&mut self.format, "text");
        duration(&mut self.flush_frequency, GoDuration::from_seconds(5));
        text(&mut self.options.text.info_buffer_size, "0");
        text(&mut self.options.json.info_buffer_size, "0");
    }
}

impl Iptables {
    /// Sets the default of each field that is not set.
    fn set_defaults(&mut self) {
        self.masquerade_bit.get_or_insert(MASQUERADE_BIT);
        self.localhost_node_ports.get_or_insert(true);
        self.snat_node_internal_ip.get_or_insert(false);
        duration(&mut self.sync_period, SYNC_PERIOD);
    }
}

impl Ipvs {
    /// Sets the default of each field that is not set.
    fn set_defaults(&mut self) {
        duration(&mut self.sync_period, SYNC_PERIOD);
    }
}

impl Nftables {
    /// Sets the default of each field that is not set.
    fn set_defaults(&mut self) {
        self.masquerade_bit.get_or_insert(MASQUERADE_BIT);
        duration(&mut self.sync_period, SYNC_PERIOD);
    }
}

impl ConntrackConfiguration {
    /// Sets the default of each field that is not set.
    fn set_defaults(&mut self) {
        self.max_per_core.get_or_insert(32 * 1024);
        self.min.get_or_insert(128 * 1024);
        self.tcp_established_timeout
            .get_or_insert(GoDuration::from_seconds(24 * 60 * 60));
        // Longer than the kernel's minute: a later FIN would leave the node untranslated.
        self.tcp_close_wait_timeout
            .get_or_insert(GoDuration::from_seconds(60 * 60));
    }
}

/// Sets the default of a text that is empty.
fn text(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

/// Sets the default of a duration that is zero.
fn duration(field: &mut GoDuration, default: GoDuration) {
    if field.is_zero() {
        *field = default;
    }
}

/// Appends the port to an address without one (`AppendPortIfNeeded`). Any other text stays as it
/// is, to be validated later.
pub fn append_port(field: &mut String, port: u16) {
    if let Some(ip) = address(field) {
        *field = match ip {
            IpAddr::V4(_) => format!("{field}:{port}"),
            IpAddr::V6(_) => format!("[{field}]:{port}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_addresses_have_the_family_of_the_bind_address() {
        let cases = [
            ("", "", "", "0.0.0.0:10256", "127.0.0.1:10249"),
            ("192.0.2.1", "", "", "0.0.0.0:10256", "127.0.0.1:10249"),
            ("::", "", "", "[::]:10256", "[::1]:10249"),
            ("", "127.0.0.1", "::", "127.0.0.1:10256", "[::]:10249"),
            ("", "0.0.0.0:1", "[::]:2", "0.0.0.0:1", "[::]:2"),
            ("", "localhost", "x:y:z", "localhost", "x:y:z"),
        ];
        for (bind, healthz, metrics, expected_healthz, expected_metrics) in cases {
            let mut config = KubeProxyConfiguration {
                bind_address: bind.to_owned(),
                healthz_bind_address: healthz.to_owned(),
                metrics_bind_address: metrics.to_owned(),
                ..KubeProxyConfiguration::default()
            };
            config.set_defaults();
            assert_eq!(config.healthz_bind_address, expected_healthz, "{bind}");
            assert_eq!(config.metrics_bind_address, expected_metrics, "{bind}");
        }
    }

    #[test]
    fn setting_defaults_twice_changes_nothing() {
        let config = KubeProxyConfiguration::defaulted();
        let mut again = config.clone();
        again.set_defaults();
        assert_eq!(again, config);
    }
}
