//! The configuration: kube-proxy's file or flags, read, validated and resolved.
//!
//! ```text
//! file  -> read: strictly, then leniently -> KubeProxyConfiguration with kube-proxy's defaults
//! flags (without a file)                  -> KubeProxyConfiguration with kube-proxy's defaults
//!                                 resolve -> Config: typed and valid
//! ```

mod accepted;
mod defaults;
mod document;
mod file_watch;
mod follow;
mod notices;
mod read;
mod resolve;
pub mod schema;
mod settings;
mod write;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::planner::desired::NodeFacts;
pub use crate::planner::model::parse::address;
pub use accepted::{AcceptedTypes, ContentType};
pub use defaults::{HEALTHZ_PORT, METRICS_PORT, append_port};
pub use document::LenientFields;
pub use file_watch::FileWatch;
pub use follow::{ConfigFile, FollowError};
pub use notices::{ConfigNotice, notices};
pub use read::{ReadError, parse};
pub use schema::KubeProxyConfiguration;
pub use settings::{SETTINGS, Setting, Support};
pub use write::{to_yaml, write};

/// The resolved configuration of the daemon: typed, valid and complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The configuration file, which the daemon watches for changes.
    pub file: Option<ConfigFile>,
    /// The name of this node's Node object.
    pub node: String,
    /// The kubeconfig file. `None` selects the service account of the Pod.
    pub kubeconfig: Option<PathBuf>,
    /// The content types in which the API server may answer.
    pub accepted_types: AcceptedTypes,
    /// The configured mode. kube-dnat uses nftables in every mode.
    pub mode: Mode,
    /// The settings that the ruleset depends on.
    pub facts: NodeFacts,
    /// Whether the daemon serves node ports at localhost.
    pub localhost_node_ports: bool,
    /// The maximum retry interval after a failed sync.
    pub sync_period: Duration,
    /// The minimum interval between syncs.
    pub min_sync_period: Duration,
    /// The address to serve health checks on. `None` disables them.
    pub healthz_bind_address: Option<SocketAddr>,
    /// The address to serve metrics on. `None` disables them.
    pub metrics_bind_address: Option<SocketAddr>,
    /// Whether the daemon exits if one of these addresses cannot be bound.
    pub bind_address_hard_fail: bool,
    /// The conntrack settings of the kernel.
    pub conntrack: ConntrackSettings,
    /// The value for `/proc/self/oom_score_adj`, -1000 to 1000.
    pub oom_score_adj: i32,
    /// The format and verbosity of the log.
    pub logging: LogSettings,
    /// The same configuration in kube-proxy's schema, for `--write-config-to` and `/configz`.
    pub written: KubeProxyConfiguration,
}

/// A proxy mode of kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No mode is configured. kube-proxy uses iptables.
    Unset,
    /// The mode nftables.
    Nftables,
    /// The mode iptables.
    Iptables,
    /// The mode ipvs.
    Ipvs,
}

/// The conntrack settings of the kernel. Zero keeps the kernel's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// Maximum number of entries per CPU.
    pub max_per_core: u32,
    /// Minimum number of entries, if `max_per_core` is not zero.
    pub min: u32,
    /// Timeout of idle established TCP connections.
    pub tcp_established_timeout: Duration,
    /// Timeout of TCP connections in state CLOSE-WAIT.
    pub tcp_close_wait_timeout: Duration,
    /// Whether TCP segments outside the window are valid (`nf_conntrack_tcp_be_liberal`).
    pub tcp_be_liberal: bool,
    /// Timeout of UDP flows without replies.
    pub udp_timeout: Duration,
    /// Timeout of UDP flows with replies.
    pub udp_stream_timeout: Duration,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The format and verbosity of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The format.
    pub format: LogFormat,
    /// The verbosity, as klog's `-v`.
    pub verbosity: u32,
}

/// A setting with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The path of the field.
    pub field: String,
    /// The problem, to follow the name of the field: `-1 is less than 0`.
    pub problem: String,
}

/// A configuration with invalid settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidConfig {
    /// The configuration file, if there is one.
    file: Option<PathBuf>,
    /// The names of the flags that were given.
    given: Vec<String>,
    /// All invalid settings.
    problems: Vec<InvalidSetting>,
}

impl Config {
    /// Resolves `written`, with its defaults set, for a machine with this host name.
    ///
    /// An error names the `file`, or the flags in `given`, that contain the invalid setting.
    ///
    /// # Errors
    /// If a setting is invalid for kube-proxy too.
    pub fn resolve(
        written: KubeProxyConfiguration,
        host_name: &str,
        file: Option<ConfigFile>,
        given: &[String],
    ) -> Result<Self, InvalidConfig> {
        match resolve::resolve(written, host_name) {
            Ok(config) => Ok(Self { file, ..config }),
            Err(problems) => Err(InvalidConfig {
                file: file.map(|file| file.path().to_owned()),
                given: given.to_vec(),
                problems,
            }),
        }
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut in_file = Vec::new();
        let mut in_flags = Vec::new();
        for InvalidSetting { field, problem } in &self.problems {
            match self.flag(field) {
                Some(flag) => in_flags.push(format!("--{flag} {problem}")),
                None => in_file.push(format!("{field} {problem}")),
            }
        }
        let in_file = in_file.join("; ");
        match &self.file {
            Some(file) if !in_file.is_empty() => {
                in_flags.push(format!("cannot use {}: {in_file}", file.display()));
            }
            _ if !in_file.is_empty() => in_flags.push(in_file),
            _ => {}
        }
        f.write_str(&in_flags.join("; "))
    }
}

impl InvalidConfig {
    /// Returns the flag that set a field.
    fn flag(&self, field: &str) -> Option<&'static str> {
        let setting = Setting::of_field(field)?;
        let mut flags = setting.flags.iter().copied();
        let is_given = |flag: &&str| self.given.iter().any(|given| given == flag);
        if self.file.is_none() {
            return flags.clone().find(is_given).or_else(|| flags.next());
        }
        flags.find(|flag| setting.works_with_config_file() && is_given(flag))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => "unset",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        })
    }
}
