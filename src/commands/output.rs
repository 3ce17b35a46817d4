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

/// Formats rows as a table, with columns as wide as their longest cell. The last cell of a row has no
/// effect on the width, and a row may be shorter than the others.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        let cells = row.split_last().map_or(&[][..], |(_last, cells)| cells);
        widths.resize(widths.len().max(cells.len()), 0);
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = cell.len().max(*width);
        }
    }
    let line = |row: &Vec<String>| {
        let widths = widths.iter().chain(std::iter::repeat(&0));
        let cells = row.iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let rows: [Vec<String>; 4] = [
            row(&["NODE", "STATE", "VERSION"]),
            row(&["a", "healthy", "0.1.0 (a long one)"]),
            row(&["node-1", "kubectl: a long error, which widens no column"]),
            row(&["node-2", "", "0.1.0"]),
        ];
        let expected = "NODE     STATE     VERSION\n\
            a        healthy   0.1.0 (a long one)\n\
            node-1   kubectl: a long error, which widens no column\n\
            node-2             0.1.0\n";
        assert_eq!(table(&rows), expected);
        assert_eq!(table(&[]), "");
    }
}
