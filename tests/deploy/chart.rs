//! What the chart renders is what `manifests/deploy` says.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::{Value, json};

use crate::objects::{Objects, documents, lost};
use crate::pods::{self, Rights};
use crate::{kustomize, path, rbac, text, tools};

/// Where it is.
pub(crate) const CHART: &str = "manifests/chart";

/// One of its files.
pub(crate) fn yaml(name: &str) -> Value {
    documents(&text(&format!("{CHART}/{name}"))).remove(0)
}

/// `--set` of some values; a path of theirs as `monitoring.serviceMonitor.enabled`.
type Set<'a> = &'a [(&'a str, Value)];

/// What helm makes of the chart.
#[derive(Debug)]
pub(crate) struct Rendering {
    /// The text of the objects.
    pub(crate) manifest: String,
    pub(crate) objects: Objects,
    /// What helm prints after an installation.
    pub(crate) notes: String,
}

/// Renders the chart with helm; returns what helm says if it refuses.
pub(crate) fn render(set: Set) -> Result<Rendering, String> {
    let chart = path(CHART);
    let mut arguments = vec!["install", "kube-dnat", chart.to_str().unwrap()];
    arguments.extend([
        "--namespace",
        "kube-system",
        "--dry-run=client",
        "--output",
        "json",
    ]);
    let set: Vec<_> = set
        .iter()
        .map(|(path, value)| format!("{path}={value}"))
        .collect();
    arguments.extend(set.iter().flat_map(|set| ["--set-json", set]));
    let release: Value = serde_json::from_str(&tools::run("helm", &arguments)?).unwrap();
    let manifest = release["manifest"].as_str().unwrap().to_owned();
    Ok(Rendering {
        objects: Objects::read(&manifest),
        manifest,
        notes: release["info"]["notes"].as_str().unwrap().to_owned(),
    })
}

fn objects(set: Set) -> Objects {
    render(set).unwrap().objects
}

/// The chart with all that it has for monitoring.
pub(crate) fn monitoring() -> Objects {
    objects(&[
        (HOST, json!("h")),
        ("monitoring.podMonitor.enabled", json!(true)),
        ("monitoring.prometheusRule.enabled", json!(true)),
        ("monitoring.dashboard.enabled", json!(true)),
    ])
}

/// The value with the address of the API server.
pub(crate) const HOST: &str = "k8sServiceHost";
const PLACEHOLDER: &str = "api-server.invalid";

/// What both are to say, without what may differ.
fn said(objects: &Objects) -> Value {
    let mut daemon_set: DaemonSet = objects.one();
    daemon_set.metadata.labels = None;
    let template = &mut daemon_set.spec.as_mut().unwrap().template;
    // The chart has the labels of helm, too. pods::check finds those that select.
    template.metadata = None;
    let pod = template.spec.as_mut().unwrap();
    let init_containers = pod.init_containers.iter_mut().flatten();
    for container in init_containers.chain(&mut pod.containers) {
        container.image_pull_policy = None;
        let environment = container.env.iter_mut().flatten();
        let mut environment: Vec<_> = environment.map(|set| json!(set)).collect();
        environment.sort_by_key(ToString::to_string);
        container.env = Some(serde_json::from_value(environment.into()).unwrap());
    }
    for volume in pod.volumes.iter_mut().flatten() {
        let config_map = volume.config_map.as_mut().unwrap();
        // kubectl adds a hash.
        if config_map.name.starts_with("kube-dnat-") {
            "kube-dnat".clone_into(&mut config_map.name);
        }
    }
    let config_maps = objects.all::<ConfigMap>().into_iter();
    let configs = config_maps.map(|map| documents(&map.data.unwrap()["config.conf"]));
    json!({
        "daemonSet": daemon_set,
        "role": objects.one::<ClusterRole>().rules,
        "configs": configs.collect::<Vec<_>>(),
    })
}

fn assert_agree(chart: &Objects, deploy: &Objects) {
    let (chart, deploy) = (said(chart), said(deploy));
    assert!(
        lost(&chart, &deploy, "").is_empty(),
        "only in the chart: {:?}",
        lost(&chart, &deploy, "")
    );
    assert!(
        lost(&deploy, &chart, "").is_empty(),
        "only in deploy: {:?}",
        lost(&deploy, &chart, "")
    );
}

#[test]
fn it_renders_what_deploy_says() {
    let no_range = ("config.clusterCIDR", json!(""));
    let chart = objects(&[(HOST, json!(PLACEHOLDER)), no_range]);
    pods::check(&chart, Rights::Few);
    rbac::check(&chart, "kube-system");
    assert_agree(&chart, &kustomize::rendered("base"));

    let k3s = json!({
        "clusterCIDR": "10.42.0.0/16",
        "conntrack": {
            "maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
    });
    let host = (HOST, json!("127.0.0.1"));
    let port = ("k8sServicePort", json!(6444));
    let kubeadm = vec![("existingConfigMap", json!("kube-proxy"))];
    let privileged = [kubeadm.clone(), vec![("privileged", json!(true))]].concat();
    for (overlay, rights, set) in [
        ("overlays/kubeadm", Rights::Few, kubeadm),
        ("overlays/privileged", Rights::All, privileged),
        (
            "overlays/k3s",
            Rights::Few,
            vec![host, port, ("config", k3s)],
        ),
    ] {
        let chart = objects(&set);
        pods::check(&chart, rights);
        assert_agree(&chart, &kustomize::rendered(overlay));
    }
}

#[test]
fn flags_of_the_release_are_understood_by_the_program() {
    let flags = json!(["-v=4", "--table-owner=false"]);
    let set = [
        (HOST, json!("192.0.2.10")),
        ("takeover", json!(true)),
        ("extraArgs", flags),
    ];
    pods::check(&objects(&set), Rights::Few);
}

#[test]
fn helm_lint_finds_no_fault() {
    let chart = path(CHART);
    let chart = chart.to_str().unwrap();
    tools::run(
        "helm",
        &["lint", "--strict", chart, "--set", "k8sServiceHost=h"],
    )
    .unwrap();
}

#[test]
fn probes_ask_at_the_configured_address() {
    for (field, value) in [
        ("config.healthzBindAddress", "0.0.0.0:9998"),
        ("config.healthzBindAddress", "127.0.0.1:10256"),
        ("config.healthzBindAddress", "127.0.0.1"),
        ("config.healthzBindAddress", "192.0.2.1:9998"),
        ("config.healthzBindAddress", "[::]:9998"),
        ("config.healthzBindAddress", "::1"),
        ("config.healthzBindAddress", ""),
        ("config.bindAddress", "::"),
    ] {
        pods::check(
            &objects(&[(HOST, json!("h")), (field, json!(value))]),
            Rights::Few,
        );
    }
    // Port 0 disables health checks.
    let disabled = [
        (HOST, json!("h")),
        ("config.healthzBindAddress", json!("0.0.0.0:0")),
    ];
    let daemon_set: DaemonSet = objects(&disabled).one();
    let pod = daemon_set.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.containers[0].liveness_probe, None);
    assert_eq!(pod.containers[0].startup_probe, None);
}

#[test]
fn a_changed_configuration_changes_the_pods() {
    let template = |cidr: &str| {
        let chart = objects(&[(HOST, json!("h")), ("config.clusterCIDR", json!(cidr))]);
        chart.one::<DaemonSet>().spec.unwrap().template
    };
    assert_ne!(template("10.0.0.0/8"), template("10.1.0.0/16"));
}

/// What the notes say if Prometheus cannot reach the metrics.
const ADVICE: &str = "metricsBindAddress";

#[test]
fn a_service_monitor_finds_the_metrics() {
    let enabled = ("monitoring.serviceMonitor.enabled", json!(true));
    for (address, port, reachable) in [
        ("", 10249, false),
        ("127.0.0.1:9999", 9999, false),
        ("0.0.0.0:9999", 9999, true),
        ("0.0.0.0", 10249, true),
        ("[::]:9999", 9999, true),
        ("::1", 10249, false),
    ] {
        let set = [
            (HOST, json!("h")),
            enabled.clone(),
            ("config.metricsBindAddress", json!(address)),
        ];
        let Rendering { objects, notes, .. } = render(&set).unwrap();
        assert_eq!(notes.contains(ADVICE), !reachable, "{address}: {notes}");
        let service = objects.one::<Service>();
        let monitor = objects.of_kind("ServiceMonitor").next().unwrap();
        let spec = service.spec.unwrap();
        let service_port = &spec.ports.unwrap()[0];
        assert_eq!(service_port.port, port, "{address}");
        let endpoint = &monitor["spec"]["endpoints"][0];
        assert_eq!(endpoint["port"], json!(service_port.name));
        let labels = service.metadata.labels.unwrap();
        let selected = monitor["spec"]["selector"]["matchLabels"]
            .as_object()
            .unwrap();
        for (name, value) in selected {
            assert_eq!(
                labels.get(name).map(String::as_str),
                value.as_str(),
                "{name}"
            );
        }
        let pods = objects.one::<DaemonSet>().spec.unwrap().selector;
        assert_eq!(spec.selector, pods.match_labels);
    }
}

#[test]
fn the_advice_about_metrics_fits_an_existing_config_map() {
    let existing = ("existingConfigMap", json!("kube-proxy"));
    for monitor in [
        "monitoring.serviceMonitor.enabled",
        "monitoring.podMonitor.enabled",
    ] {
        let enabled = (monitor, json!(true));
        let notes = render(&[existing.clone(), enabled]).unwrap().notes;
        let advice = "edit configmap kube-proxy";
        assert!(notes.contains(ADVICE) && notes.contains(advice), "{notes}");
        assert!(!notes.contains("config.metricsBindAddress"), "{notes}");
    }
    let notes = render(&[existing]).unwrap().notes;
    assert!(!notes.contains(ADVICE), "{notes}");
}

#[test]
fn the_job_can_be_kube_proxys() {
    let set = [
        (HOST, json!("h")),
        ("monitoring.job", json!("kube-proxy")),
        ("monitoring.serviceMonitor.enabled", json!(true)),
        ("monitoring.podMonitor.enabled", json!(true)),
    ];
    let objects = objects(&set);
    let job = json!({"targetLabel": "job", "replacement": "kube-proxy"});
    for (kind, endpoints) in [
        ("ServiceMonitor", "endpoints"),
        ("PodMonitor", "podMetricsEndpoints"),
    ] {
        let monitor = objects.of_kind(kind).next().unwrap();
        let relabelings = monitor["spec"][endpoints][0]["relabelings"]
            .as_array()
            .unwrap();
        assert_eq!(relabelings.last(), Some(&job), "{kind}");
    }
}

#[test]
fn its_versions_are_the_programs() {
    let chart = yaml("Chart.yaml");
    for version in ["version", "appVersion"] {
        assert_eq!(chart[version], env!("CARGO_PKG_VERSION"), "{version}");
    }
    assert_eq!(chart["description"], env!("CARGO_PKG_DESCRIPTION"));
    let repository = &yaml("values.yaml")["image"]["repository"];
    let image = format!(
        "{}:{}",
        repository.as_str().unwrap(),
        env!("CARGO_PKG_VERSION")
    );
    let deployed = kustomize::rendered("base")
        .one::<DaemonSet>()
        .spec
        .unwrap()
        .template
        .spec
        .unwrap();
    assert_eq!(deployed.containers[0].image.as_ref(), Some(&image));
}
