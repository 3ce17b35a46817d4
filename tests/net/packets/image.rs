//! The image with the manifests' container: its files and the granted capabilities suffice.

use std::fs;
use std::path::Path;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Probe, SecurityContext};
use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use serde::de::DeserializeOwned;

use super::shop::{Shop, cart, cart_slices};
use super::{Daemon, everywhere, names, servers};
use crate::lab::http::ask;
use crate::lab::{Family, Image, Manifests, Run, nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::image;
    crate::trials!(image:
        the_container_of_the_daemonset_serves_with_its_capabilities,
        the_image_serves_with_the_command_of_kube_proxy,
    )
}

/// The mount point of the manifests. They replace the API server, which the lab does not have.
const OBJECTS: &str = "/manifests";

pub(super) fn read<T: DeserializeOwned>(path: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = fs::read_to_string(path).expect("a file of the repository");
    yaml_serde::from_str(&text).expect("an object")
}

fn pod() -> PodSpec {
    let daemon_set: DaemonSet = read("manifests/deploy/base/daemonset.yaml");
    let spec = daemon_set.spec.expect("a spec");
    spec.template.spec.expect("a Pod")
}

/// Returns the container with the probes of the kubeadm overlay.
pub(super) fn probed_container() -> Container {
    let patch: DaemonSet = read("manifests/deploy/overlays/kubeadm/probes.yaml");
    let pod = patch.spec.expect("a spec").template.spec;
    pod.expect("a Pod").containers.remove(0)
}

/// Returns the command of an exec probe.
fn command(probe: Option<Probe>) -> Vec<String> {
    let exec = probe.and_then(|probe| probe.exec).expect("an exec probe");
    exec.command.expect("a command")
}

/// Returns the container with more arguments.
fn with(mut container: Container, arguments: &[&str]) -> Container {
    let more = arguments.iter().map(|argument| (*argument).to_owned());
    container.args.get_or_insert_default().extend(more);
    container
}

fn following(container: Container) -> Container {
    with(container, &["--manifests", OBJECTS])
}

/// Returns a value from the status of a process.
fn status(process: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.and_then(|line| line.strip_prefix(':'));
    line.expect("a line").trim().to_owned()
}

/// Returns a shop with a Pod of the Service, and a directory for a configuration.
fn shop() -> (Shop, Manifests) {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    shop.manifests
        .write("cart.yaml", &(cart().yaml() + &slices));
    (shop, Manifests::new())
}

/// Asserts that the daemon reports that it is ready, and that it serves the Service.
fn assert_serves(shop: &Shop) {
    let to = (Family::V4.lan(2), 10_256);
    let ready = || {
        let answer = ask(&shop.cluster.client, to, "GET /readyz", "");
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    };
    wait_until("the daemon is ready", ready);
    let table = nft::list_table(&shop.cluster.node.namespace, Family::V4.table());
    assert!(table.contains("\"shop/cart:http-tcp\""), "{table}");
    for (family, protocol) in everywhere() {
        let pod = shop.cluster.pod("pod-3");
        let probe = pod.probe(protocol, (family.cluster_ip(1), 80));
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
}

fn the_container_of_the_daemonset_serves_with_its_capabilities() {
    let (shop, config) = shop();
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/deploy/base/config.conf"),
        Path::new(config.path()).join("config.conf"),
    )
    .expect("copy a configuration");
    let image = Image::assemble(&[]);
    let pod = pod();
    let run = |container: Container| {
        let mounts = container.volume_mounts.as_deref().expect("mounts");
        assert_eq!(mounts[0].mount_path, "/var/lib/kube-proxy");
        Run {
            image: &image,
            container,
            mounts: vec![
                (Path::new(config.path()), "/var/lib/kube-proxy"),
                (Path::new(shop.manifests.path()), OBJECTS),
            ],
            node: &shop.cluster.node,
        }
    };
    let main = &pod.containers[0];
    // This value differs from the one in the configuration.
    let setting = "net/netfilter/nf_conntrack_tcp_timeout_established";
    shop.cluster.node.namespace.sysctls(&[(setting, "432000")]);
    // The container cannot change its own files.
    let output = run(with(main.clone(), &["--write-config-to", "/written"])).output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot write /written: Read-only file system"),
        "{said}"
    );
    // The container cannot change kernel settings either, and serves without them.
    let process = run(following(main.clone())).start();
    let daemon = Daemon::started(&shop.cluster, &shop.manifests, process);
    assert_serves(&shop);
    let left = daemon.logged(LogEvent::KernelSettingNotChanged);
    assert!(left.iter().any(|line| line.contains(setting)), "{left:?}");
    daemon.terminate();
    let init = &pod.init_containers.expect("init containers")[0];
    let output = run(init.clone()).output();
    assert!(output.status.success(), "{output:?}");
    let value = shop
        .cluster
        .node
        .namespace
        .run(|| fs::read_to_string(Path::new("/proc/sys").join(setting)));
    assert_eq!(value.expect("a setting").trim(), "86400");

    let process = run(following(main.clone())).start();
    let id = process.id();
    let daemon = Daemon::started(&shop.cluster, &shop.manifests, process);
    assert_serves(&shop);
    // CAP_NET_ADMIN is bit 12.
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(id, set), format!("{:016x}", 1 << 12), "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(id, set), format!("{:016x}", 0), "{set}");
    }
    assert_eq!(status(id, "NoNewPrivs"), "1");
    let status = daemon.terminate();
    assert!(status.success(), "{status}");
}

fn the_image_serves_with_the_command_of_kube_proxy() {
    let (shop, config) = shop();
    let made: ConfigMap = read("tests/config/fixtures/kubeadm/configmap.yaml");
    for (name, text) in made.data.expect("data") {
        fs::write(Path::new(config.path()).join(name), text).expect("write a configuration");
    }
    let image = Image::assemble(&["--debug"]);
    let privileged = SecurityContext {
        privileged: Some(true),
        ..SecurityContext::default()
    };
    let words = [
        "/usr/local/bin/kube-proxy",
        "--config=/var/lib/kube-proxy/config.conf",
        "--hostname-override=$(NODE_NAME)",
    ];
    let run = |command: &[String], security: SecurityContext| Run {
        image: &image,
        container: Container {
            command: Some(command.to_vec()),
            security_context: Some(security),
            ..Container::default()
        },
        mounts: vec![
            (Path::new(config.path()), "/var/lib/kube-proxy"),
            (Path::new(shop.manifests.path()), OBJECTS),
        ],
        node: &shop.cluster.node,
    };
    let owned =
        |words: &[&str]| -> Vec<_> { words.iter().map(|word| (*word).to_owned()).collect() };
    let mut kube_proxy = run(&owned(&words), privileged);
    kube_proxy.container = following(kube_proxy.container);
    let _daemon = Daemon::started(&shop.cluster, &shop.manifests, kube_proxy.start());
    assert_serves(&shop);

    // These commands run like `kubectl exec` in a container with the DaemonSet's capabilities.
    let few = pod().containers.remove(0).security_context.expect("rights");
    let nft = ["/usr/sbin/nft", "list", "table", "ip", "kube-dnat"];
    let explain = ["/usr/local/bin/kube-dnat", "explain", "shop/cart"];
    let conntrack = ["/usr/sbin/conntrack", "-L", "-p", "tcp"];
    let status = ["/usr/local/bin/kube-dnat", "status"];
    let probed = probed_container();
    for (words, expected) in [
        (owned(&nft), "tcp . 10.96.0.1 . 80"),
        (owned(&status), "running, version"),
        (owned(&explain), "10.244.1.9"),
        (owned(&conntrack), "dport=80"),
        (command(probed.startup_probe), "\"healthy\":true"),
        (command(probed.liveness_probe), "\"healthy\":true"),
        (command(probed.readiness_probe), "ok"),
    ] {
        let output = run(&words, few.clone()).output();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
}
