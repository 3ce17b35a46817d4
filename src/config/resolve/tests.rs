use std::path::Path;

use crate::config::{Config, InvalidSetting, KubeProxyConfiguration, Mode, parse};
use crate::planner::desired::{NodePortAddresses, PodSource};
use crate::planner::ruleset::Interface;

fn config(body: &str) -> Result<Config, Vec<InvalidSetting>> {
    let text = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{body}"
    );
    let (mut written, _) = parse(&text, Path::new("config.conf")).unwrap();
    written.set_defaults();
    super::resolve(written, "Host-1\n")
}

/// The problems of a configuration, one text each.
fn problems(body: &str) -> Vec<String> {
    let problems = config(body).map(drop).unwrap_err().into_iter();
    problems
        .map(|problem| format!("{} {}", problem.field, problem.problem))
        .collect()
}

#[test]
fn kube_proxys_defaults_are_valid() {
    let config = super::resolve(KubeProxyConfiguration::defaulted(), "Host-1\n").unwrap();
    assert_eq!(config.node, "host-1");
    assert_eq!(config.mode, Mode::Unset);
    assert_eq!(config.facts, crate::planner::desired::NodeFacts::default());
    assert_eq!(
        (
            config.sync_period.as_secs(),
            config.min_sync_period.as_secs()
        ),
        (30, 0)
    );
    assert_eq!(config.healthz_bind_address, "0.0.0.0:10256".parse().ok());
    assert_eq!(config.metrics_bind_address, "127.0.0.1:10249".parse().ok());
    assert_eq!(config.conntrack.tcp_established_timeout.as_secs(), 86_400);
    assert_eq!(config.oom_score_adj, -999);
}

/// Configurations that kube-proxy rejects, and the problem that kube-dnat reports.
const REJECTED: &str = r#"
mode: userspace => mode "userspace" is not one of nftables, iptables and ipvs
mode: kernelspace => mode "kernelspace" is not one of
iptables: {syncPeriod: -1s} => iptables.syncPeriod -1s is not greater than 0
iptables: {minSyncPeriod: -1s} => iptables.minSyncPeriod -1s is less than 0
mode: nftables\nnftables: {syncPeriod: 1s, minSyncPeriod: 2s} => nftables.minSyncPeriod 2s is greater than syncPeriod, which is 1s
mode: ipvs\nipvs: {syncPeriod: -1s} => ipvs.syncPeriod -1s is not greater than 0
mode: ipvs\nipvs: {udpTimeout: -1s} => ipvs.udpTimeout -1s is less than 0
mode: ipvs\nipvs: {excludeCIDRs: [a]} => ipvs.excludeCIDRs[0] "a" is not a CIDR
iptables: {masqueradeBit: 32} => iptables.masqueradeBit 32 is not between 0 and 31
mode: nftables\nnftables: {masqueradeBit: -1} => nftables.masqueradeBit -1 is not between
conntrack: {maxPerCore: -1} => conntrack.maxPerCore -1 is less than 0
conntrack: {min: -1} => conntrack.min -1 is less than 0
conntrack: {tcpEstablishedTimeout: -1h} => conntrack.tcpEstablishedTimeout -1h0m0s is less
conntrack: {tcpCloseWaitTimeout: -1h} => conntrack.tcpCloseWaitTimeout -1h0m0s is less
conntrack: {udpTimeout: -1s} => conntrack.udpTimeout -1s is less than 0
conntrack: {udpStreamTimeout: -1s} => conntrack.udpStreamTimeout -1s is less than 0
oomScoreAdj: 1001 => oomScoreAdj 1001 is not between -1000 and 1000
configSyncPeriod: -1s => configSyncPeriod -1s is not greater than 0
clientConnection: {burst: -1} => clientConnection.burst -1 is less than 0
bindAddress: node-1 => bindAddress "node-1" is not an IP address
healthzBindAddress: localhost => healthzBindAddress "localhost" is not IP:port
healthzBindAddress: 0.0.0.0:0 => healthzBindAddress "0.0.0.0:0": "0" is not a port
metricsBindAddress: a:1 => metricsBindAddress "a:1": "a" is not an IP address
metricsBindAddress: "::1:1:" => metricsBindAddress "::1:1:" is not IP:port
portRange: 10-5 => portRange "10-5" is not a port range
showHiddenMetricsForVersion: "1" => showHiddenMetricsForVersion "1" is not a version
detectLocalMode: Bridge => detectLocalMode "Bridge" is not one of ClusterCIDR
detectLocalMode: BridgeInterface => detectLocal.bridgeInterface is missing: BridgeInterface needs it
detectLocalMode: InterfaceNamePrefix => detectLocal.interfaceNamePrefix is missing: InterfaceNamePrefix needs it
clusterCIDR: 10.0.0.0 => clusterCIDR "10.0.0.0" is not a CIDR such as
clusterCIDR: "10.0.0.0/8,11.0.0.0/8" => 10.0.0.0/8 and 11.0.0.0/8 of one family
nodePortAddresses: [primary, 10.0.0.0/8] => nodePortAddresses[0] "primary" can only be combined with localhost
nodePortAddresses: [10.0.0.0/8, x] => nodePortAddresses[1] "x" is not a CIDR
logging: {format: xml} => logging.format "xml" is neither text nor json
logging: {verbosity: 2147483648} => logging.verbosity 2147483648 is greater than
logging: {format: json, vmodule: [{filePattern: a, verbosity: 1}]} => logging.vmodule is only valid with the text format
logging: {vmodule: [{verbosity: 1}]} => logging.vmodule[0] "=1" is not a pattern
hostnameOverride: "  " => hostnameOverride is empty
"#;

#[test]
fn settings_that_kube_proxy_rejects_are_rejected_with_field_value_and_reason() {
    for line in REJECTED.trim().lines() {
        let (body, expected) = line.split_once(" => ").unwrap();
        let problems = problems(&body.replace("\\n", "\n"));
        assert_eq!(problems.len(), 1, "{body}: {problems:?}");
        assert!(problems[0].contains(expected), "{body}: {problems:?}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = problems("mode: x\noomScoreAdj: 5000\nnodePortAddresses: [y, z]");
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn sections_of_other_modes_are_neither_validated_nor_used() {
    let config = config(
        "mode: nftables\niptables: {syncPeriod: -1s, masqueradeAll: true}\n\
         ipvs: {tcpTimeout: -1s, excludeCIDRs: [x]}\nclusterCIDR: x\ndetectLocalMode: NodeCIDR\n\
         nftables: {minSyncPeriod: 5s}",
    )
    .unwrap();
    assert!(!config.facts.masquerade_all);
    assert_eq!(config.min_sync_period.as_secs(), 5);
    assert_eq!(config.facts.pods, PodSource::NodeCidr);
}

#[test]
fn the_section_of_the_mode_takes_effect() {
    let sections = "iptables: {masqueradeAll: true, minSyncPeriod: 2s}\n\
                    ipvs: {minSyncPeriod: 3s}\nnftables: {minSyncPeriod: 4s}";
    for (mode, masquerade_all, seconds) in [
        ("", true, 2),
        ("iptables", true, 2),
        ("ipvs", true, 3),
        ("nftables", false, 4),
    ] {
        let config = config(&format!("mode: \"{mode}\"\n{sections}")).unwrap();
        assert_eq!(config.facts.masquerade_all, masquerade_all, "{mode}");
        assert_eq!(config.min_sync_period.as_secs(), seconds, "{mode}");
    }
}

#[test]
fn addresses_are_parsed_like_in_kube_proxy() {
    let ranges = |texts: &[&str]| {
        let ranges = texts.iter().map(|text| text.parse().unwrap());
        NodePortAddresses::In(ranges.collect())
    };
    let cases = [
        ("[]", NodePortAddresses::Primary),
        ("[primary]", NodePortAddresses::Primary),
        ("[all]", ranges(&[])),
        ("[0.0.0.0/0, \"::/0\"]", ranges(&["0.0.0.0/0", "::/0"])),
        (
            "[010.1.2.3/8, \" fd00::/8\"]",
            ranges(&["10.0.0.0/8", "fd00::/8"]),
        ),
    ];
    for (written, expected) in cases {
        let config = config(&format!("nodePortAddresses: {written}")).unwrap();
        assert_eq!(config.facts.node_port_addresses, expected, "{written}");
        assert!(!config.localhost_node_ports, "{written}");
    }
    // KEP-6032.
    for (written, expected) in [
        ("[primary, localhost]", NodePortAddresses::Primary),
        ("[localhost, all]", ranges(&[])),
        ("[localhost]", ranges(&["127.0.0.1/8", "::1/128"])),
        (
            "[10.0.0.0/8, \" localhost \"]",
            ranges(&["10.0.0.0/8", "127.0.0.1/8", "::1/128"]),
        ),
    ] {
        let config = config(&format!("nodePortAddresses: {written}")).unwrap();
        assert_eq!(config.facts.node_port_addresses, expected, "{written}");
        assert!(config.localhost_node_ports, "{written}");
    }
    let config = config(
        "clusterCIDR: 10.244.0.0/16, fd00:10:244::/56\nbindAddress: \"fd00::1\"\n\
         healthzBindAddress: \"::\"\nmetricsBindAddress: 127.000.000.001:1",
    )
    .unwrap();
    let pods = ["10.244.0.0/16", "fd00:10:244::/56"].map(|range| range.parse().unwrap());
    assert_eq!(config.facts.pods, PodSource::ClusterCidr(pods.to_vec()));
    assert_eq!(config.facts.node_ip, "fd00::1".parse().ok());
    assert_eq!(config.healthz_bind_address, "[::]:10256".parse().ok());
    assert_eq!(config.metrics_bind_address, "127.0.0.1:1".parse().ok());
}

#[test]
fn the_case_of_detect_local_mode_does_not_matter() {
    let config = config("detectLocalMode: bridgeinterface\ndetectLocal: {bridgeInterface: cbr0}");
    let expected = PodSource::Interface(Interface::Named("cbr0".into()));
    assert_eq!(config.unwrap().facts.pods, expected);
}
