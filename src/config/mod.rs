//! What the operator asked for: kube-proxy's file or flags, read, checked and made plain.
//!
//! ```text
//! FILE -> read: strictly, then leniently   -> KubeProxyConfiguration, with kube-proxy's defaults
//! flags, where there is no file            -> the same
//!                                   resolve -> Config: what each setting means, nothing to parse
//! ```

mod defaults;
mod document;
mod duration;
mod follow;
mod notes;
mod read;
mod resolve;
pub mod schema;
mod settings;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::planner::desired::NodeFacts;
pub use crate::planner::model::parse::address;
pub use defaults::{HEALTHZ_PORT, METRICS_PORT, append_port};
pub use document::LenientFields;
pub use duration::GoDuration;
pub use follow::{ConfigFile, FollowError};
pub use notes::{ConfigNotice, notes};
pub use read::{ReadError, parse};
pub use schema::KubeProxyConfiguration;
use schema::VModule;
pub use settings::{SETTINGS, Setting, Support};
pub use write::{to_yaml, write};

/// A configuration that is valid, and says everything.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it is from, which is followed.
    pub file: Option<ConfigFile>,
    /// Which Node this is.
    pub node: String,
    /// A kubeconfig file; without it the API server is found as a Pod finds it.
    pub kubeconfig: Option<PathBuf>,
    /// The mode that was asked for. Whatever it is, nftables serves.
    pub mode: Mode,
    /// What the ruleset depends on besides the objects.
    pub facts: NodeFacts,
    /// How long after a sync that failed it is tried again at the latest.
    pub sync_period: Duration,
    /// How long after a sync the next begins at the earliest.
    pub min_sync_period: Duration,
    /// Where health is asked for; `None`: nowhere.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Where metrics are asked for; `None`: nowhere.
    pub metrics_bind_address: Option<SocketAddr>,
    /// Whether to end when one of these cannot be had.
    pub bind_address_hard_fail: bool,
    /// Whether profiles may be asked for.
    pub profiling: bool,
    /// `<major>.<minor>` of the Kubernetes whose hidden metrics are to be shown.
    pub show_hidden_metrics_for_version: Option<String>,
    /// Gates of kube-proxy. None has a meaning here.
    pub feature_gates: BTreeMap<String, bool>,
    /// Settings of the kernel's connection tracking.
    pub conntrack: ConntrackSettings,
    /// For `/proc/self/oom_score_adj`, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Logs.
    pub logging: LogSettings,
    /// All of it as kube-proxy writes it, for `--write-config-to` and `/configz`.
    pub written: KubeProxyConfiguration,
}

/// A mode of kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// kube-proxy's own choice, which is iptables.
    Unset,
    /// Ours.
    Nftables,
    /// Served by nftables.
    Iptables,
    /// Served by nftables.
    Ipvs,
}

/// Settings of the kernel's connection tracking; zero leaves the kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// Entries for each CPU.
    pub max_per_core: u32,
    /// Entries at least, if `max_per_core` is not zero.
    pub min: u32,
    /// Of idle TCP connections.
    pub tcp_established_timeout: Duration,
    /// Of TCP connections that one side has closed.
    pub tcp_close_wait_timeout: Duration,
    /// Whether TCP segments outside the window are not invalid.
    pub tcp_be_liberal: bool,
    /// Of UDP without an answer.
    pub udp_timeout: Duration,
    /// Of UDP with answers.
    pub udp_stream_timeout: Duration,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text.
    #[default]
    Text,
    /// A line of JSON.
    Json,
}

/// What is logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// How.
    pub format: LogFormat,
    /// klog's `-v`.
    pub verbosity: u32,
    /// The verbosity of some of kube-proxy's source files.
    pub vmodule: Vec<VModule>,
}

/// A setting that has no meaning, or contradicts another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The path of the field.
    pub field: String,
    /// What is wrong, to be read after the name of the field: `-1 is less than 0`.
    pub what: String,
}

/// A configuration that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidConfig {
    /// The file it is written in, if there is one.
    file: Option<PathBuf>,
    /// The flags that were given.
    given: Vec<String>,
    problems: Vec<InvalidSetting>,
}

impl Config {
    /// What `written`, with its defaults set, means on a machine of this name. `file` and the names
    /// of the flags that were given tell where a mistake was made.
    ///
    /// # Errors
    /// If kube-proxy would not start with it either.
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
        for InvalidSetting { field, what } in &self.problems {
            match self.flag(field) {
                Some(flag) => in_flags.push(format!("--{flag} {what}")),
                None => in_file.push(format!("{field} {what}")),
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
    /// The flag that said what a field holds.
    fn flag(&self, field: &str) -> Option<&'static str> {
        let setting = Setting::of_field(field)?;
        let mut flags = setting.flags.iter().copied();
        let is_given = |flag: &&str| self.given.iter().any(|given| given == flag);
        if self.file.is_none() {
            return flags.clone().find(is_given).or_else(|| flags.next());
        }
        flags.find(|flag| setting.counts_beside_a_file() && is_given(flag))
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
