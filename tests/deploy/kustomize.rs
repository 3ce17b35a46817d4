//! `manifests/deploy`: each file by itself, and what kubectl makes of them.

use std::collections::BTreeSet;

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

impl Kustomization {
    /// Folders of other kustomizations.
    fn others(&self) -> impl Iterator<Item = &str> {
        let resources = self.resources.iter().filter(|name| name.starts_with("../"));
        resources.chain(&self.components).map(String::as_str)
    }

    /// Files beside it.
    fn files(&self) -> impl Iterator<Item = &str> {
        let resources = self
            .resources
            .iter()
            .filter(|name| !name.starts_with("../"));
        let patches = self.patches.iter().map(|patch| &patch.path);
        let generators = self.config_map_generator.iter();
        let generated = generators.flat_map(|generator| &generator.files);
        resources
            .chain(patches)
            .chain(generated)
            .map(String::as_str)
    }

    fn check(&self, folder: &str) {
        for generator in &self.config_map_generator {
            let object = (generator.name.as_str(), generator.namespace.as_str());
            assert_eq!(object, ("kube-dnat", "kube-system"), "{folder}");
            let first = folder.ends_with("/base");
            let behavior = if first { "" } else { "merge" };
            assert_eq!(generator.behavior, behavior, "{folder}");
        }
    }
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
        let is_object = match name.rsplit_once('.') {
            Some((stem, "yaml")) => !stem.ends_with("/kustomization"),
            _ => false,
        };
        if !is_object {
            continue;
        }
        for mut object in documents(&text(&name)) {
            without_directives(&mut object);
            objects::check(&object);
            read += 1;
        }
    }
    assert!(read >= 8, "only {read} are there");
}

#[test]
fn every_kustomization_names_the_files_beside_it_and_no_others() {
    let mut folders = 0;
    for name in files(DEPLOY) {
        let Some(folder) = name.strip_suffix("/kustomization.yaml") else {
            continue;
        };
        let kustomization: Kustomization = yaml_serde::from_str(&text(&name)).unwrap();
        let version = match kustomization.kind.as_str() {
            "Kustomization" => "kustomize.config.k8s.io/v1beta1",
            "Component" => "kustomize.config.k8s.io/v1alpha1",
            other => panic!("{name}: {other}"),
        };
        assert_eq!(kustomization.api_version, version, "{name}");
        for other in kustomization.others() {
            let other = path(folder).join(other).join("kustomization.yaml");
            assert!(other.is_file(), "{name}: {}", other.display());
        }
        let beside = kustomization.files().chain(["kustomization.yaml"]);
        let beside: BTreeSet<_> = beside.map(|file| format!("{folder}/{file}")).collect();
        let there: BTreeSet<_> = files(folder).into_iter().collect();
        assert_eq!(there, beside);
        kustomization.check(folder);
        folders += 1;
    }
    let all = files(DEPLOY);
    let folder_of = |name: &String| name.rsplit_once('/').unwrap().0.to_owned();
    let all: BTreeSet<_> = all.iter().map(folder_of).collect();
    assert_eq!(folders, all.len(), "{all:?}");
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
