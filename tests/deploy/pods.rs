//! The Pods of a rendered `DaemonSet`: what Kubernetes would refuse, and what the program would.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Probe, SecurityContext};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_dnat::config::{self, Config};
use tempfile::TempDir;

use crate::objects::Objects;
use crate::text;

/// The `ConfigMap` that kubeadm makes, with a kubeconfig in it.
const KUBEADM: &str = "tests/config/fixtures/kubeadm/configmap.yaml";

/// Where the program finds its configuration.
const MOUNTED: &str = "/var/lib/kube-proxy";

/// What a rendering is to be like, besides valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// One capability, and an init container for the kernel settings.
    Few,
    /// One container with all of them.
    All,
}

/// Panics if something is not as it has to be.
pub(crate) fn check(objects: &Objects, rights: Rights) {
    let daemon_set: DaemonSet = objects.one();
    let spec = daemon_set.spec.unwrap();
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    for (label, value) in spec.selector.match_labels.unwrap() {
        assert_eq!(labels.get(&label), Some(&value), "{label}");
    }
    let pod = spec.template.spec.unwrap();
    check_place(&pod);
    check_rights(&pod, rights);
    let (config_map, kubeconfig) = configuration(objects, &pod);
    let dir = TempDir::new().unwrap();
    for (key, value) in &config_map {
        fs::write(dir.path().join(key), value).unwrap();
    }
    let config = accepted(&dir.path().join("config.conf"));
    assert_eq!(config.kubeconfig.is_some(), kubeconfig, "{config:?}");
    for container in containers(&pod) {
        check_container(container, &pod, dir.path());
    }
    let [container] = pod.containers.as_slice() else {
        panic!("not one container: {pod:?}");
    };
    let health = config.healthz_bind_address.unwrap();
    check_probes(container, health, kubeconfig);
    let environment = environment(container);
    assert!(environment.contains("NODE_NAME"), "{environment:?}");
    // The Service `kubernetes` works only once we do.
    for variable in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        assert_eq!(environment.contains(variable), !kubeconfig, "{variable}");
    }
}

fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().flatten().chain(&pod.containers)
}

/// On every node, whatever happens there, on its own network.
fn check_place(pod: &PodSpec) {
    assert_eq!(pod.host_network, Some(true));
    assert_eq!(pod.dns_policy.as_deref(), Some("Default"));
    let priority = pod.priority_class_name.as_deref();
    assert_eq!(priority, Some("system-node-critical"));
    let selected = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
    assert_eq!(pod.node_selector, Some(selected));
    let [toleration] = pod.tolerations.as_deref().unwrap() else {
        panic!("{:?}", pod.tolerations);
    };
    assert_eq!(toleration.operator.as_deref(), Some("Exists"));
    assert_eq!((&toleration.key, &toleration.effect), (&None, &None));
}

fn check_rights(pod: &PodSpec, rights: Rights) {
    let of = |container: &Container| container.security_context.clone().unwrap();
    let everything = SecurityContext {
        privileged: Some(true),
        ..SecurityContext::default()
    };
    if rights == Rights::All {
        let all: Vec<_> = containers(pod).map(of).collect();
        assert_eq!(all, [everything]);
        return;
    }
    let seccomp = pod.security_context.clone().unwrap().seccomp_profile;
    assert_eq!(seccomp.unwrap().type_, "RuntimeDefault");
    let init = pod.init_containers.clone().unwrap();
    assert_eq!(
        init.iter().map(of).collect::<Vec<_>>(),
        [SecurityContext {
            read_only_root_filesystem: Some(true),
            ..everything
        }]
    );
    let security = of(&pod.containers[0]);
    let capabilities = security.capabilities.unwrap();
    assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
    assert_eq!(capabilities.add.unwrap(), ["NET_ADMIN"]);
    assert_eq!(security.privileged, None);
    assert_eq!(security.allow_privilege_escalation, Some(false));
    assert_eq!(security.read_only_root_filesystem, Some(true));
}

/// What the mounted `ConfigMap` holds, and whether a kubeconfig is in it.
fn configuration(objects: &Objects, pod: &PodSpec) -> (BTreeMap<String, String>, bool) {
    let [volume] = pod.volumes.as_deref().unwrap() else {
        panic!("{:?}", pod.volumes);
    };
    let name = &volume.config_map.as_ref().unwrap().name;
    let rendered = objects.all::<ConfigMap>();
    let names: Vec<_> = rendered.iter().map(|map| &map.metadata.name).collect();
    if name == "kube-proxy" {
        assert!(names.is_empty(), "not used: {names:?}");
        let made: ConfigMap = Objects::read(&text(KUBEADM)).one();
        return (made.data.unwrap(), true);
    }
    assert_eq!(names, [&Some(name.clone())]);
    (rendered.into_iter().next().unwrap().data.unwrap(), false)
}

/// What a file of kube-proxy's comes to; nothing in it may be passed over.
fn accepted(file: &Path) -> Config {
    let text = fs::read_to_string(file).unwrap();
    let (mut written, lenience) = config::parse(&text, file).unwrap();
    assert!(lenience.is_strict(), "{lenience:?}");
    written.set_defaults();
    Config::resolve(written, "node-1", None, &[]).unwrap()
}

/// It runs the program from where the image has it, with what is mounted, and the program
/// understands its arguments.
fn check_container(container: &Container, pod: &PodSpec, mounted: &Path) {
    let image = container.image.as_deref().unwrap();
    let tag = image.rsplit_once(':').map(|(_, tag)| tag);
    assert_eq!(tag, Some(env!("CARGO_PKG_VERSION")), "{image}");
    let volumes: Vec<_> = pod.volumes.iter().flatten().map(|it| &it.name).collect();
    let [mount] = container.volume_mounts.as_deref().unwrap() else {
        panic!("{container:?}");
    };
    assert_eq!(
        (volumes.as_slice(), mount.mount_path.as_str()),
        ([&mount.name].as_slice(), MOUNTED)
    );
    let command = container.command.as_deref().unwrap();
    assert_eq!(command, ["/usr/local/bin/kube-dnat"]);
    let arguments = container.args.iter().flatten().map(|argument| {
        let argument = argument.replace("$(NODE_NAME)", "node-1");
        assert!(!argument.contains("$("), "{argument}");
        argument.replace(MOUNTED, mounted.to_str().unwrap())
    });
    let written = mounted.join("written.yaml");
    let output = Command::new(env!("CARGO_BIN_EXE_kube-dnat"))
        .args(arguments)
        .arg("--write-config-to")
        .arg(&written)
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{container:?}: {said}");
    assert!(!said.to_lowercase().contains("warn"), "{said}");
    fs::remove_file(written).unwrap();
}

/// The probes ask on loopback, at the port of the configuration. Kubeadm's configuration can move it, so
/// there the program asks, which reads the same file.
fn check_probes(container: &Container, health: SocketAddr, foreign: bool) {
    let check = |probe: &Option<Probe>, endpoint: &str| {
        let probe = probe.clone().unwrap();
        if foreign {
            let command = probe.exec.unwrap().command.unwrap();
            let config = format!("--config={MOUNTED}/config.conf");
            let expected = ["/usr/local/bin/kube-dnat", "probe", endpoint, &config];
            assert_eq!(command, expected);
            assert_eq!(probe.http_get, None);
            return;
        }
        let asked = probe.http_get.unwrap();
        assert_eq!(asked.path, Some(format!("/{endpoint}")));
        assert_eq!(asked.port, IntOrString::Int(health.port().into()));
        let ip = health.ip();
        let loopback = if ip.is_ipv4() { "127.0.0.1" } else { "::1" };
        let ip = if ip.is_unspecified() {
            loopback.to_owned()
        } else {
            ip.to_string()
        };
        assert_eq!(asked.host, Some(ip));
    };
    check(&container.startup_probe, "livez");
    check(&container.liveness_probe, "livez");
    check(&container.readiness_probe, "readyz");
}

fn environment(container: &Container) -> BTreeSet<&str> {
    let set = container.env.iter().flatten();
    set.map(|variable| variable.name.as_str()).collect()
}
