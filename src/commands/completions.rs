//! `kube-dnat completions`: generates a shell completion script.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{CommandLine, output};

/// The arguments of `kube-dnat completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat completions bash > /usr/share/bash-completion/completions/kube-dnat\n  \
    kube-dnat completions zsh > \"${fpath[1]}/_kube-dnat\"\n  \
    kube-dnat completions fish > ~/.config/fish/completions/kube-dnat.fish")]
pub(super) struct Completions {
    /// Shell to generate the script for.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let mut command = CommandLine::command();
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        generate(self.shell, &mut command, name, &mut script);
        output::print(&script)
    }
}
