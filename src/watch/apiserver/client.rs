//! The client of the API server: its address, its CA, and our credentials.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;
use kube::config::{
    Cluster, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedCluster,
};
use kube::{Client, Config};
use tower::limit::RateLimitLayer;
use tower::{BoxError, ServiceBuilder};

use super::WatchTimeouts;

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
    /// A certificate, key or token cannot be used.
    #[error("cannot connect with the settings of {origin}: {}", first_line(.source))]
    Connections {
        /// The kubeconfig, flag or Pod that the settings come from.
        origin: String,
        /// The error of the client.
        source: Box<kube::Error>,
    },
}

/// Returns the first line of an error; the YAML parser adds a drawing below it.
fn first_line(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Builds a client for the API server of the current context of `kubeconfig`.
///
/// `master` overrides the server of the kubeconfig. With `master` alone there are no credentials;
/// with neither, the client uses the service account of the Pod.
///
/// Token files are read again at least once a minute, as is the CA in a Pod. Proxies in environment
/// variables are ignored, since they lead out of the cluster.
///
/// # Errors
/// If a setting is missing or invalid. The client does not connect yet.
pub async fn client(
    kubeconfig: Option<&Path>,
    master: Option<&str>,
) -> Result<Client, ClientError> {
    let config = match (kubeconfig, master) {
        (Some(path), master) => from_kubeconfig(path, master).await?,
        (None, Some(master)) => from_master(master)?,
        (None, None) => Config::incluster().map_err(|source| ClientError::InCluster { source })?,
    };
    connections(&config).map_err(|source| ClientError::Connections {
        origin: match (kubeconfig, master) {
            (Some(path), _) => format!("kubeconfig {}", path.display()),
            (None, Some(master)) => format!("--master {master}"),
            (None, None) => "the Pod".to_owned(),
        },
        source: Box::new(source),
    })
}

/// Reads a kubeconfig.
async fn from_kubeconfig(path: &Path, master: Option<&str>) -> Result<Config, ClientError> {
    let invalid = |error| {
        let path = path.to_owned();
        if let KubeconfigError::ReadConfig(source, _) = error {
            return ClientError::Read { path, source };
        }
        let source = Box::new(error);
        ClientError::Kubeconfig { path, source }
    };
    let mut kubeconfig = Kubeconfig::read_from(path).map_err(invalid)?;
    if let Some(master) = master {
        let server = from_master(master)?.cluster_url.to_string();
        for named in &mut kubeconfig.clusters {
            named.cluster.get_or_insert_default().server = Some(server.clone());
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

/// Builds the configuration for `--master`.
fn from_master(master: &str) -> Result<Config, ClientError> {
    let address = master
        .strip_prefix("https://")
        .or_else(|| master.strip_prefix("http://"))
        .filter(|address| !address.is_empty());
    address
        .and_then(|_| master.parse().ok())
        .map(Config::new)
        .ok_or_else(|| ClientError::Master {
            master: master.to_owned(),
        })
}

/// The timeout of the TCP connection; the TLS handshake may take as long again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The idle time before the first keepalive probe.
///
/// The client notices a server that disappeared within this time and all probes, about as soon as
/// kube-proxy does by its HTTP/2 pings.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// The time between two keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The number of keepalive probes without an answer after which the connection is dead.
const KEEPALIVE_RETRIES: u32 = 4;

/// The limit on requests.
///
/// The watcher continues a closed watch without a pause, which would be a busy loop if the server,
/// or a proxy in front of it, closed each watch at once.
const REQUESTS_PER_SECOND: u64 = 25;

/// Builds the client of `Client::try_from`, but with keepalive and a rate limit, and without
/// retries of its own, which would be invisible.
fn connections(config: &Config) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    // Keepalive does not probe while a request is unacknowledged by the peer's TCP.
    tcp.set_tcp_user_timeout(Some(
        KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * KEEPALIVE_RETRIES,
    ));

    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT * 2));
    connector.set_read_timeout(Some(WatchTimeouts::default().longest_silence()));
    // A pooled connection may have been silent before its request is sent.
    connector.set_reset_reader_on_write(true);

    let service = ServiceBuilder::new()
        .layer(RateLimitLayer::new(
            REQUESTS_PER_SECOND,
            Duration::from_secs(1),
        ))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, &*config.default_namespace))
}
