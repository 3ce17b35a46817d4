//! `kube-dnat check`: whether this node is ready for kube-dnat.

mod conflicts;
mod kernel;
mod settings;

use std::fmt;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::output::{AnswerStatus, OutputFormat};

/// The arguments of `kube-dnat check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat check\n  \
    kube-dnat check -o json | jq '.findings[] | select(.level != \"ok\")'\n\n\
    Exit codes:\n  0  ready, possibly with warnings\n  \
    1  error: wrong usage\n  \
    2  not ready: a check failed")]
pub(super) struct Check {
    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Warning,
    /// Services would not work.
    Failure,
}

/// What was found of one thing.
#[derive(Debug, Serialize)]
struct CheckResult {
    what: &'static str,
    level: Level,
    found: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl CheckResult {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            level: Level::Ok,
            found: found.into(),
            mend: None,
        }
    }

    fn warning(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            what,
            level: Level::Warning,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn failure(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            what,
            level: Level::Failure,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
struct CheckReport {
    ready: bool,
    findings: Vec<CheckResult>,
}

impl Check {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Self { output } = self;
        let mut findings = vec![kernel::release()?, kernel::capability()?];
        match crate::netlink::Kernel::open() {
            Ok(mut opened) => {
                findings.extend(kernel::abilities(&mut opened));
                findings.extend(conflicts::of_rules(&mut opened));
            }
            Err(error) => findings.push(kernel::no_nftables(&error)),
        }
        findings.extend(conflicts::of_programs());
        findings.extend(settings::all());
        let ready = findings
            .iter()
            .all(|finding| finding.level != Level::Failure);
        output.print(&CheckReport { ready, findings })?;
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
        let width = self.findings.iter().map(|finding| finding.what.len()).max();
        let width = width.unwrap_or_default();
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "WARN",
                Level::Failure => "FAIL",
            };
            writeln!(f, "{level:<5} {:<width$}  {}", finding.what, finding.found)?;
            if let Some(mend) = &finding.mend {
                writeln!(f, "      {:<width$}  -> {mend}", "")?;
            }
        }
        let verdict = if self.ready { "ready" } else { "NOT ready" };
        writeln!(f, "this node is {verdict} for kube-dnat")
    }
}
