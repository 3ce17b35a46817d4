//! The chart's values: each has an effect, and what cannot work is refused with a sentence.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::chart::{HOST, Rendering, render};
use crate::schema;

/// A value that differs from the default for every leaf of the schema.
fn others() -> Vec<(&'static str, Value)> {
    [of_pods(), of_monitoring()].concat()
}

/// The same of the values for the Pods.
fn of_pods() -> Vec<(&'static str, Value)> {
    let labels = || json!({"team": "net"});
    let requests = json!({"requests": {"cpu": "7m", "memory": "77Mi"}});
    vec![
        (HOST, json!("192.0.2.10")),
        ("k8sServicePort", json!(443)),
        ("kubeconfigSecret", json!("my-kubeconfig")),
        ("config", json!({"clusterCIDR": "10.1.0.0/16"})),
        ("existingConfigMap", json!("kube-proxy")),
        ("takeover", json!(true)),
        ("extraArgs", json!(["-v=4"])),
        ("extraEnv", json!([{"name": "RUST_LOG", "value": "debug"}])),
        (
            "extraVolumes",
            json!([{"name": "etc", "hostPath": {"path": "/etc"}}]),
        ),
        (
            "extraVolumeMounts",
            json!([{"name": "etc", "mountPath": "/host"}]),
        ),
        ("privileged", json!(true)),
        ("image.repository", json!("registry.example/kube-dnat")),
        ("image.tag", json!("9")),
        ("image.digest", json!(format!("sha256:{}", "0".repeat(64)))),
        ("image.pullPolicy", json!("Always")),
        ("imagePullSecrets", json!([{"name": "my-registry"}])),
        ("updateStrategy.type", json!("OnDelete")),
        ("updateStrategy.rollingUpdate.maxUnavailable", json!(2)),
        ("resources", requests.clone()),
        ("initResources", requests),
        ("priorityClassName", json!("system-cluster-critical")),
        ("nodeSelector", json!({"pool": "a"})),
        ("tolerations", json!([{"key": "a", "operator": "Exists"}])),
        (
            "affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}}),
        ),
        ("podAnnotations", json!({"example.com/a": "b"})),
        ("podLabels", labels()),
        ("commonLabels", labels()),
        ("serviceAccount.annotations", json!({"example.com/a": "b"})),
    ]
}

/// The same of the values for monitoring.
fn of_monitoring() -> Vec<(&'static str, Value)> {
    let labels = || json!({"team": "net"});
    let keep = json!([{"action": "labeldrop", "regex": "container"}]);
    vec![
        ("monitoring.port", json!(9999)),
        ("monitoring.job", json!("kube-proxy")),
        ("monitoring.serviceMonitor.enabled", json!(false)),
        ("monitoring.serviceMonitor.interval", json!("15s")),
        ("monitoring.serviceMonitor.labels", labels()),
        ("monitoring.serviceMonitor.relabelings", keep.clone()),
        ("monitoring.podMonitor.enabled", json!(false)),
        ("monitoring.podMonitor.interval", json!("15s")),
        ("monitoring.podMonitor.labels", labels()),
        ("monitoring.podMonitor.relabelings", keep),
        ("monitoring.prometheusRule.enabled", json!(false)),
        ("monitoring.prometheusRule.labels", labels()),
        ("monitoring.prometheusRule.runbookPrefix", json!("/")),
        ("monitoring.dashboard.enabled", json!(false)),
        ("monitoring.dashboard.labels", labels()),
        (
            "monitoring.dashboard.annotations",
            json!({"grafana_folder": "Network"}),
        ),
    ]
}

/// Everything that can be enabled.
fn enabled() -> Vec<(&'static str, Value)> {
    vec![
        (HOST, json!("h")),
        ("monitoring.serviceMonitor.enabled", json!(true)),
        ("monitoring.podMonitor.enabled", json!(true)),
        ("monitoring.prometheusRule.enabled", json!(true)),
        ("monitoring.dashboard.enabled", json!(true)),
    ]
}

#[test]
fn every_value_has_an_effect_and_renders_valid_objects() {
    let listed: BTreeSet<_> = others()
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .collect();
    assert_eq!(listed, schema::leaves());
    let usual = render(&enabled()).unwrap();
    let mut renderings = vec![usual.objects];
    for (path, value) in others() {
        let mut set = enabled();
        set.push((path, value));
        let other = render(&set).unwrap();
        assert_ne!(other.manifest, usual.manifest, "{path} has no effect");
        renderings.push(other.objects);
    }
    crate::tools::validate(&renderings).unwrap();
}

#[test]
fn the_values_of_day_one_together_reach_the_pod() {
    let without = [
        "existingConfigMap",
        "kubeconfigSecret",
        "privileged",
        "image.digest",
    ];
    let set = others();
    let set: Vec<_> = set
        .into_iter()
        .filter(|(path, _)| !without.contains(path))
        .collect();
    let objects = render(&set).unwrap().objects;
    let daemon_set = objects.of_kind("DaemonSet").next().unwrap();
    let template = &daemon_set["spec"]["template"];
    let labels = &template["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/name"], "kube-dnat", "{labels}");
    assert_eq!(labels["team"], "net", "{labels}");
    assert!(template["metadata"]["annotations"]["checksum/config"].is_string());
    let pod = &template["spec"];
    assert_eq!(pod["imagePullSecrets"][0]["name"], "my-registry");
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example/kube-dnat:9");
    assert_eq!(container["args"][2], "--takeover");
    assert_eq!(container["args"][3], "-v=4");
    assert_eq!(container["env"][1]["value"], "192.0.2.10");
    assert_eq!(container["env"][2]["value"], "443");
    assert_eq!(
        pod["initContainers"][0]["resources"]["requests"]["cpu"],
        "7m"
    );
    crate::tools::validate(&[objects]).unwrap();
}

#[test]
fn a_label_cannot_take_the_pods_from_the_daemonset() {
    let name = json!({"app.kubernetes.io/name": "other"});
    for path in ["podLabels", "commonLabels"] {
        let rendering = render(&[(HOST, json!("h")), (path, name.clone())]).unwrap();
        let daemon_set = rendering.objects.of_kind("DaemonSet").next().unwrap();
        let labels = &daemon_set["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "kube-dnat", "{path}");
    }
}

#[test]
fn what_cannot_work_is_refused_with_its_name() {
    for (path, value) in [
        ("updateStrategy.rollingUpdate.maxUnavailable", json!("0%")),
        ("updateStrategy.rollingUpdate.maxUnavailable", json!("00%")),
        ("updateStrategy.rollingUpdate.maxUnavailable", json!(0)),
        ("updateStrategy.rollingUpdate.maxSurge", json!(1)),
        ("config.mode", json!("nftable")),
        ("config.detectLocalMode", json!("clusterCIDR")),
        ("config.clusterCidr", json!("10.0.0.0/8")),
        ("config.kind", json!("KubeProxyConfiguration")),
        ("config.nftables.syncPeriod", json!(30)),
        ("config.conntrack.minimum", json!(1)),
        ("config.healthzBindAddress", json!("localhost:10256")),
        ("image.digest", json!("latest")),
        ("extraArgs", json!(["v=4"])),
        ("monitoring.port", json!(70000)),
        ("monitoring.serviceMonitor.interval", json!("often")),
        ("imagePullSecret", json!("my-registry")),
    ] {
        let said = render(&[(HOST, json!("h")), (path, value)]).unwrap_err();
        let last = path.rsplit('.').next().unwrap();
        assert!(
            said.contains("values don't meet the specifications"),
            "{path}: {said}"
        );
        assert!(said.contains(last), "{path}: {said}");
    }
}

#[test]
fn values_that_exclude_each_other_are_refused_with_a_sentence() {
    let existing = ("existingConfigMap", json!("kube-proxy"));
    let secret = ("kubeconfigSecret", json!("s"));
    for (set, sentence) in [
        (
            vec![],
            "set k8sServiceHost to the address of the API server",
        ),
        (
            vec![
                existing.clone(),
                ("config.clusterCIDR", json!("10.1.0.0/16")),
            ],
            "config.clusterCIDR has no effect together with existingConfigMap",
        ),
        (
            vec![existing, secret.clone()],
            "kubeconfigSecret has no effect",
        ),
        (
            vec![
                secret,
                ("config.clientConnection.kubeconfig", json!("/etc/x")),
            ],
            "set either kubeconfigSecret or config.clientConnection.kubeconfig",
        ),
    ] {
        let said = render(&set).unwrap_err();
        assert!(said.contains(sentence), "{set:?}: {said}");
    }
}

#[test]
fn a_kubeconfig_replaces_the_address_of_the_api_server() {
    let file = json!("/etc/x.conf");
    render(&[("config.clientConnection.kubeconfig", file)]).unwrap();
    let rendering = render(&[("kubeconfigSecret", json!("s"))]).unwrap();
    let map = rendering.objects.of_kind("ConfigMap").next().unwrap();
    let config = map["data"]["config.conf"].as_str().unwrap();
    assert!(
        config.contains("kubeconfig: /etc/kube-dnat/kubeconfig"),
        "{config}"
    );
    let daemon_set = rendering.objects.of_kind("DaemonSet").next().unwrap();
    let pod = &daemon_set["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][1]["secret"]["secretName"], "s");
    let mount = &pod["containers"][0]["volumeMounts"][1];
    assert_eq!(mount["mountPath"], "/etc/kube-dnat");
    assert_eq!(mount["name"], pod["volumes"][1]["name"]);
}

#[test]
fn a_section_that_is_null_is_absent() {
    let paths = schema::nullable();
    assert!(paths.len() > 10, "{paths:?}");
    let mut set = enabled();
    set.extend(paths.iter().map(|path| (path.as_str(), Value::Null)));
    let Rendering {
        manifest, objects, ..
    } = render(&set).unwrap();
    let is_null = |line: &str| line.trim() == "null" || line.ends_with(": null");
    let null = manifest.lines().find(|line| is_null(line));
    assert_eq!(null, None, "{manifest}");
    crate::tools::validate(&[objects]).unwrap();
}
