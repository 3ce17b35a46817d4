//! The `kube-dnat` program: parse the command line, start logging, do it, say in one sentence why
//! not.

use std::process::ExitCode;

use clap::Parser;
use kube_dnat::commands::CommandLine;
use kube_dnat::logging;

fn main() -> ExitCode {
    let CommandLine { command } = CommandLine::parse();
    logging::start();
    match command.execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
