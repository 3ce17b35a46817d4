//! The subcommands, one file each.

mod cleanup;
mod flags;
mod render;
mod run;

use clap::{Parser, Subcommand};

/// Serves Kubernetes Services on this node with a few nftables maps.
///
/// A replacement for kube-proxy: Services and EndpointSlices become elements of fixed maps, which
/// `nft list table ip kube-dnat` (and `ip6`) shows.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Program this node and keep it up to date until SIGTERM; the rules stay.
    Run(run::Run),
    /// Print the ruleset that `run` would program, without touching the kernel.
    Render(render::Render),
    /// Remove our tables from this node.
    Cleanup(cleanup::Cleanup),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What keeps it from being done, as one sentence.
    pub fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::Run(run) => run.execute(),
            Self::Render(render) => render.execute(),
            Self::Cleanup(cleanup) => cleanup.execute(),
        }
    }
}
