//! What has no meaning here, and is refused all the same where kube-proxy refuses it.

use super::network::cidr;
use super::problems::InvalidSettings;
use crate::config::{KubeProxyConfiguration, Mode};

/// Checks it.
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
    problems.within(
        "clientConnection.burst",
        Some(client_connection.burst),
        0..=i32::MAX,
    );
    if config_sync_period.is_zero() || config_sync_period.is_negative() {
        let what = format!("{config_sync_period} is not more than 0");
        problems.add("configSyncPeriod", what);
    }
    problems.within("iptables.masqueradeBit", iptables.masquerade_bit, 0..=31);
    if mode == Mode::Nftables {
        problems.within("nftables.masqueradeBit", nftables.masquerade_bit, 0..=31);
    }
    if mode == Mode::Ipvs {
        problems.not_negative("ipvs.tcpTimeout", ipvs.tcp_timeout);
        problems.not_negative("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout);
        problems.not_negative("ipvs.udpTimeout", ipvs.udp_timeout);
        for (i, text) in ipvs.exclude_cidrs.iter().enumerate() {
            problems.take(&format!("ipvs.excludeCIDRs[{i}]"), cidr(text).map(drop));
        }
    }
    if !is_port_range(port_range) {
        let what = format!("\"{port_range}\" is not a range of ports such as 300-2000");
        problems.add("portRange", what);
    }
}

/// `ParsePortRange`: `300-2000`, `300+1700`, `300`; empty or 0 for all.
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
