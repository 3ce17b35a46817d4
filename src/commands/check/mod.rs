//! `kube-dnat check`: whether this node is ready for kube-dnat.

mod cluster;
mod configuration;
mod conflicts;
mod kernel;
mod probes;
mod routes;
mod settings;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::flags::NodeFlags;
use super::output::{AnswerStatus, OutputFormat};

/// The arguments of `kube-dnat check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat check\n  \
    kube-dnat check --config kube-proxy.conf --kubeconfig /etc/kubernetes/admin.conf\n  \
    kube-dnat check -o json | jq '.results[] | select(.level != \"ok\")'\n\n\
    Exit codes:\n  0  ready, possibly with warnings\n  \
    1  error: wrong usage\n  \
    2  not ready: a check failed")]
pub(super) struct Check {
    /// Check this configuration file too, and the cluster that it names: the API server, the rights,
    /// the Node object, the ranges of Pods, the route to Services and the probes of the DaemonSet.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Kubeconfig for the checks of the cluster, instead of the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Name of the Node object of this node [default: hostnameOverride, or the host name].
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// The severity of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// Nothing needs to be done.
    Ok,
    /// A possible problem.
    Warning,
    /// Services would not work: the node is not ready.
    Failure,
}

/// The result of one check.
#[derive(Debug, Serialize)]
struct CheckResult {
    /// The name of the check.
    check: &'static str,
    /// The severity.
    level: Level,
    /// What the check found, as one sentence.
    message: String,
    /// How to fix the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl CheckResult {
    /// A result that needs no fix.
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            message: message.into(),
            fix: None,
        }
    }

    /// A possible problem and its fix.
    fn warning(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Warning,
            message: message.into(),
            fix: Some(fix.into()),
        }
    }

    /// A problem that keeps Services from working, and its fix.
    fn failure(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Failure,
            message: message.into(),
            fix: Some(fix.into()),
        }
    }
}

/// The results of all checks.
#[derive(Debug, Serialize)]
struct CheckReport {
    /// Whether no check failed.
    ready: bool,
    /// The results, in the order of the checks.
    results: Vec<CheckResult>,
}

impl Check {
    /// Runs all checks, and prints their results.
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Self {
            config,
            kubeconfig,
            hostname_override,
            output,
        } = self;
        let mut results = vec![kernel::release()?, kernel::capability()?];
        match crate::netlink::Kernel::open() {
            Ok(mut opened) => {
                results.extend(kernel::abilities(&mut opened));
                results.extend(conflicts::of_rules(&mut opened));
                results.push(routes::to_cluster_ips(&mut opened));
            }
            Err(error) => results.push(kernel::no_nftables(&error)),
        }
        results.extend(conflicts::of_programs());
        results.extend(settings::all());
        if config.is_some() || kubeconfig.is_some() {
            let flags = NodeFlags::of_file(config, hostname_override);
            if let Some(config) = configuration::check(flags, &mut results) {
                results.extend(cluster::check(&config, kubeconfig));
            }
        }
        let ready = results.iter().all(|result| result.level != Level::Failure);
        output.print(&CheckReport { ready, results })?;
        let status = if ready {
            AnswerStatus::Fine
        } else {
            AnswerStatus::Problem
        };
        Ok(status.into())
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.results.iter().map(|result| result.check.len());
        let width = widths.max().unwrap_or_default();
        for result in &self.results {
            let level = match result.level {
                Level::Ok => "ok",
                Level::Warning => "WARN",
                Level::Failure => "FAIL",
            };
            let CheckResult {
                check,
                message,
                fix,
                ..
            } = result;
            writeln!(f, "{level:<5} {check:<width$}  {message}")?;
            if let Some(fix) = fix {
                writeln!(f, "      {:<width$}  -> {fix}", "")?;
            }
        }
        let readiness = if self.ready { "ready" } else { "NOT ready" };
        writeln!(f, "this node is {readiness} for kube-dnat")
    }
}
