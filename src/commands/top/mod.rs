//! `kube-dnat top`: the rate of new connections by Service and endpoint.

mod sample;
mod table;
mod view;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use clap_complete::ArgValueCompleter;
use sample::{RECEIVE_INTERVAL, Sampler};
use table::{NewByEndpoint, Rates, Selection, SortOrder};
use view::View;

use super::completions::namespaces;
use super::no_tables;
use super::output::OutputFormat;

/// The arguments of `kube-dnat top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys: q quits; r, t, s sort by rate, total or Service; e toggles endpoints; arrow keys scroll.\n\n\
    The numbers of a Service are the counters of its elements, also those of denied connections. The \
    numbers of an endpoint, and its share of them, come from conntrack events while top is running.\n\n\
    Examples:\n  \
    kube-dnat top\n  \
    kube-dnat top -n shop\n  \
    kube-dnat top --once --interval 5 --limit 10 -o json\n\n\
    Exit codes:\n  0  success\n  1  error: wrong usage, no permission, no nftables\n  3  no kube-dnat tables"
)]
pub(super) struct Top {
    /// Print one table and exit.
    #[arg(long)]
    once: bool,

    /// Seconds between samples.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,

    /// Only Services in this namespace.
    #[arg(short, long, value_name = "NAMESPACE", add = ArgValueCompleter::new(namespaces))]
    namespace: Option<String>,

    /// Maximum number of Service ports, the first ones of the sort order.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,

    /// Sort order.
    #[arg(long, value_enum, default_value = "rate")]
    sort: SortOrder,

    /// Output format of --once.
    #[arg(short, long, value_enum, default_value = "text", requires = "once")]
    output: OutputFormat,
}

/// Parses an interval in seconds.
fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_error| "not a number")?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be between 0.1 and 3600 seconds".to_owned())
    }
}

impl Top {
    /// Measures the rates, and prints or shows them.
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Self {
            once,
            interval,
            namespace,
            limit,
            sort,
            output,
        } = self;
        let selection = Selection {
            order: sort,
            namespace,
            limit,
        };
        if !once && !io::stdout().is_terminal() {
            bail!("standard output is not a terminal: use --once");
        }
        let Some(mut sampler) = Sampler::open()? else {
            return Ok(no_tables());
        };
        let interval = Duration::from_secs_f64(interval);
        if once {
            output.print(&measure_once(&mut sampler, interval, &selection)?)?;
        } else {
            ratatui::run(|terminal| View::new(selection).run(terminal, &mut sampler, interval))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Measures the rates of one interval.
fn measure_once(
    sampler: &mut Sampler,
    interval: Duration,
    selection: &Selection,
) -> anyhow::Result<Rates> {
    let before = sampler.counters()?;
    // Discards connections that began before the interval.
    sampler.receive(&before, &mut NewByEndpoint::default())?;
    let mut received = NewByEndpoint::default();
    let start = Instant::now();
    loop {
        let left = interval.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        thread::sleep(left.min(RECEIVE_INTERVAL));
        sampler.receive(&before, &mut received)?;
    }
    let after = sampler.counters()?;
    sampler.receive(&after, &mut received)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut rates = Rates::new(&before, &after, &received, seconds);
    rates.select(selection);
    Ok(rates)
}
