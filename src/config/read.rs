//! Reads the file that `--config` names, and parses it like kube-proxy's lenient decoder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::document::{into_json, text_of};
use super::schema::{API_VERSION, KIND, VModule};
use super::{KubeProxyConfiguration, LenientFields};
use crate::yaml::Yaml;

/// The maximum size of a file: the size limit of a Kubernetes object, and so of a file in a
/// `ConfigMap`.
const MAX_SIZE: u64 = 1024 * 1024;

/// The reason why a file cannot be used as the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path names a directory, or a pipe, which could block.
    #[error("cannot read {}: it is not a regular file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than a `ConfigMap` can be.
    #[error("cannot read {}: it is larger than 1 MiB", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is neither YAML nor JSON.
    #[error("cannot parse {}: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The cause, with line and column.
        reason: String,
    },
    /// The file contains another kind of object.
    #[error("cannot use {}: {reason}", .path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The found and the expected kind.
        reason: String,
    },
    /// The value of a field has the wrong type.
    #[error("cannot use {}: {field}: {reason}", .path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The path of the field.
        field: String,
        /// The cause.
        reason: String,
    },
}

/// Reads a file as text.
pub(super) fn text(path: &Path) -> Result<String, ReadError> {
    let failed = |source| ReadError::Read {
        path: path.to_owned(),
        source,
    };
    // Checked before the file is opened, because opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        let path = path.to_owned();
        return Err(ReadError::NotAFile { path });
    }
    let mut text = String::new();
    let mut file = File::open(path).map_err(failed)?.take(MAX_SIZE + 1);
    let size = file.read_to_string(&mut text).map_err(failed)?;
    if size as u64 > MAX_SIZE {
        let path = path.to_owned();
        return Err(ReadError::TooLarge { path });
    }
    Ok(text)
}

/// Parses a configuration, without defaults. Also returns the fields that only the lenient decoder
/// accepts. Errors name `path` as the file.
///
/// # Errors
/// If the text is not a `KubeProxyConfiguration`.
pub fn parse(
    text: &str,
    path: &Path,
) -> Result<(KubeProxyConfiguration, LenientFields), ReadError> {
    let syntax = |error: yaml_serde::Error| ReadError::Syntax {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // kube-proxy reads the first document of several.
    let mut documents = yaml_serde::Deserializer::from_str(text);
    let document = documents.next().map(Yaml::strict).transpose();
    let document = document.map_err(syntax)?.unwrap_or(Yaml::Null);
    check_kind(&document).map_err(|reason| ReadError::Kind {
        path: path.to_owned(),
        reason,
    })?;
    let mut lenience = LenientFields::default();
    let mut fields = KubeProxyConfiguration::defaulted();
    // The fields of an element of this list, which is empty by default.
    fields.logging.vmodule.push(VModule::default());
    let json = into_json(document, &to_json(&fields), "", &mut lenience);
    let config = serde_path_to_error::deserialize(json).map_err(|error| ReadError::Field {
        path: path.to_owned(),
        field: error.path().to_string(),
        reason: error.inner().to_string(),
    })?;
    Ok((config, lenience))
}

/// All fields with their defaults, as JSON.
pub(super) fn default_fields() -> Value {
    to_json(&KubeProxyConfiguration::defaulted())
}

/// The configuration as JSON.
#[expect(
    clippy::expect_used,
    reason = "the keys of its maps are strings, and none of its fields has a serializer that fails"
)]
pub(super) fn to_json(config: &KubeProxyConfiguration) -> Value {
    serde_json::to_value(config).expect("a configuration is JSON")
}

/// Checks the `apiVersion` and the `kind` of a document.
fn check_kind(document: &Yaml<'_>) -> Result<(), String> {
    if matches!(document, Yaml::Null) {
        return Err("it is empty".to_owned());
    }
    match (text_of(document, "apiVersion"), text_of(document, "kind")) {
        (Some(API_VERSION), Some(KIND)) => Ok(()),
        (Some("v1"), Some("ConfigMap")) => Err(format!(
            "it is a ConfigMap: extract the {KIND} from its data"
        )),
        (version, kind) => Err(format!(
            "it has apiVersion \"{}\" and kind \"{}\", not {API_VERSION} and {KIND}",
            version.unwrap_or_default(),
            kind.unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<(KubeProxyConfiguration, LenientFields), String> {
        let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{body}");
        super::parse(&text, Path::new("config.conf")).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_and_duplicate_fields_are_reported_and_ignored() {
        let (config, lenience) = parse(
            "mode: ipvs\nmetadata: {name: config}\nudpIdleTimeout: 250ms\nmode: nftables\n\
             conntrack: {max: 1, min: 5, min: 6, min: 7}\nclusterCidr: 10.0.0.0/8\n\
             featureGates: {A: true, B: false, A: false}\n\
             logging: {vmodule: [{filePattern: a, level: 3}]}\n",
        )
        .unwrap();
        assert_eq!(
            lenience.unknown,
            [
                "metadata",
                "udpIdleTimeout",
                "conntrack.max",
                "clusterCidr (not clusterCIDR)",
                "logging.vmodule[0].level"
            ]
        );
        assert_eq!(
            lenience.duplicate,
            ["mode", "conntrack.min", "featureGates.A"]
        );
        assert_eq!(config.mode, "nftables");
        assert_eq!(config.conntrack.min, Some(7));
        assert_eq!(config.feature_gates.get("A"), Some(&false));
        assert!(config.cluster_cidr.is_empty());
    }

    #[test]
    fn null_is_unset_and_yaml_1_1_booleans_are_accepted() {
        let (config, lenience) = parse(
            "nodePortAddresses: null\noomScoreAdj: null\nmode: ~\nconntrack:\nenableProfiling: yes\n\
             ipvs: {strictARP: on}\nbindAddressHardFail: Off\nlogging: {flushFrequency: 5000000000}",
        )
        .unwrap();
        assert!(lenience.is_strict(), "{lenience:?}");
        assert!(config.enable_profiling && config.ipvs.strict_arp);
        assert!(!config.bind_address_hard_fail);
        assert_eq!(config.oom_score_adj, None);
        assert_eq!(config.logging.flush_frequency.to_string(), "5s");
    }

    #[test]
    fn the_first_of_several_documents_is_read() {
        let text = format!("---\nkind: {KIND}\napiVersion: {API_VERSION}\nmode: ipvs\n---\n[");
        let (config, _) = super::parse(&text, Path::new("config.conf")).unwrap();
        assert_eq!(config.mode, "ipvs");
    }

    #[test]
    fn json_is_read_too() {
        let text = format!(
            r#"{{"apiVersion": "{API_VERSION}", "kind": "{KIND}", "conntrack": {{"min": 7}}}}"#
        );
        let (config, lenience) = super::parse(&text, Path::new("config.json")).unwrap();
        assert_eq!(config.conntrack.min, Some(7));
        assert!(lenience.is_strict());
    }

    #[test]
    fn a_value_of_the_wrong_type_is_rejected_with_its_path() {
        let cases = [
            ("mode: 5", "mode: "),
            ("conntrack: 5", "conntrack: "),
            ("conntrack: {min: many}", "conntrack.min: "),
            ("conntrack: {min: 3000000000}", "conntrack.min: "),
            ("conntrack: {min: 1.5}", "conntrack.min: "),
            ("iptables: {syncPeriod: 30}", "iptables.syncPeriod: "),
            (
                "iptables: {syncPeriod: 30}",
                "iptables.syncPeriod: 30 is not a duration",
            ),
            (
                "nftables: {minSyncPeriod: soon}",
                "nftables.minSyncPeriod: \"soon\" is not a duration such as 30s or 1h30m",
            ),
            ("featureGates: {A: 1}", "featureGates.A: "),
            ("enableProfiling: maybe", "enableProfiling: "),
            (
                "nodePortAddresses: primary",
                "nodePortAddresses: it must be a list: [\"primary\"]",
            ),
            ("nodePortAddresses: [{}]", "nodePortAddresses[0]: "),
            (
                "logging: {vmodule: [{filePattern: a, verbosity: -1}]}",
                "logging.vmodule[0].verbosity: ",
            ),
        ];
        for (body, expected) in cases {
            let error = parse(body).unwrap_err();
            let expected = format!("cannot use config.conf: {expected}");
            assert!(error.starts_with(&expected), "{body}: {error}");
        }
    }

    #[test]
    fn other_documents_are_rejected_with_their_kind() {
        let cases = [
            ("", "it is empty"),
            ("just text", "apiVersion \"\" and kind \"\""),
            ("kind: KubeProxyConfiguration", "apiVersion \"\""),
            (
                "apiVersion: kubeproxy.config.k8s.io/v1alpha2\nkind: KubeProxyConfiguration",
                "v1alpha2",
            ),
            (
                "apiVersion: v1\nkind: ConfigMap\ndata: {}",
                "it is a ConfigMap",
            ),
            ("a: [", "cannot parse config.conf: "),
            ("a: b: c", "line 1 column 5"),
        ];
        for (text, expected) in cases {
            let error = super::parse(text, Path::new("config.conf")).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(expected), "{text}: {message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}
