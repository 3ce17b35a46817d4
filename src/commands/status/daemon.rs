//! Whether the daemon is running, and the status that it reports over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::following::Following;
use crate::commands::http_get::get;
use crate::commands::processes::{self, PortListener, Process};
use crate::config::{HEALTHZ_PORT, METRICS_PORT};
use crate::http::admin::ReportedStatus;
use crate::metrics::ProcessUsage;
use crate::planner::ruleset::TABLE;

/// The default address of the daemon's health checks.
const HEALTH: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), HEALTHZ_PORT);

/// The default address of the daemon's metrics.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), METRICS_PORT);

/// The status of the daemon, as far as it is known.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DaemonStatus {
    /// Whether a daemon is running in this network namespace.
    pub(super) running: bool,
    /// The process of the daemon.
    process: Option<Process>,
    /// The age and the memory of the process.
    usage: Option<ProcessUsage>,
    /// The version of the daemon.
    version: Option<String>,
    /// Whether changes reach the kernel in time.
    healthy: Option<bool>,
    /// Whether load balancers send connections to this node.
    eligible: Option<bool>,
    /// Seconds since the last commit.
    last_sync_seconds: Option<f64>,
    /// The number of pending changes.
    pending_changes: Option<i64>,
    /// The number of Services whose elements the daemon has not read back yet.
    unread_services: Option<i64>,
    conntrack_cleanup_pending: Option<bool>,
    /// The number of repairs of the tables since the daemon started.
    drift_repairs: Option<u64>,
    /// The number of failed syncs since the daemon started.
    failed_syncs: Option<u64>,
    /// Seconds since the node was drained.
    drained_seconds: Option<f64>,
    /// What the daemon follows.
    #[serde(flatten)]
    following: Following,
    /// The current problems of each object.
    problems: Option<BTreeMap<String, Vec<String>>>,
    /// The reasons why an address does not report the status.
    unavailable: Vec<String>,
}

/// The reason why an address does not report the status of a daemon.
enum StatusUnavailable {
    /// The connection or the request failed.
    Unreachable(anyhow::Error),
    /// A kube-dnat of another version responds.
    AnotherVersion,
    /// Another program responds. During a migration, kube-proxy has the same ports.
    AnotherProgram,
    /// The process that responds is not visible from here.
    Unknown,
}

impl StatusUnavailable {
    /// Describes the reason.
    fn message(&self, address: SocketAddr) -> String {
        match self {
            Self::Unreachable(error) => format!("cannot reach {address}: {}", error.root_cause()),
            Self::AnotherVersion => format!(
                "{TABLE} at {address} does not report its status: it has another version, or this is \
                 not its metrics address"
            ),
            Self::AnotherProgram => format!("another program uses {address}"),
            Self::Unknown => {
                format!("another program, or another version of {TABLE}, uses {address}")
            }
        }
    }
}

/// Requests the status of the daemon at its metrics address.
fn reported_status(address: SocketAddr) -> Result<ReportedStatus, StatusUnavailable> {
    let (status, body) = get(address, "/debug/status").map_err(StatusUnavailable::Unreachable)?;
    if status.is_success()
        && let Ok(reported) = serde_json::from_str(&body)
    {
        return Ok(reported);
    }
    Err(match processes::listener(address.port()) {
        PortListener::Seen(process) if process.name == TABLE => StatusUnavailable::AnotherVersion,
        PortListener::Seen(_) => StatusUnavailable::AnotherProgram,
        PortListener::Nobody | PortListener::Hidden => StatusUnavailable::Unknown,
    })
}

/// Formats a duration by its two largest units, as kubectl does: `3d4h`, `2m5s`.
pub(super) fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, length)| seconds >= *length);
    let mut rest = seconds;
    let parts = units.iter().skip(first.unwrap_or(units.len() - 1)).take(2);
    let parts = parts.map(|(unit, length)| {
        let count = rest / length;
        rest %= length;
        format!("{count}{unit}")
    });
    parts.collect()
}

/// Asks addresses one after another until an answer fits; returns the last answer otherwise.
fn first<T, E>(
    addresses: &[SocketAddr],
    ask: impl Fn(SocketAddr) -> Result<T, E>,
    fits: impl Fn(&T) -> bool,
) -> (SocketAddr, Result<T, E>) {
    let (last, others) = addresses
        .split_last()
        .map_or((&HEALTH, &[][..]), |(last, others)| (last, others));
    let answers = others.iter().map(|address| (*address, ask(*address)));
    let fitting = answers
        .into_iter()
        .find(|(_, answer)| answer.as_ref().is_ok_and(&fits));
    fitting.unwrap_or_else(|| (*last, ask(*last)))
}

/// Whether this is an answer of kube-dnat's or kube-proxy's `/livez`, and not that of a Service's
/// health check.
fn is_health((_, body): &(StatusCode, String)) -> bool {
    serde_json::from_str::<serde_json::Value>(body)
        .is_ok_and(|report| report.get("currentTime").is_some())
}

/// Whether kube-dnat can be the program that listens on this port.
fn can_be_kube_dnat(address: SocketAddr) -> bool {
    match processes::listener(address.port()) {
        PortListener::Seen(process) => process.name == TABLE,
        PortListener::Nobody | PortListener::Hidden => true,
    }
}

impl DaemonStatus {
    /// Finds the daemon: the owner of the tables, or a process with its name.
    pub(super) fn find(has_owner: bool, process: Option<Process>) -> Self {
        let process = process.or_else(|| processes::daemons().into_iter().next());
        Self {
            running: has_owner || process.is_some(),
            usage: process.as_ref().and_then(processes::usage),
            process,
            ..Self::default()
        }
    }

    /// Requests the status at both addresses of the daemon at once. Without an address, this is the
    /// default one, or another one at which the process listens.
    pub(super) fn request(&mut self, health: Option<SocketAddr>, metrics: Option<SocketAddr>) {
        let health = self.addresses(health, HEALTH);
        let metrics = self.addresses(metrics, METRICS);
        let (live, (address, reported)) = thread::scope(|scope| {
            let live = scope.spawn(|| first(&health, |address| get(address, "/livez"), is_health));
            let reported = first(&metrics, reported_status, |_| true);
            let live = live
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (live, reported)
        });
        self.set_health(live, &reported);
        match reported {
            Ok(status) => {
                self.set(status);
                if self.healthy.is_none() {
                    // Without an address for health checks, this answers 200 after the first commit.
                    let ready = get(address, "/healthz");
                    self.healthy = ready.ok().map(|(status, _)| status.is_success());
                }
                let problems = get(address, "/debug/problems");
                self.problems = problems
                    .ok()
                    .filter(|(status, _)| status.is_success())
                    .and_then(|(_, problems)| serde_json::from_str(&problems).ok());
            }
            Err(reason) => self.unavailable.push(reason.message(address)),
        }
    }

    /// Takes over the answer of `/livez`.
    fn set_health(
        &mut self,
        (address, live): (SocketAddr, anyhow::Result<(StatusCode, String)>),
        reported: &Result<ReportedStatus, StatusUnavailable>,
    ) {
        let is_kube_dnat = match reported {
            Ok(_) | Err(StatusUnavailable::AnotherVersion) => true,
            Err(StatusUnavailable::Unreachable(_)) => can_be_kube_dnat(address),
            Err(StatusUnavailable::AnotherProgram | StatusUnavailable::Unknown) => false,
        };
        match live {
            Ok(answer) if is_kube_dnat && !is_health(&answer) => self.unavailable.push(format!(
                "{TABLE} does not answer health checks at {address}"
            )),
            Ok((status, _)) if is_kube_dnat => {
                self.running = true;
                self.healthy = Some(status.is_success());
                // The same request as that of a load balancer.
                let eligible = get(address, "/healthz");
                self.eligible = eligible.ok().map(|(status, _)| status.is_success());
            }
            Ok(_) => self
                .unavailable
                .push(StatusUnavailable::AnotherProgram.message(address)),
            Err(error) => self
                .unavailable
                .push(StatusUnavailable::Unreachable(error).message(address)),
        }
    }

    /// Returns the addresses at which the daemon may answer.
    fn addresses(&self, given: Option<SocketAddr>, default: SocketAddr) -> Vec<SocketAddr> {
        let process = self.process.as_ref();
        let sockets = process.map(processes::listening_addresses);
        let sockets = sockets.unwrap_or_default();
        let (at_default, others): (Vec<_>, Vec<_>) = sockets
            .into_iter()
            .partition(|socket| socket.port() == default.port());
        match given {
            Some(given) => vec![given],
            None if !at_default.is_empty() => at_default,
            None if !others.is_empty() => others,
            None => vec![default],
        }
    }

    /// Takes over the reported status.
    fn set(&mut self, status: ReportedStatus) {
        let ReportedStatus {
            version,
            last_sync_seconds,
            pending_changes,
            unread_services,
            conntrack_cleanup_pending,
            drift_repairs,
            failed_syncs,
            drained_seconds,
            node,
            source,
            takeover_waits_for,
        } = status;
        self.running = true;
        self.version = Some(version);
        self.last_sync_seconds = last_sync_seconds;
        self.pending_changes = Some(pending_changes);
        self.unread_services = Some(unread_services);
        self.conntrack_cleanup_pending = Some(conntrack_cleanup_pending);
        self.drift_repairs = Some(drift_repairs);
        self.failed_syncs = Some(failed_syncs);
        self.drained_seconds = drained_seconds;
        self.following = Following {
            node,
            source,
            takeover_waits_for,
        };
    }

    /// Whether the daemon is running, healthy, and eligible for load balancers. A daemon whose health
    /// is unknown is not.
    pub(super) fn is_ready(&self) -> bool {
        self.running
            && self.healthy == Some(true)
            && self.eligible != Some(false)
            && !self.following.lacks_node()
    }

    /// Writes the lines below the first one.
    pub(super) fn write_details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reason in &self.unavailable {
            writeln!(f, "           {reason}")?;
        }
        if let Some(ProcessUsage {
            running_seconds,
            resident_bytes,
        }) = self.usage
        {
            let age = Duration::from_secs(running_seconds);
            let memory = resident_bytes / 1_000_000;
            writeln!(
                f,
                "process    running for {}, {memory} MB of memory",
                rounded(age)
            )?;
        }
        if let (Some(seconds), Some(pending)) = (self.last_sync_seconds, self.pending_changes) {
            writeln!(
                f,
                "last sync  {seconds:.0} s ago; pending changes: {pending}"
            )?;
        }
        if let Some(seconds) = self.drained_seconds {
            let since = rounded(Duration::from_secs_f64(seconds.max(0.0)));
            writeln!(
                f,
                "drained    for {since}: load-balancer health checks answer 503; `kube-dnat undrain` ends this"
            )?;
        }
        if let Some(unread) = self.unread_services.filter(|unread| *unread > 0) {
            writeln!(f, "read-back  Services not read yet: {unread}")?;
        }
        if self.conntrack_cleanup_pending == Some(true) {
            writeln!(
                f,
                "conntrack  cleanup pending: flows may continue to endpoints that are gone"
            )?;
        }
        if let (Some(failed), Some(repairs)) = (self.failed_syncs, self.drift_repairs) {
            writeln!(
                f,
                "drift      table repairs: {repairs}; failed syncs: {failed}"
            )?;
        }
        write!(f, "{}", self.following)?;
        for line in self.problem_lines() {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }

    /// Formats the problems, one line each, up to the size of a screen.
    fn problem_lines(&self) -> Vec<String> {
        const LINES: usize = 20;
        let problems = self.problems.iter().flatten();
        let mut lines: Vec<_> = problems
            .flat_map(|(object, reasons)| {
                let reasons = reasons.iter();
                reasons.map(move |reason| format!("PROBLEM    {object}: {reason}"))
            })
            .collect();
        let more = lines.len().saturating_sub(LINES);
        lines.truncate(LINES);
        if more > 0 {
            lines.push(format!("           and {more} more, see status -o json"));
        }
        lines
    }
}

impl fmt::Display for DaemonStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.running {
            return f.write_str("not running");
        }
        f.write_str("running")?;
        if let Some(process) = &self.process {
            write!(f, ", {process}")?;
        }
        if let Some(version) = &self.version {
            write!(f, ", version {version}")?;
        }
        match (self.healthy, self.eligible) {
            (Some(false), _) => f.write_str(", NOT healthy"),
            (Some(true), Some(false)) if self.drained_seconds.is_some() => {
                f.write_str(", healthy, DRAINED")
            }
            (Some(true), Some(false)) => f.write_str(
                ", healthy, but NOT ready for load balancers: the Node is being removed or is unknown",
            ),
            (Some(true), _) => f.write_str(", healthy"),
            (None, _) => f.write_str(", health UNKNOWN"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (125, "2m5s"),
            (11_520, "3h12m"),
            (273_600, "3d4h"),
        ] {
            assert_eq!(rounded(Duration::from_secs(seconds)), text);
        }
    }
}
