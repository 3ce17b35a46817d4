//! The subcommands, one file each.

mod ask;
mod check;
mod cleanup;
mod completions;
mod configuration;
mod explain;
mod flags;
mod output;
mod processes;
mod render;
mod run;
mod status;
mod top;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};

use crate::netlink::{Kernel, TableShape, TableStatus};
use crate::planner::model::Address;
use crate::planner::ruleset::TABLE;

/// Serves Kubernetes Services on this node with a few nftables maps.
///
/// A replacement for kube-proxy: Services and EndpointSlices become elements of fixed maps, which
/// `nft list table ip kube-dnat` (and `ip6`) shows.
///
/// kube-proxy's flags and its configuration file are taken as they are; without a subcommand, `run`
/// is meant, as its DaemonSet has it.
#[derive(Debug, Parser)]
#[command(
    version,
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
    reason = "there is one of them, for a moment"
)]
enum Command {
    /// Program this node and keep it up to date until SIGTERM; the rules stay.
    Run(run::Run),
    /// Say what happens to a connection, by the rules in the kernel.
    Explain(explain::Explain),
    /// Tell whether it runs, and what is programmed.
    Status(status::Status),
    /// Show new connections a second, by Service and endpoint.
    Top(top::Top),
    /// Check whether this node is ready for kube-dnat. Changes nothing.
    Check(check::Check),
    /// Print the ruleset that `run` would program, without touching the kernel.
    Render(render::Render),
    /// Remove our tables from this node, and what kube-proxy left.
    Cleanup(cleanup::Cleanup),
    /// Print what makes a shell complete this command line.
    Completions(completions::Completions),
}

impl CommandLine {
    /// The command line of this process.
    ///
    /// # Errors
    /// If it makes no sense, or asks for help or the version.
    pub fn of_process() -> Result<Self, clap::Error> {
        Self::try_parse_from(std::env::args_os().map(with_dashes))
    }

    /// Does it. The exit code: 0, or 2 for bad news, or 3 for nothing found.
    ///
    /// # Errors
    /// What keeps it from being done, as one sentence.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let done = match self.command {
            Some(Command::Explain(explain)) => return explain.execute(),
            Some(Command::Status(status)) => return status.execute(),
            Some(Command::Top(top)) => return top.execute(),
            Some(Command::Check(check)) => return check.execute(),
            Some(Command::Completions(completions)) => completions.execute(),
            None => self.run.execute(),
            Some(Command::Run(run)) => run.execute(),
            Some(Command::Render(render)) => render.execute(),
            Some(Command::Cleanup(cleanup)) => cleanup.execute(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// The shape of our table of family `A`; `None`: there is none.
fn ours<A: Address>(kernel: &mut Kernel) -> anyhow::Result<Option<TableShape<A>>> {
    match kernel.look::<A>()? {
        TableStatus::Nothing => Ok(None),
        TableStatus::Ours(shape) => Ok(Some(shape)),
        TableStatus::Foreign(why) => bail!(
            "the {} table {TABLE} is not of this version ({why}): use the kube-dnat that made it",
            A::FAMILY
        ),
    }
}

/// kube-proxy takes an underscore in the name of a flag for a dash, and `--version=true`.
fn with_dashes(argument: OsString) -> OsString {
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

/// What clap says is wrong with a command line, as one sentence.
#[must_use]
pub fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    // Behind the first empty line are tips and the usage.
    let lines = text.lines().map(str::trim);
    let said = lines.clone().take_while(|line| !line.is_empty());
    let said = said.collect::<Vec<_>>().join(" ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    let tips = lines.filter_map(|line| line.strip_prefix("tip: "));
    let said: Vec<_> = [said].into_iter().chain(tips).collect();
    format!("{} (see --help)", said.join("; "))
}
