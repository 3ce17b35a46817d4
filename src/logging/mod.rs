//! Logs go to stderr, as text or as JSON.

mod log_event;

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tracing::{Event, Subscriber, info};
use tracing_subscriber::fmt::format::{self, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

pub use log_event::LogEvent;

/// Where the filter can be changed, once logging has started.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// The verbosity that was last set.
static VERBOSITY: AtomicU32 = AtomicU32::new(0);

/// What SIGUSR1 switches to and back from.
const VERBOSE: u32 = 4;

/// What klog's users expect of `-v`: 4 for debugging, 6 for every request to the API server, 8 for
/// what is in them. Of the Kubernetes client, only what we do not say ourselves, once.
fn directives(verbosity: u32) -> &'static str {
    match verbosity {
        0..=3 => "info,kube_client=error,kube_runtime=error",
        4..=5 => "info,kube_dnat=debug,kube_client=error,kube_runtime=error",
        6..=7 => "debug,hyper_util=info",
        _ => "trace",
    }
}

/// Starts logging: `info` and above, or what the environment variable `RUST_LOG` says.
pub fn start() {
    let filter = EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(directives(0)));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(LogLines {
            text: format::format().with_target(false),
            json: format::format()
                .json()
                .flatten_event(true)
                .with_target(false),
        });
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    // Once a process.
    let _again = FILTER.set(handle);
}

/// From now on logs as the configuration has it; `RUST_LOG` counts more than a verbosity.
pub fn configure(json: bool, verbosity: u32) {
    JSON.store(json, Ordering::Relaxed);
    VERBOSITY.store(verbosity, Ordering::Relaxed);
    if std::env::var_os("RUST_LOG").is_none() {
        filter(verbosity);
    }
}

/// From now on logs at klog's `-v=verbosity`.
pub fn set_verbosity(verbosity: u32) {
    VERBOSITY.store(verbosity, Ordering::Relaxed);
    filter(verbosity);
    info!(
        event = %LogEvent::LogVerbosityChanged,
        verbosity, "log verbosity changed"
    );
}

/// Between the configured verbosity and one for debugging.
pub fn toggle() {
    if VERBOSITY.load(Ordering::Relaxed) < VERBOSE {
        set_verbosity(VERBOSE);
    } else {
        set_verbosity(0);
    }
}

fn filter(verbosity: u32) {
    if let Some(handle) = FILTER.get() {
        // It fails only when logging has ended.
        let _ended = handle.reload(EnvFilter::new(directives(verbosity)));
    }
}

/// Lines in the format that is asked for at the moment.
struct LogLines {
    text: Format,
    json: Format<format::Json>,
}

impl<S, N> FormatEvent<S, N> for LogLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if JSON.load(Ordering::Relaxed) {
            self.json.format_event(context, writer, event)
        } else {
            self.text.format_event(context, writer, event)
        }
    }
}

/// An error with what caused it, on one line; many errors quote their cause themselves, and then it
/// is not said twice.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}
