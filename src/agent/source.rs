//! The source of the objects: a directory of manifests or an API server.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::events::{self, EventRecorder, ServerUrl};
use crate::metrics::Metrics;
use crate::planner::model::Events;
use crate::sync::NodeObject;
use crate::watch::ReportingSource;
use crate::watch::apiserver::{self, ApiClient, ClientSettings};
use crate::watch::manifests::{self, ManifestProblems};

/// The source of the objects, as configured.
#[derive(Debug)]
pub enum ObjectSource {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// An API server.
    ApiServer(ClientSettings),
}

/// A source whose configuration is valid.
pub(super) enum OpenSource {
    /// A directory of manifests, and what cannot be read there.
    Manifests(PathBuf, ManifestProblems),
    /// A client of an API server.
    ApiServer(ApiClient),
}

impl ObjectSource {
    /// Creates the client of the API server, or checks that the directory can be listed.
    pub(super) async fn open(self) -> anyhow::Result<OpenSource> {
        match self {
            Self::Manifests(dir) => {
                manifests::check_directory(&dir)?;
                let problems = ManifestProblems::new(dir.clone());
                Ok(OpenSource::Manifests(dir, problems))
            }
            Self::ApiServer(settings) => {
                Ok(OpenSource::ApiServer(apiserver::client(&settings).await?))
            }
        }
    }
}

impl OpenSource {
    /// Returns whether the source has a Node object for each node of the cluster.
    pub(super) fn node_object(&self) -> NodeObject {
        match self {
            Self::Manifests(..) => NodeObject::Optional,
            Self::ApiServer(_) => NodeObject::Required,
        }
    }

    /// Returns what reports the state of the source.
    pub(super) fn reporting(&self) -> ReportingSource {
        match self {
            Self::Manifests(_, problems) => ReportingSource::Manifests(problems.clone()),
            Self::ApiServer(client) => ReportingSource::ApiServer(client.clone()),
        }
    }

    /// Returns the directory, or the URLs of the API servers, for the log.
    pub(super) fn description(&self) -> String {
        match self {
            Self::Manifests(dir, _) => dir.display().to_string(),
            Self::ApiServer(client) => client.server(),
        }
    }

    /// Returns a recorder of Events, and the future that writes them to the API server. Without an
    /// API server, the recorder drops the Events.
    pub(super) fn event_recorder(
        &self,
        node: &str,
        metrics: &Metrics,
    ) -> (EventRecorder, impl Future<Output = ()> + use<>) {
        let (recorder, writer) = match self {
            Self::Manifests(..) => (EventRecorder::default(), None),
            Self::ApiServer(client) => {
                let api = client.clone();
                let server = (client.kube(), Arc::new(move || api.server()) as ServerUrl);
                let (recorder, writer) = events::recorder(server, node.into(), metrics);
                (recorder, Some(writer))
            }
        };
        let write = async {
            match writer {
                Some(writer) => writer.await,
                None => pending().await,
            }
        };
        (recorder, write)
    }

    /// Sends the objects and their changes to `events`. Does not return, unless a directory cannot
    /// be watched at all.
    pub(super) async fn run(
        self,
        node: Arc<str>,
        events: mpsc::Sender<Events>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Manifests(dir, problems) => {
                let _watcher = manifests::watch_with(&dir, node, events, problems)?;
                pending().await
            }
            Self::ApiServer(client) => {
                Box::pin(apiserver::watch(client, node, events)).await;
                Ok(())
            }
        }
    }
}
