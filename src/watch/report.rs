//! What a source of objects reports about itself: the API server and its watches, or the manifests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::apiserver::ApiClient;
use super::manifests::ManifestProblems;

/// The state of a source of objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceReport {
    /// The API server, unless the objects come from manifests.
    pub api_server: Option<ApiServerReport>,
    /// The watch of each kind; empty with manifests.
    pub watches: Vec<WatchReport>,
    /// The manifests, unless the objects come from an API server.
    pub manifests: Option<ManifestsReport>,
}

/// The API server that is followed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiServerReport {
    /// The URL of the API server that was connected last; `None` before the first connection.
    pub url: Option<String>,
    /// Seconds since kube-dnat follows this API server.
    pub followed_seconds: Option<f64>,
    /// The URLs of all API servers.
    pub servers: Vec<String>,
}

/// The state of the watch of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchReport {
    /// The watched kind.
    pub kind: String,
    /// The state of the watch.
    pub state: WatchState,
    /// Seconds since the watch is in this state.
    pub seconds: f64,
    /// Seconds since the last object or bookmark arrived; `None` before the first one.
    pub last_event_seconds: Option<f64>,
    /// The number of objects that the API server has shown and not deleted since.
    pub objects: usize,
    /// The last error, while the watch is failing or unavailable.
    pub error: Option<String>,
}

/// The state of a watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchState {
    /// The first list is not complete.
    #[default]
    Listing,
    /// The list is complete, and changes arrive.
    Synced,
    /// The list or the watch fails and is retried. The last known objects stay.
    Failing,
    /// The API server does not have or forbids the kind, which kube-dnat can run without.
    Unavailable,
}

/// The manifests that are followed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ManifestsReport {
    /// The directory.
    pub directory: String,
    /// The files and directories that cannot be read or parsed, each with the reason.
    pub problems: BTreeMap<String, String>,
}

/// A source of objects that reports its state. A report waits for nothing.
#[derive(Clone)]
pub enum ReportingSource {
    /// A client of the API servers.
    ApiServer(ApiClient),
    /// A directory of manifests.
    Manifests(ManifestProblems),
}

impl ReportingSource {
    /// Reports the state of the source.
    #[must_use]
    pub fn report(&self) -> SourceReport {
        match self {
            Self::ApiServer(client) => SourceReport {
                api_server: Some(client.report()),
                watches: client.watches.report(),
                manifests: None,
            },
            Self::Manifests(problems) => SourceReport {
                manifests: Some(problems.report()),
                ..SourceReport::default()
            },
        }
    }

    /// Whether the API server shows the Node object of this node; `None` before its list is
    /// complete, and for manifests.
    #[must_use]
    pub fn shows_node(&self) -> Option<bool> {
        match self {
            Self::ApiServer(client) => client.watches.shows_node(),
            Self::Manifests(_) => None,
        }
    }
}
