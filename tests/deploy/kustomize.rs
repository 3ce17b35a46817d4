//! `manifests/deploy` and the monitoring component: what kubectl makes of them.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::objects::Objects;
use crate::pods::{self, Rights};
use crate::{path, rbac, tools};

/// The kustomizations that can be applied, and the rights of their Pods.
const ALL: [(&str, Rights); 4] = [
    ("base", Rights::Few),
    ("overlays/kubeadm", Rights::Few),
    ("overlays/k3s", Rights::Few),
    ("overlays/privileged", Rights::All),
];

/// What kubectl makes of a folder.
pub(crate) fn rendered(folder: &str) -> Objects {
    let folder = path(&format!("manifests/deploy/{folder}"));
    let text = tools::run("kubectl", &["kustomize", folder.to_str().unwrap()]);
    Objects::read(&text.unwrap())
}

/// The kubeadm overlay with the monitoring component, in a copy: a kustomization names folders relative to it.
fn with_monitoring() -> Objects {
    let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let manifests = path("manifests");
    let up = "../".repeat(dir.path().components().count() - 1);
    let from_here = |folder: &str| {
        let folder = manifests.join(folder);
        format!(
            "{up}{}",
            folder.display().to_string().trim_start_matches('/')
        )
    };
    let kustomization = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
         resources: [\"{}\"]\ncomponents: [\"{}\"]\n",
        from_here("deploy/overlays/kubeadm"),
        from_here("monitoring"),
    );
    fs::write(dir.path().join("kustomization.yaml"), kustomization).unwrap();
    let text = tools::run("kubectl", &["kustomize", dir.path().to_str().unwrap()]);
    Objects::read(&text.unwrap())
}

#[test]
fn what_kubectl_renders_fits_the_program() {
    for (folder, rights) in ALL {
        let objects = rendered(folder);
        pods::check(&objects, rights);
        rbac::check(&objects, "kube-system");
    }
}

#[test]
fn what_kubectl_renders_is_valid() {
    let mut renderings: Vec<_> = ALL.iter().map(|(folder, _)| rendered(folder)).collect();
    renderings.push(with_monitoring());
    tools::validate(&renderings).unwrap();
}

#[test]
fn the_monitoring_component_adds_what_the_chart_adds() {
    let objects = with_monitoring();
    for kind in ["PodMonitor", "PrometheusRule"] {
        let ours: Vec<_> = objects.of_kind(kind).collect();
        let charts = crate::chart::monitoring();
        let charts: Vec<_> = charts.of_kind(kind).collect();
        assert_eq!((ours.len(), charts.len()), (1, 1), "{kind}");
        assert_eq!(ours[0]["spec"], charts[0]["spec"], "{kind}");
    }
    let dashboard = |objects: &Objects| -> Value {
        let maps: Vec<_> = objects.of_kind("ConfigMap").collect();
        let map = maps
            .iter()
            .find(|map| map["metadata"]["name"] == "kube-dnat-dashboard");
        let map = map.expect("a dashboard");
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        serde_json::from_str(map["data"]["kube-dnat.json"].as_str().unwrap()).unwrap()
    };
    assert_eq!(dashboard(&objects), dashboard(&crate::chart::monitoring()));
}
