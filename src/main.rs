//! The `kube-dnat` program: parse the command line, start logging, do it, say in one sentence why
//! not.

use std::process::ExitCode;

use kube_dnat::commands::{self, CommandLine};
use kube_dnat::logging;

fn main() -> ExitCode {
    let line = CommandLine::of_process();
    if let Err(said) = &line
        && !said.use_stderr()
    {
        // Nobody to tell if standard output is closed.
        let _ = said.print();
        return ExitCode::SUCCESS;
    }
    logging::start();
    let done = line
        .map_err(|said| anyhow::anyhow!(commands::sentence(&said)))
        .and_then(CommandLine::execute);
    match done {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{}", logging::ErrorChain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
