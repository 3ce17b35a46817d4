//! `kube-dnat status`: whether it runs, and what is programmed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use clap::Args;
use serde::Serialize;

use super::ask;
use super::output::{OutputFormat, code};
use super::processes::{self, PortListener, Process};
use crate::clock;
use crate::netlink::{Kernel, TableStatus};
use crate::planner::model::Address;
use crate::planner::ruleset::{SetName, TABLE, layer, service_and_port};

/// `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat status\n  \
    kube-dnat status -o json | jq .tables\n\n\
    Exit codes:\n  0  fine\n  1  it could not be done: wrong usage, no permission, no nftables\n  2  it does not run, or is not healthy, or turns load balancers away, or a table is not of this version\n  3  it does not run, and has no tables here")]
pub(super) struct Status {
    /// Where the daemon tells its health (its --healthz-bind-address).
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10256")]
    healthz_address: SocketAddr,

    /// Where the daemon tells its metrics (its --metrics-bind-address).
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10249")]
    metrics_address: SocketAddr,

    /// How to print the answer.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct StatusReport {
    daemon: DaemonStatus,
    kernel: KernelStatus,
    tables: Vec<TableReport>,
}

/// What the daemon says of itself.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct DaemonStatus {
    running: bool,
    process: Option<Process>,
    version: Option<String>,
    healthy: Option<bool>,
    /// Whether load balancers are to send connections here.
    eligible: Option<bool>,
    /// Seconds since the last commit.
    last_sync_seconds: Option<f64>,
    /// Changes that wait for a sync.
    pending_changes: Option<u64>,
    /// Repairs of what others did to the tables, since it started.
    drift_repairs: Option<u64>,
    /// Syncs that failed, since it started.
    failed_syncs: Option<u64>,
    /// What is wrong with which object.
    wrong: Option<BTreeMap<String, Vec<String>>>,
    /// Why it could not be asked.
    silent: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KernelStatus {
    release: String,
    /// Whether tables can be kept from others.
    owned_tables: bool,
}

/// A table, as it stands in the kernel.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TableReport {
    family: String,
    #[serde(skip)]
    layer: &'static str,
    /// What is wrong with it.
    problem: Option<String>,
    owned: bool,
    owner: Option<Process>,
    numbers: Option<TableNumbers>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TableNumbers {
    services: usize,
    frontends: usize,
    node_ports: usize,
    endpoints: usize,
    elements: usize,
}

impl Status {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let mut kernel = Kernel::open()?;
        let tables: Vec<_> = [
            standing::<Ipv4Addr>(&mut kernel)?,
            standing::<Ipv6Addr>(&mut kernel)?,
        ]
        .into_iter()
        .flatten()
        .collect();
        let daemon = self.daemon(&tables);
        let abilities = KernelStatus {
            release: nix::sys::utsname::uname()?
                .release()
                .to_string_lossy()
                .into_owned(),
            owned_tables: kernel.can_own_tables()?,
        };
        let answer = StatusReport {
            daemon,
            kernel: abilities,
            tables,
        };
        self.output.print(&answer)?;
        let nothing = !answer.daemon.running && answer.tables.is_empty();
        let foreign = answer.tables.iter().any(|table| table.problem.is_some());
        let DaemonStatus {
            healthy, eligible, ..
        } = &answer.daemon;
        let healthy = *healthy != Some(false) && *eligible != Some(false);
        let well = answer.daemon.running && healthy && !foreign;
        Ok(code(!well, nothing))
    }

    fn daemon(&self, tables: &[TableReport]) -> DaemonStatus {
        let owned = tables.iter().any(|table| table.owned);
        let process = tables.iter().find_map(|table| table.owner.clone());
        let process = process.or_else(|| processes::daemons().into_iter().next());
        let mut daemon = DaemonStatus {
            running: owned || process.is_some(),
            process,
            ..DaemonStatus::default()
        };
        let cannot_ask = |what, why: &dyn fmt::Display| format!("cannot ask {what}: {why}");
        let is_another = |what| format!("{what} is answered by another program");
        let health = ask::get(self.healthz_address, "/livez");
        let metrics = ask::get(self.metrics_address, "/metrics");
        if let Ok((_, metrics)) = &metrics {
            daemon.take_in(metrics);
        }
        // kube-proxy, from which we may be taking over, answers at the same ports.
        let is_ours = match &metrics {
            Ok(_) => daemon.version.is_some(),
            Err(_) => may_be_ours(self.healthz_address),
        };
        match health {
            Ok((status, _)) if is_ours => {
                daemon.running = true;
                daemon.healthy = Some(status.is_success());
                // As load balancers ask.
                let eligible = ask::get(self.healthz_address, "/healthz");
                daemon.eligible = eligible.ok().map(|(status, _)| status.is_success());
            }
            Ok(_) => daemon.silent.push(is_another(self.healthz_address)),
            Err(error) => {
                let why = error.root_cause();
                daemon.silent.push(cannot_ask(self.healthz_address, &why));
            }
        }
        match metrics {
            Ok(_) if daemon.version.is_some() => {
                daemon.running = true;
                let wrong = ask::get(self.metrics_address, "/debug/wrong");
                daemon.wrong = wrong
                    .ok()
                    .filter(|(status, _)| status.is_success())
                    .and_then(|(_, wrong)| serde_json::from_str(&wrong).ok());
            }
            Ok(_) => daemon.silent.push(is_another(self.metrics_address)),
            Err(error) => {
                let why = error.root_cause();
                daemon.silent.push(cannot_ask(self.metrics_address, &why));
            }
        }
        daemon
    }
}

/// Whether a daemon of ours listens at this port, as far as can be seen from here.
fn may_be_ours(address: SocketAddr) -> bool {
    match processes::listener(address.port()) {
        PortListener::Seen(process) => process.name == TABLE,
        PortListener::Nobody | PortListener::Hidden => true,
    }
}

impl DaemonStatus {
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

    fn take_in(&mut self, metrics: &str) {
        const SYNC: &str = "kubeproxy_sync_proxy_rules";
        self.version = ask::label(metrics, "kube_dnat_build_info", "version");
        if self.version.is_none() {
            return;
        }
        let sum = |name: &str| ask::sum(metrics, name);
        let now = clock::now().duration_since(UNIX_EPOCH);
        let last = ask::latest(metrics, &format!("{SYNC}_last_timestamp_seconds"));
        self.last_sync_seconds = last
            .filter(|last| *last > 0.0)
            .and_then(|last| Some(now.ok()?.as_secs_f64() - last));
        let pending = |kind| sum(&format!("{SYNC}_{kind}_changes_pending"));
        self.pending_changes = pending("service")
            .zip(pending("endpoint"))
            .map(|(services, endpoints)| services + endpoints);
        self.drift_repairs = sum("kube_dnat_drift_repairs_total");
        self.failed_syncs = sum(&format!("{SYNC}_nftables_sync_failures_total"));
    }
}

fn standing<A: Address>(kernel: &mut Kernel) -> anyhow::Result<Option<TableReport>> {
    let family = A::FAMILY.to_string();
    let shape = match kernel.look::<A>()? {
        TableStatus::Nothing => return Ok(None),
        TableStatus::Foreign(why) => {
            return Ok(Some(TableReport {
                family,
                layer: layer(A::FAMILY),
                problem: Some(format!("not of this version: {why}")),
                owned: false,
                owner: None,
                numbers: None,
            }));
        }
        TableStatus::Ours(shape) => shape,
    };
    let counts = kernel.counts::<A>()?;
    let of =
        |names: &[SetName]| -> usize { names.iter().filter_map(|name| counts.get(name)).sum() };
    let names = SetName::OF_FRONTENDS;
    let table = kernel
        .elements_of(&shape.table, &names)?
        .unwrap_or_default();
    let comments = names.into_iter().flat_map(|name| table.entries(name));
    let services: BTreeSet<_> = comments
        .filter_map(|(_, entry)| {
            let comment = entry.comment.as_deref()?;
            Some(service_and_port(comment).0)
        })
        .collect();
    Ok(Some(TableReport {
        family,
        layer: layer(A::FAMILY),
        problem: None,
        owned: shape.owner.is_some(),
        owner: shape.owner.and_then(processes::of_netlink_port),
        numbers: Some(TableNumbers {
            services: services.len(),
            frontends: of(&[SetName::Services]),
            node_ports: of(&[SetName::Nodeports]),
            endpoints: of(&[SetName::Endpoints, SetName::NodeportEndpoints]),
            elements: counts.values().sum(),
        }),
    }))
}

impl fmt::Display for StatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "daemon     {}", self.daemon)?;
        for why in &self.daemon.silent {
            writeln!(f, "           {why}")?;
        }
        if let Some(seconds) = self.daemon.last_sync_seconds {
            let waiting = self.daemon.pending_changes.unwrap_or_default();
            writeln!(
                f,
                "last sync  {seconds:.0} s ago; changes that wait: {waiting}"
            )?;
        }
        if let (Some(failed), Some(repairs)) = (self.daemon.failed_syncs, self.daemon.drift_repairs)
        {
            writeln!(
                f,
                "drift      repairs of the tables: {repairs}; failed syncs: {failed}"
            )?;
        }
        for line in self.daemon.diagnostics() {
            writeln!(f, "{line}")?;
        }
        let KernelStatus {
            release,
            owned_tables,
        } = &self.kernel;
        let owned = if *owned_tables {
            "yes"
        } else {
            "no (Linux 6.9)"
        };
        writeln!(
            f,
            "kernel     {release}; tables can be kept from others: {owned}"
        )?;
        for table in &self.tables {
            table.fmt(f)?;
        }
        if self.tables.is_empty() {
            writeln!(f, "tables     no table {TABLE}: nothing is programmed")?;
        }
        Ok(())
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

impl fmt::Display for TableReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}table {} {TABLE}", self.family, self.layer)?;
        match (&self.problem, &self.owner, self.owned) {
            (Some(problem), ..) => writeln!(f, ", {problem}")?,
            (None, Some(owner), _) => writeln!(f, ", {owner} alone can change it")?,
            (None, None, true) => writeln!(f, ", one process alone can change it")?,
            (None, None, false) => writeln!(f, ", anyone can change it")?,
        }
        let Some(numbers) = &self.numbers else {
            return Ok(());
        };
        let TableNumbers {
            services,
            frontends,
            node_ports,
            endpoints,
            elements,
        } = numbers;
        writeln!(
            f,
            "           Services {services}, frontends {frontends}, node ports {node_ports}, \
             endpoints {endpoints}, elements {elements}"
        )
    }
}
