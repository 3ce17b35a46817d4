//! What the chart renders is what `manifests/deploy` says.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::{Value, json};

use crate::objects::{Objects, documents, lost};
use crate::pods::{self, Rights};
use crate::{files, kustomize, path, printed_by, rbac, template, text};

/// Where it is.
pub(crate) const CHART: &str = "manifests/chart";

/// One of its files.
pub(crate) fn yaml(name: &str) -> Value {
    documents(&text(&format!("{CHART}/{name}"))).remove(0)
}

/// `--set` of some values; a path of theirs as `monitoring.serviceMonitor.enabled`.
type Set<'a> = &'a [(&'a str, Value)];

/// The values of the chart with others set.
fn values(set: Set) -> Value {
    let mut values = yaml("values.yaml");
    for (path, value) in set {
        let place = path.split('.').fold(&mut values, |at, key| &mut at[key]);
        *place = value.clone();
    }
    values
}

/// Everything that the chart's templates come to but the notes, which are the other text.
fn rendered(set: Set) -> Result<(String, String), String> {
    let chart = yaml("Chart.yaml");
    let root = json!({
        "Values": values(set),
        "Release": {"Namespace": "kube-system"},
        "Chart": {"AppVersion": chart["appVersion"]},
    });
    let (mut manifests, mut notes) = (String::new(), String::new());
    for name in files(&format!("{CHART}/templates")) {
        let rendered = template::render(&text(&name), &root)?;
        if name.ends_with("/NOTES.txt") {
            notes = rendered;
        } else {
            manifests.extend(["\n---\n", &rendered]);
        }
    }
    Ok((manifests, notes))
}

/// The same by helm, where there is one.
fn rendered_by_helm(set: Set) -> Option<String> {
    let chart = path(CHART);
    let mut arguments = vec!["template", "kube-dnat", chart.to_str().unwrap()];
    arguments.extend(["--namespace", "kube-system"]);
    let set: Vec<_> = set
        .iter()
        .map(|(path, value)| format!("{path}={value}"))
        .collect();
    arguments.extend(set.iter().flat_map(|set| ["--set-json", set]));
    printed_by("helm", &arguments)
}

fn objects(set: Set) -> Objects {
    let (manifests, _) = rendered(set).unwrap();
    if let Some(by_helm) = rendered_by_helm(set) {
        assert_eq!(
            comparable(documents(&by_helm)),
            comparable(documents(&manifests))
        );
    }
    Objects::read(&manifests)
}

/// By kind and name, without what is a different text for the same.
fn comparable(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let named = objects.into_iter().map(|mut object| {
        if let Some(metadata) = object["spec"]["template"]["metadata"].as_object_mut() {
            metadata.remove("annotations");
        }
        (
            format!("{} {}", object["kind"], object["metadata"]["name"]),
            object,
        )
    });
    named.collect()
}

const HOST: &str = "k8sServiceHost";
const PLACEHOLDER: &str = "api-server.invalid";

/// What both are to say, without what may differ.
fn said(objects: &Objects) -> Value {
    let mut daemon_set: DaemonSet = objects.one();
    let template = &mut daemon_set.spec.as_mut().unwrap().template;
    template.metadata.as_mut().unwrap().annotations = None;
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
        "role": objects.one::<ClusterRole>(),
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
    let chart = objects(&[(HOST, json!(PLACEHOLDER))]);
    pods::check(&chart, Rights::Few);
    rbac::check(&chart, "kube-system");
    assert_agree(&chart, &kustomize::base());

    let existing = ("existingConfigMap", json!("kube-proxy"));
    let k3s = json!({
        "mode": "nftables", "clusterCIDR": "10.42.0.0/16",
        "conntrack": {
            "maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
    });
    let host = (HOST, json!("127.0.0.1"));
    let port = ("k8sServicePort", json!(6444));
    let kubeadm = vec![existing];
    let privileged = [kubeadm.clone(), vec![("privileged", json!(true))]].concat();
    for (overlay, rights, set) in [
        ("kubeadm", Rights::Few, kubeadm),
        ("privileged", Rights::All, privileged),
        ("k3s", Rights::Few, vec![host, port, ("config", k3s)]),
    ] {
        let chart = objects(&set);
        pods::check(&chart, rights);
        if let Some(deploy) = kustomize::rendered(overlay) {
            assert_agree(&chart, &deploy);
        }
    }
}

#[test]
fn what_is_said_of_the_release_reaches_the_container() {
    let chart = objects(&[
        (HOST, json!("192.0.2.10")),
        ("extraArgs", json!(["-v=4", "--table-owner=false"])),
        ("takeover", json!(true)),
        ("image.tag", json!("9")),
        ("maxUnavailable", json!(2)),
        ("resources", json!({"limits": {"memory": "1Gi"}})),
    ]);
    let spec = chart.one::<DaemonSet>().spec.unwrap();
    let pod = spec.template.spec.unwrap();
    let container = &pod.containers[0];
    let arguments = container.args.as_ref().unwrap();
    assert_eq!(
        arguments[2..],
        ["--takeover", "-v=4", "--table-owner=false"]
    );
    assert_eq!(
        container.image.as_deref(),
        Some("ghcr.io/kube-dnat/kube-dnat:9")
    );
    let limits = container
        .resources
        .as_ref()
        .unwrap()
        .limits
        .as_ref()
        .unwrap();
    assert_eq!(limits["memory"].0, "1Gi");
    let environment = container.env.as_ref().unwrap();
    assert_eq!(environment[1].value.as_deref(), Some("192.0.2.10"));
    assert_eq!(environment[2].value.as_deref(), Some("6443"));
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
fn without_an_address_of_the_api_server_it_is_refused_and_says_what_to_set() {
    let said = rendered(&[]).unwrap_err();
    assert!(
        said.contains(HOST) && said.contains("existingConfigMap"),
        "{said}"
    );
}

#[test]
fn a_changed_configuration_changes_the_pods() {
    let template = |cidr: &str| {
        let chart = objects(&[(HOST, json!("h")), ("config.clusterCIDR", json!(cidr))]);
        chart.one::<DaemonSet>().spec.unwrap().template
    };
    assert_ne!(template("10.0.0.0/8"), template("10.1.0.0/16"));
}

#[test]
fn a_service_monitor_finds_the_metrics() {
    let enabled = [
        (HOST, json!("h")),
        ("monitoring.serviceMonitor.enabled", json!(true)),
    ];
    let (manifests, notes) = rendered(&enabled).unwrap();
    let warning = "metricsBindAddress";
    assert!(notes.contains(warning), "{notes}");
    let (kubernetes, others): (Vec<_>, Vec<_>) = documents(&manifests)
        .into_iter()
        .partition(|object| object["kind"] != "ServiceMonitor");
    let objects = kubernetes.iter().map(|object| format!("---\n{object}\n"));
    let objects = Objects::read(&objects.collect::<String>());
    let service = objects.one::<Service>();
    let monitor = &others[0];
    let spec = service.spec.unwrap();
    let port = &spec.ports.unwrap()[0];
    assert_eq!(port.port, i32::from(kube_dnat::config::METRICS_PORT));
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], json!(port.name));
    let labels = json!(service.metadata.labels);
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], labels);
    let pods = objects
        .one::<DaemonSet>()
        .spec
        .unwrap()
        .selector
        .match_labels;
    assert_eq!(spec.selector, pods);

    let [host, enabled] = enabled;
    let reachable = ("config.metricsBindAddress", json!("0.0.0.0:10249"));
    let (_, notes) = rendered(&[host, enabled, reachable]).unwrap();
    assert!(!notes.contains(warning), "{notes}");
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
    let deployed = kustomize::base()
        .one::<DaemonSet>()
        .spec
        .unwrap()
        .template
        .spec
        .unwrap();
    assert_eq!(deployed.containers[0].image.as_ref(), Some(&image));
}
