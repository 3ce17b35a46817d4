//! Reads the file that `--config` names: strictly first, then, as kube-proxy does, leniently.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::document::{into_json, text_of};
use super::schema::{API_VERSION, KIND, VModule};
use super::{KubeProxyConfiguration, LenientFields};
use crate::yaml::Yaml;

/// The size of an object of Kubernetes is limited to this, and so is that of a file in a
/// `ConfigMap`.
const LARGEST: u64 = 1024 * 1024;

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, or a pipe, which could keep us waiting.
    #[error("cannot read {}: it is not a regular file", .path.display())]
    NotAFile {
        /// What it is not.
        path: PathBuf,
    },
    /// More than a `ConfigMap` can hold.
    #[error("cannot read {}: it is larger than 1 MiB", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is neither YAML nor JSON.
    #[error("cannot parse {}: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// With line and column.
        reason: String,
    },
    /// It is something else.
    #[error("cannot use {}: {reason}", .path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is, and what it should be.
        reason: String,
    },
    /// A field holds what it cannot hold.
    #[error("cannot use {}: {field}: {reason}", .path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The path of the field.
        field: String,
        /// Why.
        reason: String,
    },
}

/// What is in a file.
pub(super) fn text(path: &Path) -> Result<String, ReadError> {
    let failed = |source| ReadError::Read {
        path: path.to_owned(),
        source,
    };
    // Before it is opened: opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        let path = path.to_owned();
        return Err(ReadError::NotAFile { path });
    }
    let mut text = String::new();
    let mut file = File::open(path).map_err(failed)?.take(LARGEST + 1);
    let size = file.read_to_string(&mut text).map_err(failed)?;
    if size as u64 > LARGEST {
        let path = path.to_owned();
        return Err(ReadError::TooLarge { path });
    }
    Ok(text)
}

/// The configuration in a text, without defaults, and what is passed over in it; `path` is where
/// the text came from.
///
/// # Errors
/// If it is no `KubeProxyConfiguration`.
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
    let mut shape = known();
    if let Some(modules) = shape.pointer_mut("/logging/vmodule") {
        *modules = serde_json::to_value([VModule::default()]).unwrap_or_default();
    }
    let json = into_json(document, &shape, "", &mut lenience);
    let config = serde_path_to_error::deserialize(json).map_err(|error| ReadError::Field {
        path: path.to_owned(),
        field: error.path().to_string(),
        reason: error.inner().to_string(),
    })?;
    Ok((config, lenience))
}

/// Every field, each with its default.
pub(super) fn known() -> Value {
    serde_json::to_value(KubeProxyConfiguration::defaulted()).unwrap_or_default()
}

fn check_kind(document: &Yaml<'_>) -> Result<(), String> {
    match (text_of(document, "apiVersion"), text_of(document, "kind")) {
        (Some(API_VERSION), Some(KIND)) => Ok(()),
        (Some("v1"), Some("ConfigMap")) => Err(format!(
            "it is the ConfigMap, and the {KIND} is the text that it holds"
        )),
        (version, kind) => Err(format!(
            "it is of apiVersion \"{}\" and kind \"{}\", not {API_VERSION} and {KIND}",
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
    fn fields_that_do_not_exist_or_are_written_twice_are_named_and_passed_over() {
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
    fn null_is_unset_and_words_of_yaml_1_1_are_booleans() {
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
    fn of_several_documents_the_first_is_read() {
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
    fn what_a_field_cannot_hold_is_refused_by_its_path() {
        let cases = [
            ("mode: 5", "mode: "),
            ("conntrack: 5", "conntrack: "),
            ("conntrack: {min: many}", "conntrack.min: "),
            ("conntrack: {min: 3000000000}", "conntrack.min: "),
            ("conntrack: {min: 1.5}", "conntrack.min: "),
            ("iptables: {syncPeriod: 30}", "iptables.syncPeriod: "),
            (
                "iptables: {syncPeriod: 30}",
                "iptables.syncPeriod: invalid type",
            ),
            (
                "nftables: {minSyncPeriod: soon}",
                "nftables.minSyncPeriod: \"soon\" is not a duration such as 30s or 1h30m",
            ),
            ("featureGates: {A: 1}", "featureGates.A: "),
            ("enableProfiling: maybe", "enableProfiling: "),
            (
                "nodePortAddresses: primary",
                "nodePortAddresses: invalid type",
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
    fn other_documents_are_refused_with_what_they_are() {
        let cases = [
            ("", "apiVersion \"\" and kind \"\""),
            ("just text", "apiVersion \"\" and kind \"\""),
            ("kind: KubeProxyConfiguration", "apiVersion \"\""),
            (
                "apiVersion: kubeproxy.config.k8s.io/v1alpha2\nkind: KubeProxyConfiguration",
                "v1alpha2",
            ),
            (
                "apiVersion: v1\nkind: ConfigMap\ndata: {}",
                "it is the ConfigMap",
            ),
            ("a: [", "cannot parse config.conf: "),
            ("a: b: c", "line 1 column 5"),
        ];
        for (text, expected) in cases {
            let error = super::parse(text, Path::new("config.conf")).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(expected), "{text}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}
