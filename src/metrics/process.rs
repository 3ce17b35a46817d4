//! What the kernel knows of this process, under the names of Prometheus' own clients.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux that there is (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

/// Bytes of `/proc/self/statm`'s pages on every architecture that kube-dnat is built for.
const KILOBYTE: f64 = 1024.0;

/// Reads `/proc/self` when it is asked.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let metric = ConstGauge::new(value);
            let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(encoder)
        };
        if let Some(resident) = kilobytes("VmRSS:") {
            let bytes = resident * KILOBYTE;
            gauge("process_resident_memory_bytes", "Resident memory", bytes)?;
        }
        if let Some(start) = start_time() {
            gauge(
                "process_start_time_seconds",
                "When this process began",
                start,
            )?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let count = u32::try_from(open.count()).unwrap_or(u32::MAX);
            gauge(
                "process_open_fds",
                "Open file descriptors",
                f64::from(count),
            )?;
        }
        if let Some(seconds) = cpu_seconds() {
            let metric = ConstCounter::new(seconds);
            let help = "Processor time in user space and in the kernel";
            let encoder = encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                metric.metric_type(),
            )?;
            metric.encode(encoder)?;
        }
        Ok(())
    }
}

/// A line of `/proc/self/status`.
fn kilobytes(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Field `number` of `/proc/self/stat` (`proc_pid_stat(5)`), from 3 on: those before may have spaces.
fn stat(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields
        .split_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS_A_SECOND)
}

/// Seconds since 1970.
fn start_time() -> Option<f64> {
    let stat_of_all = fs::read_to_string("/proc/stat").ok()?;
    let booted = stat_of_all
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.trim().parse::<f64>().ok()? + stat(22)? / TICKS_A_SECOND)
}
