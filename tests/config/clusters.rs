//! The configurations that result from the `ConfigMaps` and command lines of clusters. Each folder
//! of `fixtures` has the arguments of the container, and the `ConfigMap` if there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube_dnat::config::{
    Config, ConfigFile, ConfigNotice, KubeProxyConfiguration, LogFormat, Mode, notices, parse,
    schema,
};
use kube_dnat::logging::LogEvent;
use kube_dnat::planner::desired::{NodeFacts, NodePortAddresses, PodSource};

use super::{Outcome, kube_dnat};

/// The configuration of a cluster.
struct Cluster {
    _dir: tempfile::TempDir,
    /// The configuration file, extracted from the `ConfigMap`.
    file: Option<PathBuf>,
    /// The arguments for node-1, with this file.
    arguments: Vec<String>,
}

impl Cluster {
    /// Reads the fixtures of a cluster.
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/config/fixtures")
            .join(name);
        let dir = tempfile::tempdir().unwrap();
        let file = fs::read_to_string(folder.join("configmap.yaml"))
            .ok()
            .map(|config_map| {
                let config_map: serde_json::Value = yaml_serde::from_str(&config_map).unwrap();
                let data = config_map["data"].as_object().unwrap();
                let (_, text) = data
                    .iter()
                    .find(|(key, _)| key.starts_with("config"))
                    .unwrap();
                let file = dir.path().join("config.conf");
                fs::write(&file, text.as_str().unwrap()).unwrap();
                file
            });
        let arguments = fs::read_to_string(folder.join("arguments")).unwrap();
        let arguments = arguments.split_whitespace().map(|argument| {
            let argument = argument.replace("$(NODE_NAME)", "Node-1");
            match (&file, argument.split_once('=')) {
                (Some(file), Some(("--config", _))) => format!("--config={}", file.display()),
                _ => argument,
            }
        });
        Self {
            arguments: arguments.collect(),
            file,
            _dir: dir,
        }
    }

    /// Runs the program with `--write-config-to`. Returns the written configuration and the
    /// outcome.
    fn written(&self, more: &[&str]) -> (KubeProxyConfiguration, Outcome) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("written.yaml");
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.extend(["--write-config-to", out.to_str().unwrap()]);
        arguments.extend(more);
        let outcome = kube_dnat(&arguments);
        assert_eq!(outcome.code, Some(0), "{:#?}", outcome.log);
        let text = fs::read_to_string(&out).unwrap();
        let (mut written, lenience) = parse(&text, &out).unwrap();
        assert!(lenience.is_strict(), "{lenience:?}");
        written.set_defaults();
        (written, outcome)
    }

    /// Returns the resolved configuration.
    fn config(&self) -> Config {
        let (written, _) = self.written(&[]);
        Config::resolve(written, "host", None, &[]).unwrap()
    }
}

/// The node facts with these address ranges of Pods.
fn cluster_cidr(ranges: &[&str]) -> NodeFacts {
    let ranges = ranges.iter().map(|range| range.parse().unwrap());
    NodeFacts {
        pods: PodSource::ClusterCidr(ranges.collect()),
        ..NodeFacts::default()
    }
}

#[test]
fn kubeadm_configures_kube_proxys_defaults() {
    let cluster = Cluster::new("kubeadm");
    let config = cluster.config();
    let kubeconfig = "/var/lib/kube-proxy/kubeconfig.conf";
    let expected = KubeProxyConfiguration {
        client_connection: schema::ClientConnection {
            kubeconfig: kubeconfig.to_owned(),
            ..KubeProxyConfiguration::defaulted().client_connection
        },
        cluster_cidr: "10.244.0.0/16,fd00:10:244::/56".to_owned(),
        hostname_override: "Node-1".to_owned(),
        ..KubeProxyConfiguration::defaulted()
    };
    assert_eq!(config.written, expected);
    assert_eq!(config.node, "node-1");
    assert_eq!(config.kubeconfig.as_deref(), Some(Path::new(kubeconfig)));
    assert_eq!(
        config.facts,
        cluster_cidr(&["10.244.0.0/16", "fd00:10:244::/56"])
    );
    let (_, outcome) = cluster.written(&[]);
    assert!(outcome.at("WARN").is_empty(), "{:#?}", outcome.log);
    assert!(
        outcome
            .line(LogEvent::ProxyModeIgnored)
            .contains("mode=unset")
    );
    // The other line is about the written file: no field differs from its default.
    assert_eq!(outcome.log.len(), 2, "{:#?}", outcome.log);
}

#[test]
fn kind_keeps_the_conntrack_settings_of_the_host() {
    let cluster = Cluster::new("kind");
    let config = cluster.config();
    assert_eq!(config.mode, Mode::Nftables);
    assert_eq!(config.conntrack.max_per_core, 0);
    assert!(config.conntrack.tcp_be_liberal);
    assert_eq!(config.facts, cluster_cidr(&["10.244.0.0/16"]));
    let (_, outcome) = cluster.written(&[]);
    // kind sets this field for another mode.
    let unused = outcome.line(LogEvent::SettingsWithoutEffect);
    assert!(
        unused.contains("settings=\"iptables.minSyncPeriod\""),
        "{unused}"
    );
    assert_eq!(outcome.log.len(), 2, "{:#?}", outcome.log);
}

#[test]
fn eks_configures_mode_iptables_which_is_logged_once() {
    let cluster = Cluster::new("eks");
    let config = cluster.config();
    assert_eq!(config.mode, Mode::Iptables);
    assert_eq!(config.oom_score_adj, -998);
    assert_eq!(config.metrics_bind_address, "0.0.0.0:10249".parse().ok());
    assert_eq!(config.min_sync_period, Duration::ZERO);
    assert_eq!(config.logging.verbosity, 2);
    assert_eq!(config.facts, NodeFacts::default());
    let (_, outcome) = cluster.written(&[]);
    assert!(outcome.at("WARN").is_empty(), "{:#?}", outcome.log);
    assert!(
        outcome
            .line(LogEvent::ProxyModeIgnored)
            .contains("mode=iptables")
    );
}

#[test]
fn k3s_configures_kube_proxy_with_flags() {
    let config = Cluster::new("k3s").config();
    assert_eq!(config.file, None);
    assert_eq!(config.mode, Mode::Iptables);
    assert_eq!(config.node, "node-1");
    assert_eq!(config.healthz_bind_address, "127.0.0.1:10256".parse().ok());
    assert_eq!(config.conntrack.max_per_core, 0);
    assert_eq!(config.conntrack.tcp_established_timeout, Duration::ZERO);
    assert_eq!(config.conntrack.tcp_close_wait_timeout, Duration::ZERO);
    assert_eq!(config.facts, cluster_cidr(&["10.42.0.0/16"]));
    let kubeconfig = "/var/lib/rancher/k3s/agent/kubeproxy.kubeconfig";
    assert_eq!(config.kubeconfig.as_deref(), Some(Path::new(kubeconfig)));
    assert_eq!(config.logging.format, LogFormat::Text);
}

#[test]
fn an_old_file_in_mode_ipvs_starts_with_a_warning_about_unknown_fields() {
    let cluster = Cluster::new("kubeadm-ipvs");
    let config = cluster.config();
    assert_eq!(config.mode, Mode::Ipvs);
    assert!(config.facts.masquerade_all);
    assert_eq!(config.min_sync_period, Duration::from_secs(5));
    let (_, outcome) = cluster.written(&[]);
    let warnings = outcome.at("WARN");
    assert_eq!(warnings.len(), 1, "{:#?}", outcome.log);
    assert!(warnings[0].contains("unknown=\"conntrack.max, udpIdleTimeout\""));
    assert!(
        outcome
            .line(LogEvent::ProxyModeIgnored)
            .contains("mode=ipvs")
    );
    let idle = outcome.line(LogEvent::SettingsWithoutEffect);
    assert!(
        idle.contains("settings=\"ipvs.scheduler, ipvs.strictARP\""),
        "{idle}"
    );
}

#[test]
fn overridden_flags_are_named_in_one_warning() {
    // The flags that EKS documents for Bottlerocket.
    let cluster = Cluster::new("eks");
    let more = [
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--cluster-cidr=10.0.0.0/8",
        "--logging-format=json",
        "--vmodule=proxier=3",
        "--master=https://192.0.2.1",
    ];
    let (written, outcome) = cluster.written(&more[..4]);
    assert_eq!(written.conntrack.min, Some(131_072));
    assert!(written.cluster_cidr.is_empty());
    assert_eq!(written.logging.format, "json");
    let warnings = outcome.at("WARN");
    assert_eq!(warnings.len(), 1, "{:#?}", outcome.log);
    for flag in more {
        let is_named = more[..3].contains(&flag);
        let name = flag.split('=').next().unwrap();
        assert_eq!(warnings[0].contains(name), is_named, "{flag}: {warnings:?}");
    }
    let (written, _) = cluster.written(&more[4..]);
    assert_eq!(written.logging.vmodule.len(), 1);
}

#[test]
fn the_notices_about_a_file_are_values() {
    let cluster = Cluster::new("kubeadm-ipvs");
    let file = ConfigFile::read(cluster.file.as_deref().unwrap()).unwrap();
    let (mut written, lenience) = file.parse().unwrap();
    written.set_defaults();
    let config = Config::resolve(written.clone(), "host", Some(file.clone()), &[]).unwrap();
    assert_eq!(config.file.as_ref(), Some(&file));
    assert_eq!(config.facts.node_port_addresses, NodePortAddresses::Primary);
    let notices = notices(Some((file.path(), &written, lenience)), &[], &config);
    assert!(matches!(
        notices.as_slice(),
        [
            ConfigNotice::Lenient { .. },
            ConfigNotice::OtherMode(Mode::Ipvs),
            ConfigNotice::NoEffect(_)
        ]
    ));
}
