//! Whether the daemon is running, and what it reports about itself over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

use crate::commands::ask;
use crate::commands::processes::{self, PortListener, Process};
use crate::http::admin::ReportedStatus;
use crate::planner::ruleset::TABLE;

/// What the daemon says of itself.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DaemonStatus {
    pub(super) running: bool,
    process: Option<Process>,
    version: Option<String>,
    healthy: Option<bool>,
    /// Whether load balancers are to send connections here.
    eligible: Option<bool>,
    /// Seconds since the last commit.
    last_sync_seconds: Option<f64>,
    /// Changes that wait for a sync.
    pending_changes: Option<i64>,
    /// Repairs of what others did to the tables, since it started.
    drift_repairs: Option<u64>,
    /// Syncs that failed, since it started.
    failed_syncs: Option<u64>,
    /// What is wrong with which object.
    wrong: Option<BTreeMap<String, Vec<String>>>,
    /// Why it could not be asked.
    silent: Vec<String>,
}

/// Why an address does not report the status of a daemon.
enum StatusUnavailable {
    /// Nothing answers.
    Unreachable(anyhow::Error),
    /// A daemon of ours answers what this version does not read.
    AnotherVersion,
    /// Another program answers: kube-proxy, from which we may be migrating, has the same ports.
    AnotherProgram,
    /// The process that answers cannot be seen from here.
    Unknown,
}

impl StatusUnavailable {
    fn at(&self, address: SocketAddr) -> String {
        match self {
            Self::Unreachable(error) => format!("cannot ask {address}: {}", error.root_cause()),
            Self::AnotherVersion => format!(
                "{TABLE} at {address} does not report its status: it is of another version, or this \
                 is not its metrics address"
            ),
            Self::AnotherProgram => format!("{address} is answered by another program"),
            Self::Unknown => {
                format!(
                    "{address} is answered by another program, or by another version of {TABLE}"
                )
            }
        }
    }
}

/// What the daemon at this address for metrics reports about itself.
fn reported(address: SocketAddr) -> Result<ReportedStatus, StatusUnavailable> {
    let (status, body) =
        ask::get(address, "/debug/status").map_err(StatusUnavailable::Unreachable)?;
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

/// Whether a daemon of ours listens at this port, as far as can be seen from here.
fn may_be_ours(address: SocketAddr) -> bool {
    match processes::listener(address.port()) {
        PortListener::Seen(process) => process.name == TABLE,
        PortListener::Nobody | PortListener::Hidden => true,
    }
}

impl DaemonStatus {
    /// Looks for the daemon: the owner of the tables, or a process of its name.
    pub(super) fn find(has_owner: bool, process: Option<Process>) -> Self {
        let process = process.or_else(|| processes::daemons().into_iter().next());
        Self {
            running: has_owner || process.is_some(),
            process,
            ..Self::default()
        }
    }

    /// Asks it at both of its addresses.
    pub(super) fn ask(&mut self, health: SocketAddr, metrics: SocketAddr) {
        let live = ask::get(health, "/livez");
        let reported = reported(metrics);
        let is_ours = match &reported {
            Ok(_) | Err(StatusUnavailable::AnotherVersion) => true,
            Err(StatusUnavailable::Unreachable(_)) => may_be_ours(health),
            Err(StatusUnavailable::AnotherProgram | StatusUnavailable::Unknown) => false,
        };
        match live {
            Ok((status, _)) if is_ours => {
                self.running = true;
                self.healthy = Some(status.is_success());
                // As load balancers ask.
                let eligible = ask::get(health, "/healthz");
                self.eligible = eligible.ok().map(|(status, _)| status.is_success());
            }
            Ok(_) => self
                .silent
                .push(StatusUnavailable::AnotherProgram.at(health)),
            Err(error) => self
                .silent
                .push(StatusUnavailable::Unreachable(error).at(health)),
        }
        match reported {
            Ok(status) => {
                self.set(status);
                let wrong = ask::get(metrics, "/debug/wrong");
                self.wrong = wrong
                    .ok()
                    .filter(|(status, _)| status.is_success())
                    .and_then(|(_, wrong)| serde_json::from_str(&wrong).ok());
            }
            Err(silence) => self.silent.push(silence.at(metrics)),
        }
    }

    fn set(&mut self, status: ReportedStatus) {
        let ReportedStatus {
            version,
            last_sync_seconds,
            pending_changes,
            drift_repairs,
            failed_syncs,
        } = status;
        self.running = true;
        self.version = Some(version);
        self.last_sync_seconds = last_sync_seconds;
        self.pending_changes = Some(pending_changes);
        self.drift_repairs = Some(drift_repairs);
        self.failed_syncs = Some(failed_syncs);
    }

    /// Whether it is running, programs the kernel in time, and takes connections from load balancers.
    pub(super) fn is_well(&self) -> bool {
        self.running && self.healthy != Some(false) && self.eligible != Some(false)
    }

    /// The lines below the first one.
    pub(super) fn write_details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for why in &self.silent {
            writeln!(f, "           {why}")?;
        }
        if let (Some(seconds), Some(waiting)) = (self.last_sync_seconds, self.pending_changes) {
            writeln!(
                f,
                "last sync  {seconds:.0} s ago; changes that wait: {waiting}"
            )?;
        }
        if let (Some(failed), Some(repairs)) = (self.failed_syncs, self.drift_repairs) {
            writeln!(
                f,
                "drift      repairs of the tables: {repairs}; failed syncs: {failed}"
            )?;
        }
        for line in self.diagnostics() {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }

    /// What is wrong, a line each, as far as a screen has room for it.
    fn diagnostics(&self) -> Vec<String> {
        const LINES: usize = 20;
        let wrong = self.wrong.iter().flatten();
        let all = wrong.flat_map(|(subject, reasons)| {
            let reasons = reasons.iter();
            reasons.map(move |reason| format!("WRONG      {subject}: {reason}"))
        });
        let mut lines: Vec<_> = all.collect();
        let more = lines.len().saturating_sub(LINES);
        lines.truncate(LINES);
        if more > 0 {
            lines.push(format!("           and {more} more: status -o json"));
        }
        lines
    }
}

impl fmt::Display for DaemonStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.running {
            return f.write_str("does not run");
        }
        f.write_str("runs")?;
        if let Some(process) = &self.process {
            write!(f, ", {process}")?;
        }
        if let Some(version) = &self.version {
            write!(f, ", version {version}")?;
        }
        match (self.healthy, self.eligible) {
            (Some(false), _) => f.write_str(", NOT healthy"),
            (Some(true), Some(false)) => f.write_str(
                ", healthy, but load balancers are turned away: the Node is leaving, or not known",
            ),
            (Some(true), _) => f.write_str(", healthy"),
            (None, _) => Ok(()),
        }
    }
}
