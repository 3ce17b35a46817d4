//! The log on standard error, as text or JSON, with a verbosity that can change at runtime.

mod log_event;
mod recent;

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tracing::{Event, Level, Subscriber, info};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{self, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

pub use log_event::LogEvent;
pub use recent::recent;

/// The handle that changes the filter. It is set when logging starts.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// Whether the log is JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// The configured verbosity.
static CONFIGURED: AtomicU32 = AtomicU32::new(0);

/// The current verbosity.
static VERBOSITY: AtomicU32 = AtomicU32::new(0);

/// The verbosity of debug messages, which SIGUSR1 selects.
const DEBUG: u32 = 4;

/// Returns the filter of a verbosity, as users of klog expect: 4 for debug messages, 6 for the
/// requests to the API server, 8 for everything.
///
/// The warnings of the Kubernetes client are left out, because kube-dnat logs the same conditions.
fn directives(verbosity: u32) -> &'static str {
    match verbosity {
        0..=3 => "info,kube_client=error,kube_runtime=error",
        4..=5 => "info,kube_dnat=debug,kube_client=error,kube_runtime=error",
        6..=7 => "debug,hyper_util=info",
        _ => "trace",
    }
}

/// The form of the lines on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStyle {
    /// The log of the daemon: time, level, message and fields, or JSON.
    Log,
    /// The messages of a command to its user: `error: ...`, `warning: ...`, or the message alone.
    Messages,
}

/// Starts logging at level `info` and above, or with the filter in the environment variable
/// `RUST_LOG`.
pub fn start(style: LogStyle) {
    let (filter, handle) = reload::Layer::new(configured_filter());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(LogLines::new(style));
    // The libraries' own lines would displace kube-dnat's at a high verbosity.
    let kept = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("kube_dnat", LevelFilter::DEBUG);
    let kept_lines = tracing_subscriber::fmt::layer()
        .with_writer(|| recent::RecentWriter)
        .with_ansi(false)
        .event_format(LogLines::new(style))
        .with_filter(kept);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(kept_lines)
        .init();
    // The process starts logging once: `init` panics otherwise.
    let _already_set = FILTER.set(handle);
}

/// Applies the configured format and verbosity. `RUST_LOG` takes precedence over the verbosity.
pub fn configure(json: bool, verbosity: u32) {
    JSON.store(json, Ordering::Relaxed);
    CONFIGURED.store(verbosity, Ordering::Relaxed);
    VERBOSITY.store(verbosity, Ordering::Relaxed);
    set_filter(configured_filter());
}

/// Sets the verbosity, as klog's `-v` does.
pub fn set_verbosity(verbosity: u32) {
    change(verbosity, EnvFilter::new(directives(verbosity)));
}

/// Switches to debug messages, and back to the configured verbosity.
pub fn toggle() {
    let configured = CONFIGURED.load(Ordering::Relaxed);
    let verbosity = toggled(VERBOSITY.load(Ordering::Relaxed), configured);
    if verbosity == configured {
        change(verbosity, configured_filter());
    } else {
        set_verbosity(verbosity);
    }
}

/// Returns the verbosity that follows `current` when it is toggled.
fn toggled(current: u32, configured: u32) -> u32 {
    if current < DEBUG {
        configured.max(DEBUG)
    } else {
        configured
    }
}

/// Returns the filter in `RUST_LOG`, or that of the configured verbosity.
fn configured_filter() -> EnvFilter {
    EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(directives(CONFIGURED.load(Ordering::Relaxed))))
}

/// Changes the verbosity and its filter, and logs the change.
fn change(verbosity: u32, filter: EnvFilter) {
    VERBOSITY.store(verbosity, Ordering::Relaxed);
    set_filter(filter);
    info!(
        event = %LogEvent::LogVerbosityChanged,
        verbosity, "log verbosity changed"
    );
}

/// Replaces the filter of the log.
fn set_filter(filter: EnvFilter) {
    if let Some(handle) = FILTER.get() {
        // Fails only after the subscriber is gone, at the end of the process.
        let _gone = handle.reload(filter);
    }
}

/// A formatter that uses the configured format for each line.
struct LogLines {
    /// The form of the lines.
    style: LogStyle,
    /// The formatter of text.
    text: Format,
    /// The formatter of JSON.
    json: Format<format::Json>,
}

impl LogLines {
    /// Creates the formatter.
    fn new(style: LogStyle) -> Self {
        Self {
            style,
            text: format::format().with_target(false),
            json: format::format()
                .json()
                .flatten_event(true)
                .with_target(false),
        }
    }
}

impl<S, N> FormatEvent<S, N> for LogLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.style == LogStyle::Messages {
            let level = *event.metadata().level();
            if level == Level::ERROR {
                writer.write_str("error: ")?;
            } else if level == Level::WARN {
                writer.write_str("warning: ")?;
            }
            context.format_fields(writer.by_ref(), event)?;
            return writeln!(writer);
        }
        if JSON.load(Ordering::Relaxed) {
            self.json.format_event(context, writer, event)
        } else {
            self.text.format_event(context, writer, event)
        }
    }
}

/// Formats an error and its causes on one line. A cause that an error quotes itself is not
/// repeated.
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

#[cfg(test)]
mod tests {
    use super::toggled;

    #[test]
    fn toggling_returns_to_the_configured_verbosity() {
        for (configured, sequence) in [
            (0, [4, 0, 4]),
            (2, [4, 2, 4]),
            // The log is verbose already: it never becomes quieter than configured.
            (6, [6, 6, 6]),
        ] {
            let mut current = configured;
            for expected in sequence {
                current = toggled(current, configured);
                assert_eq!(current, expected, "-v={configured}");
            }
        }
        // After a PUT to /debug/flags/v.
        assert_eq!(toggled(8, 2), 2);
        assert_eq!(toggled(0, 6), 6);
    }
}
