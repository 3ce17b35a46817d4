//! `kube-dnat man`: generates the man pages, for packages.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man as Page;

use super::{CommandLine, Plugin};

/// The section of commands for administrators.
const SECTION: &str = "8";

/// The arguments of `kube-dnat man`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Directory to write the pages to: `kube-dnat.8`, one for each subcommand, and `kubectl-dnat.8`.
    directory: PathBuf,

    /// Date of the pages.
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "")]
    date: String,
}

impl Man {
    /// Writes the pages.
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let mut program = CommandLine::command().disable_help_subcommand(true);
        program.build();
        self.write(program.clone())?;
        let commands = program.get_subcommands();
        for command in commands.filter(|command| !command.is_hide_set()) {
            self.write(command.clone())?;
        }
        self.write(Plugin::command().name("kubectl-dnat"))
    }

    fn write(&self, command: Command) -> anyhow::Result<()> {
        let page = Page::new(command)
            .section(SECTION)
            .date(self.date.clone())
            .manual("kube-dnat")
            .source(format!("kube-dnat {}", crate::revision::VERSION));
        page.generate_to(&self.directory)
            .with_context(|| format!("cannot write {}", self.directory.display()))?;
        Ok(())
    }
}
