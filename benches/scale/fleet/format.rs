//! The formats in which the nodes of a fleet watch.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use kube_dnat::config::AcceptedTypes;
use kube_dnat::watch::apiserver::{ClientSettings, HttpVersions};

/// A format and an HTTP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Protobuf over HTTP/2, which kube-dnat prefers.
    Protobuf,
    /// JSON over HTTP/1.1, to which it falls back.
    Json,
}

impl Format {
    pub(super) const ALL: [Self; 2] = [Self::Protobuf, Self::Json];

    /// Returns the settings of a client that has only this format.
    pub(super) fn settings(self, kubeconfig: &Path) -> ClientSettings {
        let (accepted, versions) = match self {
            Self::Protobuf => (AcceptedTypes::ProtobufFirst, HttpVersions::Http2First),
            Self::Json => (AcceptedTypes::JsonOnly, HttpVersions::Http1Only),
        };
        ClientSettings {
            kubeconfig: Some(kubeconfig.to_owned()),
            accepted,
            versions,
            ..ClientSettings::default()
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protobuf => "protobuf, HTTP/2",
            Self::Json => "JSON, HTTP/1.1",
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        let format = all.find(|format| format.to_string() == text);
        format.ok_or_else(|| format!("{text} is no format"))
    }
}
