//! The daemon with kube-proxy's command line and file, and the kernel settings that it applies.

use std::fs;
use std::process::Output;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::shop::{Shop, cart, cart_slices};
use super::{Daemon, everywhere, names, servers};
use crate::lab::{Family, Host, Manifests, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::configuration;
    crate::trials!(configuration:
        the_daemon_uses_kube_proxys_file_until_it_changes,
        init_only_applies_only_the_kernel_settings,
    )
}

fn kube_dnat(host: &Host, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    host.namespace.output(program, arguments, "")
}

/// Reads a conntrack setting in the namespace of a host.
fn setting(host: &Host, name: &str) -> String {
    let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
    host.namespace.command("cat", &[&path]).trim().to_owned()
}

fn tables(host: &Host) -> String {
    host.namespace.command("nft", &["list", "tables"])
}

fn the_daemon_uses_kube_proxys_file_until_it_changes() {
    let shop = Shop::new();
    let node = &shop.cluster.node;
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let config = |minutes: u8| {
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
             mode: iptables\nclusterCIDR: {cidrs}\nconntrack:\n  maxPerCore: 0\n  \
             tcpBeLiberal: true\n  tcpEstablishedTimeout: {minutes}m\n  udpTimeout: 7s\n"
        )
    };
    // The daemon would read this file as a manifest in the directory of manifests.
    let place = Manifests::new();
    let file = format!("{}/config.conf", place.path());
    fs::write(&file, config(3)).expect("write a configuration");
    shop.manifests.write(
        "cart.yaml",
        &(cart().yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()),
    );
    let mut daemon = Daemon::start_by_file(&shop.cluster, &shop.manifests, &file);
    for (family, protocol) in everywhere() {
        let pod = shop.cluster.pod("pod-3");
        let probe = pod.probe(protocol, (family.cluster_ip(1), 80));
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
    assert_eq!(setting(node, "tcp_timeout_established"), "180");
    assert_eq!(setting(node, "tcp_timeout_close_wait"), "3600");
    assert_eq!(setting(node, "udp_timeout"), "7");
    assert_eq!(setting(node, "tcp_be_liberal"), "1");
    let mode = daemon.logged(LogEvent::ProxyModeIgnored);
    assert!(
        mode.len() == 1 && mode[0].contains("mode=iptables"),
        "{mode:?}"
    );

    fs::write(&file, config(4)).expect("write a configuration");
    let status = daemon.ended();
    assert_eq!(status.code(), Some(1));
    let warnings = daemon.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("ERROR") && warnings[0].contains(&file),
        "{warnings:?}"
    );
    // The rules stay until the cleanup.
    assert!(tables(node).contains("kube-dnat"));
    let cleaned = kube_dnat(node, &["--cleanup", &format!("--config={file}")]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    wait_until("the tables are removed", || tables(node).is_empty());
}

fn init_only_applies_only_the_kernel_settings() {
    let shop = Shop::new();
    let node = &shop.cluster.node;
    let arguments = [
        "--init-only",
        "--conntrack-max-per-core=0",
        "--conntrack-udp-timeout-stream=77s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ];
    let close_wait = setting(node, "tcp_timeout_close_wait");
    let done = kube_dnat(node, &arguments);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(setting(node, "udp_timeout_stream"), "77");
    assert_eq!(setting(node, "tcp_timeout_established"), "86400");
    assert_eq!(setting(node, "tcp_timeout_close_wait"), close_wait);
    assert!(tables(node).is_empty());
}
