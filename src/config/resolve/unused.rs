//! Validation of the settings that have no effect in kube-dnat but are invalid in kube-proxy.

use super::InvalidSettings;
use super::network::cidr;
use crate::config::{KubeProxyConfiguration, Mode};

/// Checks the settings that have no effect, like kube-proxy.
pub(super) fn check_unused(
    written: &KubeProxyConfiguration,
    mode: Mode,
    problems: &mut InvalidSettings,
) {
    let KubeProxyConfiguration {
        client_connection,
        config_sync_period,
        iptables,
        ipvs,
        nftables,
        port_range,
        ..
    } = written;
    problems.check_range(
        "clientConnection.burst",
        Some(client_connection.burst),
        0..=i32::MAX,
    );
    if config_sync_period.is_zero() || config_sync_period.is_negative() {
        let problem = format!("{config_sync_period} is not greater than 0");
        problems.add("configSyncPeriod", problem);
    }
    problems.check_range("iptables.masqueradeBit", iptables.masquerade_bit, 0..=31);
    if mode == Mode::Nftables {
        problems.check_range("nftables.masqueradeBit", nftables.masquerade_bit, 0..=31);
    }
    if mode == Mode::Ipvs {
        problems.check_not_negative("ipvs.tcpTimeout", ipvs.tcp_timeout);
        problems.check_not_negative("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout);
        problems.check_not_negative("ipvs.udpTimeout", ipvs.udp_timeout);
        for (i, text) in ipvs.exclude_cidrs.iter().enumerate() {
            problems.take(&format!("ipvs.excludeCIDRs[{i}]"), cidr(text).map(drop));
        }
    }
    if !is_port_range(port_range) {
        let problem = format!("\"{port_range}\" is not a port range such as 300-2000");
        problems.add("portRange", problem);
    }
}

/// Whether a text is a port range (`ParsePortRange`): `300-2000`, `300+1700`, `300`, or empty.
fn is_port_range(text: &str) -> bool {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    let text = text.trim();
    if let Some((first, last)) = text.split_once('-') {
        return matches!((port(first), port(last)), (Some(first), Some(last)) if first <= last);
    }
    if let Some((first, more)) = text.split_once('+') {
        return port(first).is_some() && port(more).is_some();
    }
    text.is_empty() || port(text).is_some()
}
