//! `manifests/deploy`: each file by itself, and what kubectl makes of them.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::objects::{self, Objects, documents};
use crate::pods::{self, Rights};
use crate::{files, path, printed_by, rbac, text};

const DEPLOY: &str = "manifests/deploy";

/// As much of a kustomization as is used here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    components: Vec<String>,
    #[serde(default)]
    patches: Vec<Patch>,
    #[serde(default)]
    config_map_generator: Vec<Generator>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    namespace: String,
    #[serde(default)]
    behavior: String,
    files: Vec<String>,
}

/// The object without what is said to kustomize alone.
fn without_directives(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| key != "$patch" && !value.is_null());
            fields.values_mut().for_each(without_directives);
        }
        Value::Array(items) => items.iter_mut().for_each(without_directives),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The base as kubectl renders it, but for the hash in the name of the `ConfigMap`.
pub(crate) fn base() -> Objects {
    let config = text(&format!("{DEPLOY}/base/config.conf"));
    let config_map = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kube-dnat", "namespace": "kube-system"},
        "data": {"config.conf": config},
    });
    let files = ["daemonset.yaml", "rbac.yaml"].map(|name| text(&format!("{DEPLOY}/base/{name}")));
    Objects::read(&format!("{}\n---\n{config_map}", files.join("\n---\n")))
}

/// What kubectl makes of an overlay, where there is a kubectl.
pub(crate) fn rendered(overlay: &str) -> Option<Objects> {
    let folder = path(&format!("{DEPLOY}/overlays/{overlay}"));
    let rendered = printed_by("kubectl", &["kustomize", folder.to_str().unwrap()]);
    rendered.map(|text| Objects::read(&text))
}

#[test]
fn every_object_and_patch_has_only_fields_that_exist() {
    let mut read = 0;
    for name in files(DEPLOY) {
        if !name.ends_with(".yaml") || name.ends_with("/kustomization.yaml") {
            continue;
        }
        for mut object in documents(&text(&name)) {
            without_directives(&mut object);
            objects::check(&object);
            read += 1;
        }
    }
    assert!(read >= 8, "{read}");
}

#[test]
fn every_kustomization_names_the_files_beside_it_and_no_others() {
    for name in files(DEPLOY) {
        if name.ends_with("/kustomization.yaml") {
            continue;
        }
        let folder = Path::new(&name).parent().unwrap().to_str().unwrap();
        let beside = format!("{folder}/kustomization.yaml");
        let kustomization: Kustomization = yaml_serde::from_str(&text(&beside)).unwrap();
        let api = kustomization.api_version.rsplit_once('/').unwrap().1;
        let expected = match kustomization.kind.as_str() {
            "Kustomization" => "v1beta1",
            "Component" => "v1alpha1",
            other => panic!("{other}"),
        };
        assert_eq!(api, expected, "{beside}");
        let mut named = BTreeSet::from([beside.clone()]);
        for other in kustomization
            .resources
            .iter()
            .chain(&kustomization.components)
        {
            if other.starts_with("../") {
                assert!(
                    path(folder)
                        .join(other)
                        .join("kustomization.yaml")
                        .is_file(),
                    "{other}"
                );
            } else {
                named.insert(format!("{folder}/{other}"));
            }
        }
        named.extend(
            kustomization
                .patches
                .iter()
                .map(|patch| format!("{folder}/{}", patch.path)),
        );
        for generator in kustomization.config_map_generator {
            let Generator {
                name,
                namespace,
                behavior,
                files,
            } = generator;
            assert_eq!(
                (name.as_str(), namespace.as_str()),
                ("kube-dnat", "kube-system")
            );
            let expected = if folder.ends_with("/base") {
                ""
            } else {
                "merge"
            };
            assert_eq!(behavior, expected, "{beside}");
            named.extend(files.iter().map(|file| format!("{folder}/{file}")));
        }
        let there: BTreeSet<_> = files(folder).into_iter().collect();
        assert_eq!(there, named);
    }
}

#[test]
fn the_base_fits_the_program() {
    let base = base();
    pods::check(&base, Rights::Few);
    rbac::check(&base, "kube-system");
}

#[test]
fn what_kubectl_renders_fits_the_program() {
    for (overlay, rights) in [
        ("../base", Rights::Few),
        ("kubeadm", Rights::Few),
        ("k3s", Rights::Few),
        ("privileged", Rights::All),
    ] {
        if let Some(objects) = rendered(overlay) {
            pods::check(&objects, rights);
            rbac::check(&objects, "kube-system");
        }
    }
}
