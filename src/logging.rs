//! Logs go to stderr, as text.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging: `info` and above, or what the environment variable `RUST_LOG` says.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
