//! `kube-dnat probe`: the exec probe of a container whose configuration can move the health port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::http_get::get;
use super::output::{AnswerStatus, print};
use super::processes::reachable;
use crate::config::{Config, ConfigFile, HEALTHZ_PORT};

/// The arguments of `kube-dnat probe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat probe readyz\n  \
    kube-dnat probe livez --config=/var/lib/kube-proxy/config.conf    (as an exec probe)\n\n\
    Exit codes:\n  0  the endpoint returns 200, or the configuration disables health checks\n  1  error: wrong usage, or an unusable configuration file\n  2  the endpoint returns another status, or no answer in 2 s")]
pub(super) struct Probe {
    /// The endpoint to request.
    #[arg(value_enum)]
    endpoint: Endpoint,

    /// The daemon's configuration file, whose healthzBindAddress is the address to ask.
    #[arg(long, value_name = "FILE", conflicts_with = "healthz_address")]
    config: Option<PathBuf>,

    /// Address of the daemon's health checks (its --healthz-bind-address) [default:
    /// 127.0.0.1:10256].
    #[arg(long, value_name = "ADDRESS:PORT")]
    healthz_address: Option<SocketAddr>,
}

/// A health endpoint.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Endpoint {
    /// Whether changes reach the kernel in time.
    Livez,
    /// Whether the first sync is committed.
    Readyz,
    /// As livez, and whether load balancers may send connections to this node.
    Healthz,
}

impl Endpoint {
    /// Returns the path of the endpoint.
    const fn path(self) -> &'static str {
        match self {
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Healthz => "/healthz",
        }
    }
}

impl Probe {
    /// Requests the endpoint, and prints the answer.
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, HEALTHZ_PORT));
        let address = match (&self.config, self.healthz_address) {
            (Some(file), _) => configured(file)?,
            (None, address) => Some(address.unwrap_or(default)),
        };
        let Some(address) = address.map(reachable) else {
            // A restart would not change that.
            print(b"the configuration disables health checks\n")?;
            return Ok(AnswerStatus::Fine.into());
        };
        let path = self.endpoint.path();
        // The kubelet shows this text in the Event of a failed probe.
        let (status, text) = match get(address, path) {
            Ok((code, body)) if code.is_success() => (AnswerStatus::Fine, body),
            Ok((code, body)) => (
                AnswerStatus::Problem,
                format!("http://{address}{path}: {code}: {body}"),
            ),
            Err(error) => (
                AnswerStatus::Problem,
                format!("http://{address}{path}: {}", error.root_cause()),
            ),
        };
        print(format!("{}\n", text.trim_end()).as_bytes())?;
        Ok(status.into())
    }
}

/// Returns the address at which a daemon with this configuration file serves health checks, if it does.
fn configured(file: &Path) -> anyhow::Result<Option<SocketAddr>> {
    let file = ConfigFile::read(file)?;
    let (mut written, _lenience) = file.parse()?;
    written.set_defaults();
    // The name of the node does not matter here, but is required.
    let config = Config::resolve(written, "localhost", Some(file), &[])?;
    Ok(config.healthz_bind_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_the_configuration_as_loopback() {
        for (field, expected) in [
            ("", Some("127.0.0.1:10256")),
            ("healthzBindAddress: \"\"", Some("127.0.0.1:10256")),
            ("healthzBindAddress: 0.0.0.0:10299", Some("127.0.0.1:10299")),
            ("healthzBindAddress: 192.0.2.1", Some("192.0.2.1:10256")),
            ("healthzBindAddress: 127.0.0.1:9998", Some("127.0.0.1:9998")),
            ("bindAddress: \"::\"", Some("[::1]:10256")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("config.conf");
            let kind =
                "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
            std::fs::write(&file, format!("{kind}{field}\n")).unwrap();
            let address = configured(&file).unwrap().map(reachable);
            let address = address.map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{field}");
        }
    }
}
