//! The flags of `run` and `render`, with kube-proxy's names, and the configuration that they load.

mod kernel;
mod logging;
mod network;
mod node;
mod own;
mod syntax;
mod unused;

use anyhow::Context;
use clap::Args;
use kernel::KernelFlags;
use logging::LoggingFlags;
use network::NetworkFlags;
pub(super) use node::NodeFlags;
use unused::{LibraryFlags, UnusedFlags};

use crate::config::{Config, ConfigFile, ConfigNotice, KubeProxyConfiguration, notices};
pub(super) use syntax::{GivenFlags, SWITCH, switch};

/// The flags of kube-proxy that `run` has and `render` does not.
#[derive(Debug, Args)]
pub(super) struct DaemonFlags {
    #[command(flatten)]
    /// The flags for the API server, for health and metrics, and for the sync interval.
    pub(super) network: NetworkFlags,
    #[command(flatten)]
    /// The flags for kernel settings.
    pub(super) kernel: KernelFlags,
    #[command(flatten)]
    /// The flags for logging.
    pub(super) logging: LoggingFlags,
    #[command(flatten)]
    /// The flags for fields that have no effect.
    pub(super) unused: UnusedFlags,
    #[command(flatten)]
    /// The flags of libraries.
    pub(super) library: LibraryFlags,
}

/// Assigns a flag to its field if the flag was given.
fn set<T>(flag: Option<T>, field: &mut T) {
    if let Some(value) = flag {
        *field = value;
    }
}

/// Loads the configuration that the flags select, and the notices about it.
///
/// # Errors
/// If the file cannot be read or a setting is invalid.
pub(super) fn load(
    mut node: NodeFlags,
    daemon: Option<DaemonFlags>,
    given: &[String],
) -> anyhow::Result<(Config, Vec<ConfigNotice>)> {
    let own = std::mem::take(&mut node.own);
    let (mut config, notices) = load_settings_of_kube_proxy(node, daemon, given)?;
    own.apply(&mut config.facts);
    Ok((config, notices))
}

/// Loads the configuration without kube-dnat's own flags.
fn load_settings_of_kube_proxy(
    node: NodeFlags,
    daemon: Option<DaemonFlags>,
    given: &[String],
) -> anyhow::Result<(Config, Vec<ConfigNotice>)> {
    let host_name = nix::unistd::gethostname().context("cannot read the host name")?;
    let host_name = host_name.to_string_lossy();
    let Some(path) = &node.config else {
        let mut written = KubeProxyConfiguration::defaulted();
        if let Some(daemon) = daemon {
            // The mode comes first, because it selects the section that other flags set.
            daemon.network.apply(&mut written);
            daemon.kernel.apply(&mut written);
            daemon.logging.apply(&mut written.logging);
            daemon.unused.apply(&mut written);
        }
        node.apply(&mut written);
        let config = Config::resolve(written, &host_name, None, given)?;
        let notices = notices(None, given, &config);
        return Ok((config, notices));
    };
    let file = ConfigFile::read(path)?;
    let (mut in_file, lenience) = file.parse()?;
    in_file.set_defaults();
    let mut written = in_file.clone();
    if let Some(daemon) = daemon {
        daemon.logging.apply(&mut written.logging);
    }
    if let Some(name) = node.hostname_override.filter(|name| !name.is_empty()) {
        written.hostname_override = name;
    }
    let config = Config::resolve(written, &host_name, Some(file), given)?;
    let notices = notices(Some((path, &in_file, lenience)), given, &config);
    Ok((config, notices))
}
