//! kube-proxy's configuration in real clusters, and the error for each mistake.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

mod changes;
mod clusters;
mod command_line;
mod document;
mod mistakes;

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use kube_dnat::logging::LogEvent;

/// The outcome of a run of the program.
struct Outcome {
    code: Option<i32>,
    log: Vec<String>,
}

impl Outcome {
    /// The lines of the log at a level.
    fn at(&self, level: &str) -> Vec<&str> {
        let lines = self.log.iter().map(String::as_str);
        lines.filter(|line| line.contains(level)).collect()
    }

    /// The one line of the log with this event.
    fn line(&self, event: LogEvent) -> &str {
        let field = format!("event={event}");
        let has_field = |line: &&String| line.split_whitespace().any(|word| word == field);
        let mut lines = self.log.iter().filter(has_field);
        match (lines.next(), lines.next()) {
            (Some(line), None) => line,
            _ => panic!("not one line has {field}: {:#?}", self.log),
        }
    }

    /// The error that ends the process, as its last line.
    fn error(&self) -> &str {
        let is_error = |line: &&str| line.starts_with("error: ") || line.contains("ERROR");
        let lines = self.log.iter().map(String::as_str);
        let errors: Vec<_> = lines.filter(is_error).collect();
        assert_eq!(errors.len(), 1, "{:#?}", self.log);
        assert_eq!(self.log.last().map(String::as_str), Some(errors[0]));
        errors[0]
    }
}

fn kube_dnat(arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_kube-dnat"))
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    Outcome {
        code: output.status.code(),
        log: log.lines().map(str::to_owned).collect(),
    }
}

/// Writes a configuration file with this body below `apiVersion` and `kind`.
fn write_config(path: &Path, body: &str) {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration";
    fs::write(path, format!("{head}\n{body}\n")).unwrap();
}
