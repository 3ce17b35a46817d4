//! The `kube-dnat` program: parse the command line, start logging, do it, say in one sentence why
//! not.

use std::process::ExitCode;

use clap::Parser;
use kube_dnat::commands::CommandLine;
use kube_dnat::logging;

fn main() -> ExitCode {
    let CommandLine { command } = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(said) => {
            // Nobody to tell if standard output or error is closed.
            let _ = said.print();
            return if said.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    logging::start();
    match command.execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", logging::Causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
