//! Output formats and exit codes of the subcommands.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

/// What an answer means for the exit code of the subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerStatus {
    /// The answer is as it should be: exit code 0.
    Fine,
    /// The answer is a problem (rejected, not running, not ready): exit code 2.
    Problem,
    /// There is no such Service or address, or no kube-dnat table: exit code 3.
    NotFound,
}

impl From<AnswerStatus> for ExitCode {
    fn from(status: AnswerStatus) -> Self {
        match status {
            AnswerStatus::Fine => Self::SUCCESS,
            AnswerStatus::Problem => 2.into(),
            AnswerStatus::NotFound => 3.into(),
        }
    }
}

/// The output format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// Human-readable text.
    Text,
    /// One JSON value.
    Json,
}

impl OutputFormat {
    /// Prints an answer to standard output.
    pub(super) fn print(self, answer: &(impl Display + Serialize)) -> anyhow::Result<()> {
        let text = match self {
            Self::Text => answer.to_string(),
            Self::Json => serde_json::to_string_pretty(answer)? + "\n",
        };
        print(text.as_bytes())
    }
}

/// Writes bytes to standard output. A closed pipe is not an error.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(bytes) {
        // The reader has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
