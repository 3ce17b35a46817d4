//! Writes a configuration in kube-proxy's format (`--write-config-to`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::KubeProxyConfiguration;
use super::read::to_json;

/// The reason why a configuration cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The configuration cannot be converted to YAML.
    #[error("cannot write the configuration as YAML: {0}")]
    Yaml(#[from] yaml_serde::Error),
}

/// Writes a configuration to a file.
///
/// # Errors
/// If the file cannot be written.
pub fn write(config: &KubeProxyConfiguration, path: &Path) -> Result<(), WriteError> {
    let text = to_yaml(config)?;
    fs::write(path, text).map_err(|source| WriteError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Formats a configuration as YAML, with the fields sorted by name.
///
/// # Errors
/// If YAML cannot represent a value.
pub fn to_yaml(config: &KubeProxyConfiguration) -> Result<String, WriteError> {
    let mut value = to_json(config);
    omit_if_empty(&mut value, &["featureGates"]);
    omit_if_empty(&mut value, &["windowsRunAsService"]);
    omit_if_empty(&mut value, &["logging", "vmodule"]);
    // kube-proxy before 1.37 does not have this field.
    omit_if_empty(&mut value, &["iptables", "snatNodeInternalIP"]);
    for format in ["text", "json"] {
        omit_if_empty(&mut value, &["logging", "options", format, "splitStream"]);
    }
    // Go writes null for a list that was never set.
    for (section, list) in [(None, "nodePortAddresses"), (Some("ipvs"), "excludeCIDRs")] {
        let object = match section {
            Some(section) => value.get_mut(section),
            None => Some(&mut value),
        };
        if let Some(list) = object.and_then(|object| object.get_mut(list))
            && list.as_array().is_some_and(Vec::is_empty)
        {
            *list = Value::Null;
        }
    }
    whole_numbers(&mut value);
    Ok(yaml_serde::to_string(&value)?)
}

/// Removes a field that is empty or false, like Go's `omitempty`.
fn omit_if_empty(value: &mut Value, path: &[&str]) {
    let [field, rest @ ..] = path else { return };
    let Some(object) = value.as_object_mut() else {
        return;
    };
    if !rest.is_empty() {
        if let Some(value) = object.get_mut(*field) {
            omit_if_empty(value, rest);
        }
        return;
    }
    let is_empty = object.get(*field).is_some_and(|value| match value {
        Value::Bool(set) => !set,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null | Value::Number(_) | Value::String(_) => false,
    });
    if is_empty {
        object.remove(*field);
    }
}

/// Writes whole numbers without a fraction: `qps: 5`, not `5.0`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "only whole numbers that fit into 32 bits are converted"
)]
fn whole_numbers(value: &mut Value) {
    if let Some(qps) = value.pointer_mut("/clientConnection/qps")
        && let Some(number) = qps.as_f64()
        && number.fract() == 0.0
        && number.abs() < f64::from(i32::MAX)
    {
        *qps = (number as i64).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LenientFields, parse};

    #[test]
    fn a_written_configuration_is_read_back() {
        let mut config = KubeProxyConfiguration::defaulted();
        config.mode = "ipvs".to_owned();
        config.client_connection.qps = 2.5;
        config.feature_gates.insert("A".to_owned(), true);
        config.node_port_addresses.push("primary".to_owned());
        for config in [KubeProxyConfiguration::defaulted(), config] {
            let text = to_yaml(&config).unwrap();
            let (mut read, lenience) = parse(&text, Path::new("written")).unwrap();
            assert_eq!(lenience, LenientFields::default());
            read.set_defaults();
            assert_eq!(read, config);
        }
    }
}
