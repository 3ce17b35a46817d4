//! Writes a configuration as kube-proxy does (`--write-config-to`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::KubeProxyConfiguration;

/// Why a configuration is not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no YAML for it.
    #[error("cannot write the configuration as YAML: {0}")]
    Yaml(#[from] yaml_serde::Error),
    /// There is no JSON for it.
    #[error("cannot write the configuration as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Writes it to a file.
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

/// The same as text: the fields in the order of their names.
///
/// # Errors
/// If a number in it is infinite or none.
pub fn to_yaml(config: &KubeProxyConfiguration) -> Result<String, WriteError> {
    let mut value = serde_json::to_value(config)?;
    leave_out(&mut value, &["featureGates"]);
    leave_out(&mut value, &["windowsRunAsService"]);
    leave_out(&mut value, &["logging", "vmodule"]);
    // kube-proxy before 1.37 does not know it.
    leave_out(&mut value, &["iptables", "snatNodeInternalIP"]);
    for format in ["text", "json"] {
        leave_out(&mut value, &["logging", "options", format, "splitStream"]);
    }
    // Go writes a list that was never set so.
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

/// Leaves out a field that is empty or false, as `omitempty` does.
fn leave_out(value: &mut Value, path: &[&str]) {
    let [field, rest @ ..] = path else { return };
    let Some(object) = value.as_object_mut() else {
        return;
    };
    if !rest.is_empty() {
        if let Some(value) = object.get_mut(*field) {
            leave_out(value, rest);
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

/// `qps: 5`, not `5.0`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "only numbers that are whole and small are converted"
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
    fn what_is_written_is_read_back() {
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
