//! The exec probe of the kubeadm overlay follows kube-proxy's file, wherever that puts the health port.

use std::fs;

use k8s_openapi::api::core::v1::ConfigMap;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use super::Daemon;
use super::image::{self, read};
use super::shop::Shop;
use crate::lab::http::ask;
use crate::lab::{Family, Manifests, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::exec_probe;
    crate::trials!(exec_probe:
        the_probe_follows_kubeadms_configuration,
        the_probe_fails_with_a_daemon_that_hangs_or_is_gone,
        the_probe_names_a_configuration_that_it_cannot_use,
    )
}

/// The directory of a configuration that says this about health, and its path.
fn configuration(health: &str) -> (Manifests, String) {
    let made: ConfigMap = read("tests/config/fixtures/kubeadm/configmap.yaml");
    let mut text = made.data.expect("data")["config.conf"].clone();
    let empty = "healthzBindAddress: \"\"";
    assert!(text.contains(empty), "{text}");
    text = text.replace(empty, &format!("healthzBindAddress: {health}"));
    text = text.replace("maxPerCore: null", "maxPerCore: 0");
    let place = Manifests::new();
    let file = format!("{}/config.conf", place.path());
    fs::write(&file, text).expect("write a configuration");
    (place, file)
}

/// Runs a probe of the overlay on the node; returns its exit code and what it prints.
fn probe(shop: &Shop, endpoint: &str, file: &str) -> (Option<i32>, String) {
    let container = image::probed_container();
    let probe = match endpoint {
        "readyz" => container.readiness_probe,
        _ => container.liveness_probe,
    };
    let command = probe.and_then(|probe| probe.exec).expect("an exec probe");
    let words = command.command.expect("a command");
    assert_eq!(words[0], "/usr/local/bin/kube-dnat");
    assert_eq!(words[1..3], ["probe", endpoint]);
    let words: Vec<_> = words[1..]
        .iter()
        .map(|word| word.replace("/var/lib/kube-proxy/config.conf", file))
        .collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let node = &shop.cluster.node.namespace;
    let output = node.output(env!("CARGO_BIN_EXE_kube-dnat"), &words, "");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).expect("UTF-8");
    (output.status.code(), printed)
}

fn the_probe_follows_kubeadms_configuration() {
    let outside = Family::V4.lan(2);
    for (health, port, from_outside) in [
        ("\"\"", 10_256, true),
        ("127.0.0.1:10256", 10_256, false),
        ("0.0.0.0:10299", 10_299, true),
        ("\"[::]:10299\"", 10_299, true),
        (&format!("{outside}:9998"), 9998, true),
        (&format!("\"{}\"", Family::V6.lan(2)), 10_256, false),
    ] {
        let shop = Shop::new();
        let (_place, file) = configuration(health);
        let daemon = Daemon::start_by_file(&shop.cluster, &shop.manifests, &file);
        wait_until("the probe succeeds", || {
            probe(&shop, "livez", &file).0 == Some(0)
        });
        let (code, printed) = probe(&shop, "livez", &file);
        assert_eq!(code, Some(0), "{health}: {printed}");
        assert!(printed.contains("\"healthy\":true"), "{health}: {printed}");
        assert_eq!(
            probe(&shop, "readyz", &file),
            (Some(0), "ok\n".to_owned()),
            "{health}"
        );
        // An httpGet probe is such a request: the kubelet sends it to the address of the node.
        let answer = ask(
            &shop.cluster.client,
            (Family::V4.lan(2), port),
            "GET /livez",
            "",
        );
        let is_ok = answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "));
        assert_eq!(is_ok, from_outside, "{health}");
        daemon.terminate();
    }
}

fn the_probe_fails_with_a_daemon_that_hangs_or_is_gone() {
    let shop = Shop::new();
    let (_place, file) = configuration("127.0.0.1:10256");
    let daemon = Daemon::start_by_file(&shop.cluster, &shop.manifests, &file);
    wait_until("the probe succeeds", || {
        probe(&shop, "livez", &file).0 == Some(0)
    });
    daemon.signal(Signal::SIGSTOP);
    let (code, printed) = probe(&shop, "livez", &file);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("deadline has elapsed"), "{printed}");
    daemon.signal(Signal::SIGCONT);
    daemon.kill();
    for endpoint in ["livez", "readyz"] {
        let (code, printed) = probe(&shop, endpoint, &file);
        assert_eq!(code, Some(2), "{printed}");
        let expected = format!("http://127.0.0.1:10256/{endpoint}: Connection refused");
        assert!(printed.starts_with(&expected), "{printed}");
    }
}

fn the_probe_names_a_configuration_that_it_cannot_use() {
    let shop = Shop::new();
    let (place, file) = configuration("nowhere:99999");
    let (code, printed) = probe(&shop, "livez", &file);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("healthzBindAddress"), "{printed}");
    let missing = format!("{}/no.conf", place.path());
    let (code, printed) = probe(&shop, "livez", &missing);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains(&missing), "{printed}");
}
