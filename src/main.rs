//! The `kube-dnat` program: parses the command line, executes the subcommand, and logs an error as
//! one sentence.

use std::process::ExitCode;

use kube_dnat::commands::{self, CommandLine};
use kube_dnat::logging;

fn main() -> ExitCode {
    let line = CommandLine::of_process();
    if let Err(help) = &line
        && !help.use_stderr()
    {
        // An error here means that standard output is closed.
        let _ = help.print();
        return ExitCode::SUCCESS;
    }
    logging::start();
    let result = line
        .map_err(|error| anyhow::anyhow!(commands::sentence(&error)))
        .and_then(CommandLine::execute);
    match result {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{}", logging::ErrorChain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
