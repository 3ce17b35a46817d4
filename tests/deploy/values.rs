//! The chart's values: their schema, `values.yaml` and the templates know the same names.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::chart::{CHART, yaml};
use crate::{files, template, text};

/// The paths of values, as deep as the schema knows their names.
fn named(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    match schema["properties"].as_object() {
        Some(properties) => {
            assert_eq!(schema["additionalProperties"], json!(false), "{path}");
            for (name, schema) in properties {
                named(schema, &format!("{path}.{name}"), into);
            }
        }
        None => assert!(into.insert(path.to_owned())),
    }
}

#[test]
fn values_schema_and_templates_know_the_same_names() {
    let schema: Value =
        serde_json::from_str(&text(&format!("{CHART}/values.schema.json"))).unwrap();
    let mut known = BTreeSet::new();
    named(&schema, "", &mut known);
    // Helm's own, of parent charts.
    assert!(known.remove(".global"));
    let values = yaml("values.yaml");
    for path in &known {
        let pointer = path.replace('.', "/");
        let value = values
            .pointer(&pointer)
            .unwrap_or_else(|| panic!("no value {path}"));
        let of_it = schema
            .pointer(&pointer.replace('/', "/properties/"))
            .unwrap();
        let is_type = match of_it["type"].as_str() {
            Some("string") => value.is_string(),
            Some("integer") => value.is_i64(),
            Some("boolean") => value.is_boolean(),
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            _ => of_it["enum"].is_array() || of_it["anyOf"].is_array(),
        };
        assert!(is_type, "{path}: {value}");
    }
    let mut there = BTreeSet::new();
    leaves(&values, "", &known, &mut there);
    assert_eq!(there, known, "values.yaml and values.schema.json");

    let mut read = BTreeSet::new();
    for name in files(&format!("{CHART}/templates")) {
        for path in template::paths(&text(&name)) {
            if let Some(path) = path.strip_prefix(".Values") {
                let mut of_it = known
                    .iter()
                    .filter(|known| path == *known || path.starts_with(&format!("{known}.")));
                let known = of_it.next().unwrap_or_else(|| panic!("{name}: {path}"));
                read.insert(known.clone());
            }
        }
    }
    assert_eq!(read, known, "the templates and values.schema.json");
}

/// The paths of values down to those that the schema has a type for.
fn leaves(values: &Value, path: &str, known: &BTreeSet<String>, into: &mut BTreeSet<String>) {
    match values.as_object() {
        Some(fields) if !known.contains(path) => {
            for (name, value) in fields {
                leaves(value, &format!("{path}.{name}"), known, into);
            }
        }
        _ => assert!(into.insert(path.to_owned())),
    }
}
