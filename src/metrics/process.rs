//! The age and the memory of a process, and its metrics with the names of Prometheus' client
//! libraries.

use std::fmt;
use std::fs;
use std::time::Duration;

use procfs::process::{Process, Stat};
use procfs::{Current as _, Uptime, WithCurrentSystemInfo as _};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::Serialize;

/// The age and the memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessUsage {
    /// Seconds since the start.
    pub running_seconds: u64,
    /// The resident memory in bytes.
    pub resident_bytes: u64,
}

impl ProcessUsage {
    /// Reads the usage of a process from `/proc`; `None` if it has exited.
    #[must_use]
    pub fn of(process: &Process) -> Option<Self> {
        let stat = process.stat().ok()?;
        let now = Uptime::current().ok()?.uptime_duration();
        Some(Self {
            running_seconds: now.saturating_sub(duration(stat.starttime)).as_secs(),
            resident_bytes: stat.rss_bytes().get(),
        })
    }

    /// Reads the usage of this process.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        Self::of(&Process::myself().ok()?)
    }
}

/// A collector that reads `/proc/self` at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(process) = Process::myself() else {
            return Ok(());
        };
        if let Some(kilobytes) = process.status().ok().and_then(|status| status.vmrss) {
            let help = "Resident memory size in bytes";
            let bytes = kilobytes * 1024;
            gauge(&mut encoder, "process_resident_memory_bytes", help, bytes)?;
        }
        let stat = process.stat().ok();
        if let Some(start) = stat.as_ref().and_then(start_time) {
            let help = "Unix time of the start of the process";
            gauge(&mut encoder, "process_start_time_seconds", help, start)?;
        }
        // `Process::fd_count` would count `.` and `..` too before Linux 6.2.
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let help = "Number of open file descriptors";
            let count = u32::try_from(open.count()).unwrap_or(u32::MAX);
            gauge(&mut encoder, "process_open_fds", help, count)?;
        }
        if let Some(stat) = stat {
            let metric = ConstCounter::new(duration(stat.utime + stat.stime).as_secs_f64());
            let (name, kind) = ("process_cpu_seconds", metric.metric_type());
            let help = "Total user and system CPU time in seconds";
            metric.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        Ok(())
    }
}

/// Encodes a gauge.
fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// Returns the Unix time of the start of a process.
fn start_time(stat: &Stat) -> Option<f64> {
    let booted = Duration::from_secs(procfs::boot_time_secs().ok()?);
    Some((booted + duration(stat.starttime)).as_secs_f64())
}

/// Converts clock ticks to a duration.
fn duration(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / procfs::ticks_per_second())
}
