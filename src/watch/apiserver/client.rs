//! The connection to the API server: where it is, whom it trusts, who we are.

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

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be read.
    #[error("cannot read kubeconfig {}: {source}", .path.display())]
    Read {
        /// The kubeconfig.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kubeconfig, or the CA's certificate that it names, makes no sense.
    #[error("cannot use kubeconfig {}: {}", .path.display(), first_line(.source))]
    Kubeconfig {
        /// The kubeconfig.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// The kubeconfig names a proxy.
    #[error("cannot use kubeconfig {}: proxy-url is not supported", .path.display())]
    Proxy {
        /// The kubeconfig.
        path: PathBuf,
    },
    /// kube sends what the token file of the kubeconfig holds as it is, which must be a header.
    #[error("cannot use kubeconfig {}: token file {file} ends in a line break", .path.display())]
    Token {
        /// The kubeconfig.
        path: PathBuf,
        /// The token file.
        file: String,
    },
    /// `--master` is not `http://` or `https://` and an address.
    #[error(
        "--master {master} is not the URL of an API server, as https://192.0.2.1:6443 would be"
    )]
    Master {
        /// What it is.
        master: String,
    },
    /// There is neither a kubeconfig nor a master, and this is no Pod with a service account.
    #[error("no --kubeconfig and no --master, and this is not a Pod: {source}")]
    InCluster {
        /// What a Pod would have.
        source: InClusterError,
    },
    /// A certificate, key or token cannot be used.
    #[error("cannot set up connections as {origin} says: {}", first_line(.source))]
    Connections {
        /// Which kubeconfig or flag, or that it is the Pod.
        origin: String,
        /// What is wrong.
        source: Box<kube::Error>,
    },
}

/// The parser of YAML says what is wrong, and draws it below.
fn first_line(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// A client of the API server of `kubeconfig`'s current context; `master` stands for the server
/// that it names. With `master` alone there are no credentials; with neither, it is the API server
/// of the Pod we run in.
///
/// A token file is read anew at least once a minute, as is the CA in a Pod. Proxies that
/// environment variables name are not used: they lead out of the cluster.
///
/// # Errors
///
/// When something that the client needs is missing or makes no sense. Whether the API server can
/// be reached is not tried.
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

/// A file that cannot be read is told of when the client is made.
fn has_line_break(file: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains(['\n', '\r']))
}

fn has_proxy(cluster: &Cluster) -> bool {
    cluster
        .proxy_url
        .as_ref()
        .is_some_and(|url| !url.is_empty())
}

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

/// For the TCP connection; the TLS handshake may take as long again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that is gone without a word is noticed within the sum of these, about as soon as
/// kube-proxy notices by its HTTP/2 pings.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 4;

/// The watcher takes up a watch that was closed without waiting, so that a server (or something
/// in front of it) that closes each at once would be asked in a busy loop.
const REQUESTS_A_SECOND: u64 = 25;

/// What `Client::try_from` would give, but with keepalive and a rate limit, and without retries of
/// its own, which nobody would see.
fn connections(config: &Config) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    // Keepalive waits for its turn while a request is unanswered by the peer's TCP.
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
            REQUESTS_A_SECOND,
            Duration::from_secs(1),
        ))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, &*config.default_namespace))
}
