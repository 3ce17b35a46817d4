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
use sample::{HEARING, HeardConnections, Sampler};
use table::{Rates, SortOrder};
use tracing::warn;
use view::View;

use super::output::{AnswerStatus, OutputFormat};
use crate::planner::ruleset::TABLE;

/// The arguments of `kube-dnat top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys: q quits; r, t, s sort by rate, total or Service; e toggles endpoints; arrow keys scroll.\n\n\
    The numbers of a Service are the counters of its elements. The numbers of an endpoint come from \
    conntrack events while top is running.\n\n\
    Examples:\n  \
    kube-dnat top\n  \
    kube-dnat top --once --interval 5 -o json\n\n\
    Exit codes:\n  0  success\n  1  error: wrong usage, no permission, no nftables\n  3  no kube-dnat tables"
)]
pub(super) struct Top {
    /// Print one table and exit.
    #[arg(long)]
    once: bool,

    /// Seconds between samples.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,

    /// Sort order.
    #[arg(long, value_enum, default_value = "rate")]
    sort: SortOrder,

    /// Output format of --once.
    #[arg(short, long, value_enum, default_value = "text", requires = "once")]
    output: OutputFormat,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_error| "not a number")?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("not between 0.1 and 3600 seconds".to_owned())
    }
}

impl Top {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Self {
            once,
            interval,
            sort,
            output,
        } = self;
        if !once && !io::stdout().is_terminal() {
            bail!("standard output is no terminal: use --once");
        }
        let Some(mut sampler) = Sampler::open()? else {
            warn!("there is no table {TABLE} here: kube-dnat has not programmed this node");
            return Ok(AnswerStatus::NotFound.into());
        };
        let interval = Duration::from_secs_f64(interval);
        if once {
            output.print(&one(&mut sampler, interval, sort)?)?;
        } else {
            ratatui::run(|terminal| View::new(sort).run(terminal, &mut sampler, interval))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn one(sampler: &mut Sampler, interval: Duration, order: SortOrder) -> anyhow::Result<Rates> {
    let before = sampler.counters()?;
    // What began before is not of this interval.
    sampler.hear(&before, &mut HeardConnections::default())?;
    let mut heard = HeardConnections::default();
    let since = Instant::now();
    loop {
        let left = interval.saturating_sub(since.elapsed());
        if left.is_zero() {
            break;
        }
        thread::sleep(left.min(HEARING));
        sampler.hear(&before, &mut heard)?;
    }
    let after = sampler.counters()?;
    sampler.hear(&after, &mut heard)?;
    let seconds = since.elapsed().as_secs_f64();
    let mut rates = Rates::new(&before, &after, &heard.to, heard.missed, seconds);
    rates.sort(order);
    Ok(rates)
}
