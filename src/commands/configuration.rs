//! Loads the configuration from kube-proxy's file or from flags.

use anyhow::Context;

use super::flags::{DaemonFlags, NodeFlags};
use crate::config::{Config, ConfigFile, ConfigNotice, KubeProxyConfiguration, notices};

/// Loads the configuration that the flags select, and the notices about it.
///
/// # Errors
/// If the file cannot be read or a setting is invalid.
pub(super) fn load(
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
