//! How the commands for people answer.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

/// The answer is bad news: refused, not running, to be mended.
pub(super) const BAD_NEWS: u8 = 2;

/// There is nothing: no such Service or address, or no tables of ours.
pub(super) const NOTHING: u8 = 3;

/// A form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people.
    Text,
    /// For programs: one JSON value.
    Json,
}

impl OutputFormat {
    /// Prints an answer.
    pub(super) fn print(self, answer: &(impl Display + Serialize)) -> anyhow::Result<()> {
        let text = match self {
            Self::Text => answer.to_string(),
            Self::Json => serde_json::to_string_pretty(answer)? + "\n",
        };
        print(text.as_bytes())
    }
}

/// Prints to standard output.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(bytes) {
        // Who reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// The exit code for an answer.
pub(super) fn code(bad_news: bool, nothing: bool) -> ExitCode {
    match (bad_news, nothing) {
        (_, true) => NOTHING.into(),
        (true, false) => BAD_NEWS.into(),
        (false, false) => ExitCode::SUCCESS,
    }
}
