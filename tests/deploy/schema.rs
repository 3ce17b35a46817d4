//! The schema of the chart's values knows what `values.yaml` and the program know.

use std::collections::BTreeSet;

use kube_dnat::config::KubeProxyConfiguration;
use serde_json::Value;

use crate::chart::{CHART, yaml};
use crate::text;

fn schema() -> Value {
    serde_json::from_str(&text(&format!("{CHART}/values.schema.json"))).unwrap()
}

/// Calls back with the path and the schema of each value. The fields of `config` are not the chart's own.
fn visit(schema: &Value, path: &str, see: &mut impl FnMut(&str, &Value)) {
    match schema["properties"].as_object() {
        Some(properties) if path != "config" => {
            assert_eq!(schema["additionalProperties"], false, "{path}");
            for (name, schema) in properties {
                let dot = if path.is_empty() { "" } else { "." };
                visit(schema, &format!("{path}{dot}{name}"), see);
            }
        }
        // Helm's own, of parent charts.
        _ if path == "global" => {}
        _ => see(path, schema),
    }
}

/// The paths of all values.
pub(crate) fn leaves() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    visit(&schema(), "", &mut |path, _| {
        paths.insert(path.to_owned());
    });
    paths
}

/// The paths of values that can be null.
pub(crate) fn nullable() -> Vec<String> {
    let mut paths = Vec::new();
    visit(&schema(), "", &mut |path, schema| {
        let types = schema["type"].as_array();
        if types.is_some_and(|types| types.contains(&"null".into())) {
            paths.push(path.to_owned());
        }
    });
    paths
}

#[test]
fn every_value_of_the_schema_has_a_default() {
    let values = yaml("values.yaml");
    for path in leaves() {
        let pointer = format!("/{}", path.replace('.', "/"));
        assert!(values.pointer(&pointer).is_some(), "{path}");
    }
}

/// The paths of the fields of an object.
fn fields(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    into.insert(path.to_owned());
    for (name, value) in value.as_object().into_iter().flatten() {
        fields(value, &format!("{path}.{name}"), into);
    }
}

/// The paths of the fields of a schema.
fn properties(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    into.insert(path.to_owned());
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        properties(schema, &format!("{path}.{name}"), into);
    }
}

#[test]
fn the_schema_knows_all_fields_of_the_configuration() {
    let config = serde_json::to_value(KubeProxyConfiguration::defaulted()).unwrap();
    let (mut known, mut ours) = (BTreeSet::new(), BTreeSet::new());
    fields(&config, "", &mut known);
    properties(&schema()["properties"]["config"], "", &mut ours);
    // The chart writes these two itself.
    assert!(known.remove(".apiVersion") && known.remove(".kind"));
    // They are absent unless they are set.
    known.extend([".featureGates", ".logging.vmodule"].map(str::to_owned));
    let differences: Vec<_> = ours.symmetric_difference(&known).collect();
    assert!(differences.is_empty(), "{differences:?}");
}
