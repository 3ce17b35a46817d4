//! The client of the API servers: their addresses, their CA, and our credentials.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use kube::client::ConfigExt;
use kube::config::{
    Cluster, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedCluster,
};
use kube::{Client, Config};
use tower::limit::RateLimitLayer;
use tower::{BoxError, ServiceBuilder};

use super::connect::{Connector, HttpVersions};
use super::connections::Connections;
use super::servers_file::{ServersFile, ServersFileError};
use super::watches::WatchStates;
use crate::config::AcceptedTypes;
use crate::watch::report::ApiServerReport;

/// The settings of the client.
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    /// The kubeconfig file. Without it the client uses the service account of the Pod, or no
    /// credentials if `masters` has an address.
    pub kubeconfig: Option<PathBuf>,
    /// The URLs of the API servers, which replace the one in the kubeconfig.
    pub masters: Vec<String>,
    /// A file with further URLs of API servers, followed as it changes.
    pub servers_file: Option<PathBuf>,
    /// The content types of answers.
    pub accepted: AcceptedTypes,
    /// The HTTP versions of connections.
    pub versions: HttpVersions,
}

/// A client of the API servers of one cluster. Clones share their connections.
#[derive(Clone)]
pub struct ApiClient {
    /// The client for single requests.
    pub(super) kube: Client,
    /// The connections to the servers.
    pub(super) connections: Connections,
    /// The content types of answers.
    pub(super) accepted: AcceptedTypes,
    /// The servers that settings name, and the file with further ones.
    pub(super) servers: (Vec<Uri>, Option<ServersFile>),
    /// The state of each watch.
    pub(in crate::watch) watches: WatchStates,
}

impl ApiClient {
    /// Returns the client for single requests, which shares the connections.
    #[must_use]
    pub fn kube(&self) -> Client {
        self.kube.clone()
    }

    /// Returns the same client, but with another service that answers its requests.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn answered_by(self, kube: Client) -> Self {
        Self { kube, ..self }
    }

    /// Follows the file with the API servers, if there is one.
    pub(super) async fn follow_servers(self) {
        if let (masters, Some(file)) = self.servers {
            file.follow(&masters, &self.connections).await;
        }
    }

    /// Returns the URL of the API server that was connected last, or before the first connection
    /// the URLs of all, for the log.
    #[must_use]
    pub fn server(&self) -> String {
        match self.connections.followed() {
            Some((url, _)) => url.to_string(),
            None => self.connections.urls().join(", "),
        }
    }

    /// Reports which API server is followed.
    pub(in crate::watch) fn report(&self) -> ApiServerReport {
        let (url, since) = self.connections.followed().unzip();
        ApiServerReport {
            url: url.map(|url| url.to_string()),
            followed_seconds: since.map(|since| since.elapsed().as_secs_f64()),
            servers: self.connections.urls(),
        }
    }
}

/// An error while building the client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be read.
    #[error("cannot read kubeconfig {}: {source}", .path.display())]
    Read {
        /// The kubeconfig.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The kubeconfig, or the CA certificate that it names, is invalid.
    #[error("cannot use kubeconfig {}: {}", .path.display(), first_line(.source))]
    Kubeconfig {
        /// The kubeconfig.
        path: PathBuf,
        /// The error of the parser.
        source: Box<KubeconfigError>,
    },
    /// The kubeconfig names a proxy.
    #[error("cannot use kubeconfig {}: proxy-url is not supported", .path.display())]
    Proxy {
        /// The kubeconfig.
        path: PathBuf,
    },
    /// The token file ends in a line break: kube sends its content unchanged as a header.
    #[error("cannot use kubeconfig {}: token file {file} ends in a line break", .path.display())]
    Token {
        /// The kubeconfig.
        path: PathBuf,
        /// The token file.
        file: String,
    },
    /// `--master` is not `http://` or `https://` and an address.
    #[error("--master {master} is not the URL of an API server, such as https://192.0.2.1:6443")]
    Master {
        /// The value of the flag.
        master: String,
    },
    /// There is neither a kubeconfig nor a master, and the process is in no Pod with a service
    /// account.
    #[error("no --kubeconfig and no --master, and this is not a Pod: {source}")]
    InCluster {
        /// The part of a service account that is missing.
        source: InClusterError,
    },
    /// The file with the API servers cannot be used.
    #[error(transparent)]
    ServersFile(#[from] ServersFileError),
    /// A certificate, key or token cannot be used.
    #[error("cannot connect with the settings of {origin}: {}", first_line(&**.source))]
    Connections {
        /// The kubeconfig, flag or Pod that the settings come from.
        origin: String,
        /// The error of the client.
        source: BoxError,
    },
}

/// Returns the first line of an error; the YAML parser adds a drawing below it.
fn first_line(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Builds a client for the API servers of the current context of the kubeconfig.
///
/// `masters` and the servers of `servers_file` replace the server of the kubeconfig; its CA and
/// credentials, or those of the Pod, are for all of them. With `masters` alone there are no
/// credentials. Without any of them, the client uses the service account of the Pod and the address
/// in its environment, which must not be the `ClusterIP` of the Service `default/kubernetes`: it has
/// no rules before kube-dnat has read them.
///
/// Equally healthy servers are in an order of chance, so that the nodes of a cluster are spread over
/// them. Token files are read again at least once a minute, as is the CA in a Pod, and a
/// client certificate when its files change. Proxies in
/// environment variables are ignored, since they lead out of the cluster.
///
/// # Errors
/// If a setting is missing or invalid. The client does not connect yet.
pub async fn client(settings: &ClientSettings) -> Result<ApiClient, ClientError> {
    let masters = settings.masters.iter().map(|master| server_url(master));
    let masters = masters.collect::<Result<Vec<Uri>, _>>()?;
    let file = settings.servers_file.as_deref().map(ServersFile::read);
    let file = file.transpose()?;
    let mut servers = masters.clone();
    servers.extend(file.iter().flat_map(ServersFile::servers).cloned());
    let config = match (&settings.kubeconfig, masters.first()) {
        (Some(path), _) => from_kubeconfig(path, servers.first()).await?,
        (None, Some(master)) => Config::new(master.clone()),
        (None, None) => Config::incluster().map_err(|source| ClientError::InCluster { source })?,
    };
    if servers.is_empty() {
        servers.push(config.cluster_url.clone());
    }
    fastrand::shuffle(&mut servers);
    let unusable = |source: BoxError| ClientError::Connections {
        origin: match (&settings.kubeconfig, settings.masters.first()) {
            (Some(path), _) => format!("kubeconfig {}", path.display()),
            (None, Some(master)) => format!("--master {master}"),
            (None, None) => "the Pod".to_owned(),
        },
        source,
    };
    let connector = Connector::new(config.clone(), settings.versions).map_err(unusable)?;
    let connections = Connections::new(connector, servers);
    Ok(ApiClient {
        kube: kube_client(&config, connections.clone()).map_err(|error| unusable(error.into()))?,
        connections,
        accepted: settings.accepted,
        servers: (masters, file),
        watches: WatchStates::new(),
    })
}

/// Reads a kubeconfig, with another server if there is one.
async fn from_kubeconfig(path: &Path, server: Option<&Uri>) -> Result<Config, ClientError> {
    let invalid = |error| {
        let path = path.to_owned();
        if let KubeconfigError::ReadConfig(source, _) = error {
            return ClientError::Read { path, source };
        }
        let source = Box::new(error);
        ClientError::Kubeconfig { path, source }
    };
    let mut kubeconfig = Kubeconfig::read_from(path).map_err(invalid)?;
    if let Some(server) = server {
        for named in &mut kubeconfig.clusters {
            named.cluster.get_or_insert_default().server = Some(server.to_string());
        }
    }
    if current_cluster(&kubeconfig).is_some_and(has_proxy) {
        let path = path.to_owned();
        return Err(ClientError::Proxy { path });
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(invalid)?;
    match config.auth_info.token_file.clone() {
        Some(file) if has_line_break(&file) => {
            let path = path.to_owned();
            Err(ClientError::Token { path, file })
        }
        _ => Ok(config),
    }
}

/// Returns the cluster of the current context.
fn current_cluster(kubeconfig: &Kubeconfig) -> Option<&Cluster> {
    let name = kubeconfig.current_context.as_ref()?;
    let named = kubeconfig
        .contexts
        .iter()
        .find(|context| context.name == *name)?;
    let name = &named.context.as_ref()?.cluster;
    let is_current = |cluster: &&NamedCluster| cluster.name == *name;
    kubeconfig
        .clusters
        .iter()
        .find(is_current)?
        .cluster
        .as_ref()
}

/// Returns whether a token file has a line break; building the client reports an unreadable file.
fn has_line_break(file: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains(['\n', '\r']))
}

/// Returns whether a cluster has a proxy.
fn has_proxy(cluster: &Cluster) -> bool {
    cluster
        .proxy_url
        .as_ref()
        .is_some_and(|url| !url.is_empty())
}

/// Parses the URL of an API server.
pub(super) fn parse_server(text: &str) -> Option<Uri> {
    text.strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))?;
    let url: Uri = text.parse().ok()?;
    let (authority, host) = (url.authority()?.as_str(), url.host()?);
    // A port that is no number would mean the default port, and a user's password would be logged.
    let port = url
        .port_u16()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let is_plain = !host.is_empty() && authority == format!("{host}{port}");
    (is_plain && url.query().is_none()).then_some(url)
}

/// Parses the value of `--master`.
fn server_url(master: &str) -> Result<Uri, ClientError> {
    parse_server(master).ok_or_else(|| ClientError::Master {
        master: master.to_owned(),
    })
}

/// The limit on requests.
///
/// The watcher continues a closed watch without a pause, which would be a busy loop if the server,
/// or a proxy in front of it, closed each watch at once.
const REQUESTS_PER_SECOND: u64 = 25;

/// Builds the client of `Client::try_from`, but with our connections and a rate limit, and without
/// retries of its own, which would be invisible.
fn kube_client(config: &Config, connections: Connections) -> Result<Client, kube::Error> {
    let service = ServiceBuilder::new()
        .layer(RateLimitLayer::new(
            REQUESTS_PER_SECOND,
            Duration::from_secs(1),
        ))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(Client::new(service, &*config.default_namespace))
}
