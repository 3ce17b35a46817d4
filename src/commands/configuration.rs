//! From flags to a configuration, by way of kube-proxy's file if one is named.

use anyhow::Context;

use super::flags::{DaemonFlags, NodeFlags};
use crate::config::{Config, ConfigFile, ConfigNotice, KubeProxyConfiguration, notes};

/// The configuration that the flags ask for, and what there is to say of it.
///
/// # Errors
/// If it is none.
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
            // The mode first: it says whose section a flag is for.
            daemon.network.apply(&mut written);
            daemon.kernel.apply(&mut written);
            daemon.logging.apply(&mut written.logging);
            daemon.unused.apply(&mut written);
        }
        node.apply(&mut written);
        let config = Config::resolve(written, &host_name, None, given)?;
        let notes = notes(None, given, &config);
        return Ok((config, notes));
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
    let notes = notes(Some((path, &in_file, lenience)), given, &config);
    Ok((config, notes))
}
