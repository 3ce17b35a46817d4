//! How the API server is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Silence on a connection after which it is given up: longer than any watch lasts.
const READ_TIMEOUT: Duration = Duration::from_secs(310);

/// Why the API server cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be read or does not say how to reach a server.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<KubeconfigError>,
    },
    /// Not in a Pod of a cluster, and no other way is given.
    #[error("not in a cluster, and neither --kubeconfig, --master nor --manifests is given")]
    InCluster(#[source] Box<InClusterError>),
    /// `--master` is no URL.
    #[error("--master \"{0}\" is not a URL such as https://10.0.0.1:6443")]
    Master(String),
    /// The server of the kubeconfig is no URL.
    #[error("the server \"{url}\" of the kubeconfig {} is not a URL", path.display())]
    Server {
        /// What the file says.
        url: String,
        /// The file.
        path: PathBuf,
    },
    /// The client cannot be made of this configuration, such as for a broken certificate.
    #[error("cannot connect to the API server as configured")]
    Client(#[source] Box<kube::Error>),
}

/// A client of the API server of a kubeconfig file, or of a URL (which overrides the file's), or
/// else of the cluster that this process is a Pod of. Nothing is sent yet.
///
/// # Errors
/// If the configuration cannot be used.
pub async fn client(kubeconfig: Option<&Path>, master: Option<&str>) -> Result<Client, Error> {
    let master = master.map(url).transpose()?;
    let mut config = match (kubeconfig, master) {
        (Some(path), master) => {
            let mut config = from_file(path).await?;
            if let Some(url) = master {
                config.cluster_url = url;
            }
            config
        }
        (None, Some(url)) => Config::new(url),
        (None, None) => Config::incluster().map_err(|error| Error::InCluster(Box::new(error)))?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))
}

/// The URL of a server: kube's client takes others, and panics at the first request.
fn url(url: &str) -> Result<http::Uri, Error> {
    let parsed = url.parse().ok().filter(is_server);
    parsed.ok_or_else(|| Error::Master(url.to_owned()))
}

fn is_server(url: &http::Uri) -> bool {
    matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()
}

async fn from_file(path: &Path) -> Result<Config, Error> {
    let failed = |error| Error::Kubeconfig {
        path: path.to_owned(),
        source: Box::new(error),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let config = config.map_err(failed)?;
    if !is_server(&config.cluster_url) {
        return Err(Error::Server {
            url: config.cluster_url.to_string(),
            path: path.to_owned(),
        });
    }
    Ok(config)
}
