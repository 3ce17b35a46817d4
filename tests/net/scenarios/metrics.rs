//! The expected samples of metrics.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Instant;

use super::objects::APART;
use super::probes;
use super::read::Step;
use crate::lab::{Cluster, DEADLINE, http, patient};

/// One line of a file of metrics: a sample, and the value that it reaches.
#[derive(Debug)]
pub(super) struct Sample {
    /// The file and the text of the line, for failure messages.
    at: String,
    /// The name with its labels, as in the exposition format.
    name: String,
    value: f64,
    /// Whether a higher value is right, too.
    or_more: bool,
}

impl Sample {
    /// Parses `NAME{LABELS} [>=] VALUE`.
    pub(super) fn parse(line: &str, at: String) -> Self {
        let (name, value) = line
            .trim()
            .rsplit_once(' ')
            .unwrap_or_else(|| panic!("the line is no sample: {at}"));
        let name = name.trim_end();
        let at_least = name.strip_suffix(">=");
        Self {
            name: at_least.unwrap_or(name).trim_end().to_owned(),
            value: value.parse().unwrap_or_else(|_| panic!("no value: {at}")),
            or_more: at_least.is_some(),
            at,
        }
    }

    /// Returns the value among all metrics if it is wrong.
    fn fault(&self, metrics: &str) -> Option<String> {
        let of_sample = |line: &str| {
            let value = line.strip_prefix(&self.name)?.strip_prefix(' ')?;
            value.parse::<f64>().ok()
        };
        let value = metrics.lines().find_map(of_sample);
        let is_right = |value: f64| {
            let order = value.total_cmp(&self.value);
            order.is_eq() || self.or_more && order.is_gt()
        };
        (!value.is_some_and(is_right)).then(|| match value {
            Some(value) => value.to_string(),
            None => "there is no such sample".to_owned(),
        })
    }
}

/// Returns the lines of a step that stay wrong. As long as only the lines with `>=` are wrong, the
/// probes are sent again: what is sampled is not every connection.
pub(super) fn check(cluster: &Cluster, step: &Step) -> Vec<String> {
    let (start, deadline) = (Instant::now(), patient(DEADLINE));
    while !step.metrics.is_empty() {
        let to = (Ipv4Addr::LOCALHOST.into(), 10_249);
        let metrics = http::ask(&cluster.node, to, "GET /metrics", "").unwrap_or_default();
        let wrong = step.metrics.iter().filter_map(|sample| {
            let fault = sample.fault(&metrics)?;
            Some((sample, format!("{}\n  but {fault}", sample.at)))
        });
        let wrong: Vec<_> = wrong.collect();
        if wrong.is_empty() {
            break;
        }
        if start.elapsed() > deadline {
            return wrong.into_iter().map(|(_, text)| text).collect();
        }
        if wrong.iter().all(|(sample, _)| sample.or_more) {
            let faults = probes::check(cluster, step);
            if !faults.is_empty() {
                return faults;
            }
        }
        thread::sleep(APART);
    }
    Vec::new()
}
