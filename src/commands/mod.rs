//! The command line: one module for each subcommand.

mod bugreport;
mod check;
mod cleanup;
mod completions;
mod drain;
mod explain;
mod flags;
mod http_get;
mod kubectl;
mod man;
mod output;
mod probe;
mod processes;
mod render;
mod run;
mod services;
mod status;
mod top;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};

pub use kubectl::Plugin;

use crate::logging::{self, LogStyle};
use crate::netlink::{Kernel, TableShape};
use crate::planner::diff::TableStatus;
use crate::planner::model::Address;
use crate::planner::ruleset::TABLE;
use crate::revision;

/// A kube-proxy replacement that serves Kubernetes Services with a few nftables maps.
///
/// Services and EndpointSlices become elements of fixed maps. `nft list table ip kube-dnat` (and
/// `ip6`) shows them.
///
/// kube-dnat accepts kube-proxy's flags and its configuration file. Without a subcommand it runs
/// the daemon, like `kube-dnat run`.
#[derive(Debug, Parser)]
#[command(
    version = revision::long_version(),
    propagate_version = true,
    args_conflicts_with_subcommands = true
)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    run: run::Run,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "one value exists, until it is executed"
)]
enum Command {
    /// Run the daemon: program this node and keep it in sync. The rules stay after it exits.
    Run(run::Run),
    /// List the frontends of Services in the kernel, with their endpoints and connections.
    Services(services::Services),
    /// Explain what the rules in the kernel do with a connection.
    Explain(explain::Explain),
    /// Show whether kube-dnat is running and what it has programmed.
    Status(status::Status),
    /// Request a health endpoint of the daemon, as an exec probe.
    Probe(probe::Probe),
    /// Show the rate of new connections by Service and endpoint.
    Top(top::Top),
    /// Drain this node: load-balancer health checks answer 503 while it goes on serving.
    ///
    /// /healthz and every healthCheckNodePort answer 503 until `undrain` or a restart of the daemon, so
    /// that load balancers send new connections to other nodes. Nothing else changes.
    Drain(drain::Drain),
    /// End a drain: load-balancer health checks report the endpoints again.
    Undrain(drain::Undrain),
    /// Check whether this node is ready for kube-dnat, without changing anything.
    Check(check::Check),
    /// Print the ruleset that `run` would program, without touching the kernel.
    Render(render::Render),
    /// Delete kube-dnat's tables from this node, and optionally kube-proxy's rules.
    Cleanup(cleanup::Cleanup),
    /// Collect status, rules, log and settings in one archive for a bug report.
    Bugreport(bugreport::Bugreport),
    /// Generate a shell completion script.
    Completions(completions::Completions),
    /// Generate the man pages.
    #[command(hide = true)]
    Man(man::Man),
}

/// Parses the command line, executes the subcommand, and reports an error as one sentence: the daemon
/// in its log, the others as `error: ...`.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(code) = completions::complete() {
        return code;
    }
    if kubectl::is_plugin() {
        return kubectl::main();
    }
    finish(
        CommandLine::of_process(),
        |line| {
            if line.is_daemon() {
                LogStyle::Log
            } else {
                LogStyle::Messages
            }
        },
        CommandLine::execute,
    )
}

/// Executes a command line that was parsed, and reports an error as one sentence.
///
/// Prints the help or the version instead if the command line requests it.
fn finish<L>(
    line: Result<L, clap::Error>,
    style: impl FnOnce(&L) -> LogStyle,
    execute: impl FnOnce(L) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    if let Err(help) = &line
        && !help.use_stderr()
    {
        // An error here means that standard output is closed.
        let _ = help.print();
        return ExitCode::SUCCESS;
    }
    logging::start(line.as_ref().map_or(LogStyle::Messages, style));
    let result = line
        .map_err(|error| anyhow::anyhow!(sentence(&error)))
        .and_then(execute);
    result.unwrap_or_else(|error| {
        tracing::error!("{}", logging::ErrorChain(error.as_ref()));
        ExitCode::FAILURE
    })
}

impl CommandLine {
    /// Parses the command line of this process.
    ///
    /// # Errors
    /// If the command line is invalid, or requests the help or the version.
    pub fn of_process() -> Result<Self, clap::Error> {
        Self::try_parse_from(std::env::args_os().map(normalize))
    }

    /// Returns whether the command is the daemon, whose messages are a log.
    fn is_daemon(&self) -> bool {
        match &self.command {
            None => self.run.is_daemon(),
            Some(Command::Run(run)) => run.is_daemon(),
            Some(_) => false,
        }
    }

    /// Executes the subcommand. Returns exit code 0, 2 for a problem, or 3 if nothing was found.
    ///
    /// # Errors
    /// If the subcommand fails. The error is one sentence.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let result = match self.command {
            Some(Command::Explain(explain)) => return explain.execute(),
            Some(Command::Services(services)) => return services.execute(),
            Some(Command::Status(status)) => return status.execute(),
            Some(Command::Probe(probe)) => return probe.execute(),
            Some(Command::Top(top)) => return top.execute(),
            Some(Command::Drain(drain)) => return drain.execute(),
            Some(Command::Undrain(undrain)) => return undrain.execute(),
            Some(Command::Check(check)) => return check.execute(),
            Some(Command::Completions(completions)) => completions.execute(),
            Some(Command::Man(man)) => man.execute(),
            None => self.run.execute(),
            Some(Command::Run(run)) => run.execute(),
            Some(Command::Render(render)) => render.execute(),
            Some(Command::Cleanup(cleanup)) => cleanup.execute(),
            Some(Command::Bugreport(bugreport)) => bugreport.execute(),
        };
        result.map(|()| ExitCode::SUCCESS)
    }
}

/// Warns that there are no tables, and returns the exit code for it.
fn no_tables() -> ExitCode {
    tracing::warn!("no table {TABLE}: kube-dnat has not programmed this node");
    output::AnswerStatus::NotFound.into()
}

/// Inspects kube-dnat's table of family `A`. Returns `None` if it does not exist.
fn inspect_table<A: Address>(kernel: &mut Kernel) -> anyhow::Result<Option<TableShape<A>>> {
    match kernel.inspect::<A>()? {
        TableStatus::Missing => Ok(None),
        TableStatus::Ours(shape) => Ok(Some(shape)),
        TableStatus::Foreign(why) => bail!(
            "the {} table {TABLE} was created by another version ({why}): use that version of kube-dnat",
            A::FAMILY
        ),
    }
}

/// Normalizes an argument as kube-proxy does: underscores in the name of a flag are dashes, and
/// `--version=true` is `--version`.
fn normalize(argument: OsString) -> OsString {
    let Some(text) = argument.to_str() else {
        return argument;
    };
    if !text.starts_with("--") {
        return argument;
    }
    let (name, value) = match text.find('=') {
        Some(equals) => text.split_at(equals),
        None => (text, ""),
    };
    match (name, value) {
        ("--version" | "--help", "=true") => name.into(),
        _ => (name.replace('_', "-") + value).into(),
    }
}

/// Formats an error of clap as one sentence.
#[must_use]
pub fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    // Tips and the usage follow the first empty line.
    let message: Vec<_> = lines.clone().take_while(|line| !line.is_empty()).collect();
    let message = message.join(" ");
    let tips = lines.filter_map(|line| line.strip_prefix("tip: "));
    let parts: Vec<_> = [message.trim_start_matches("error: ")]
        .into_iter()
        .chain(tips)
        .collect();
    format!("{} (see --help)", parts.join("; "))
}
