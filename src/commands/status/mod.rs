//! `kube-dnat status`: whether the daemon is running, and what it has programmed.

pub(super) mod daemon;
mod following;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use daemon::DaemonStatus;

use super::output::{AnswerStatus, OutputFormat};
use super::processes::{self, Process};
use crate::netlink::Kernel;
use crate::planner::diff::TableStatus;
use crate::planner::model::Address;
use crate::planner::ruleset::{SetName, TABLE, Value, Verdict, layer, service_and_port};

/// The arguments of `kube-dnat status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat status\n  \
    kube-dnat status -o json | jq .tables\n\n\
    Exit codes:\n  0  running and healthy\n  1  error: wrong usage, no permission, no nftables\n  2  not running, not healthy or no answer in 2 s, no Node of its name, drained or not ready for load balancers, or a table of another version\n  3  not running, and no kube-dnat tables")]
pub(super) struct Status {
    /// Address of the daemon's health checks (its --healthz-bind-address) [default: 127.0.0.1:10256, or
    /// another address at which its process listens].
    #[arg(long, value_name = "ADDRESS:PORT")]
    healthz_address: Option<SocketAddr>,

    /// Address of the daemon's metrics (its --metrics-bind-address) [default: 127.0.0.1:10249, or
    /// another address at which its process listens].
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// The answer.
#[derive(Debug, Serialize)]
struct StatusReport {
    /// The status of the daemon.
    daemon: DaemonStatus,
    /// The status of the kernel.
    kernel: KernelStatus,
    /// The status of each table that exists.
    tables: Vec<TableReport>,
}

/// The status of the kernel.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct KernelStatus {
    /// The release of the kernel, as in `uname -r`.
    release: String,
    /// Whether the kernel supports table ownership.
    table_ownership: bool,
}

/// The status of a table in the kernel.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TableReport {
    /// The family: `IPv4` or `IPv6`.
    family: String,
    /// The family in nft's words: `ip` or `ip6`.
    #[serde(skip)]
    layer: &'static str,
    /// The reason why this version of kube-dnat cannot use the table.
    problem: Option<String>,
    /// Whether a process owns the table.
    owned: bool,
    /// The owner, if it is visible from here.
    owner: Option<Process>,
    /// The sizes of the table, unless it has a problem.
    numbers: Option<TableNumbers>,
}

/// The sizes of a table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TableNumbers {
    /// The number of Services.
    services: usize,
    /// The number of frontends, without node ports.
    frontends: usize,
    /// The number of node ports.
    node_ports: usize,
    /// The number of frontends and node ports without an endpoint, which reject connections.
    without_endpoints: usize,
    /// The number of elements for endpoints: one for each endpoint of each frontend.
    endpoints: usize,
    /// The number of all elements.
    elements: usize,
}

impl Status {
    /// Collects the status, and prints it.
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let mut kernel = Kernel::open()?;
        let tables: Vec<_> = [
            table_report::<Ipv4Addr>(&mut kernel)?,
            table_report::<Ipv6Addr>(&mut kernel)?,
        ]
        .into_iter()
        .flatten()
        .collect();
        let has_owner = tables.iter().any(|table| table.owned);
        let process = tables.iter().find_map(|table| table.owner.clone());
        let mut daemon = DaemonStatus::find(has_owner, process);
        daemon.request(self.healthz_address, self.metrics_address);
        let kernel_status = KernelStatus {
            release: nix::sys::utsname::uname()?
                .release()
                .to_string_lossy()
                .into_owned(),
            table_ownership: kernel.supports_table_ownership()?,
        };
        let answer = StatusReport {
            daemon,
            kernel: kernel_status,
            tables,
        };
        self.output.print(&answer)?;
        Ok(answer.status().into())
    }
}

impl StatusReport {
    /// Returns the status for the exit code.
    fn status(&self) -> AnswerStatus {
        let has_table_problem = self.tables.iter().any(|table| table.problem.is_some());
        if !self.daemon.running && self.tables.is_empty() {
            AnswerStatus::NotFound
        } else if self.daemon.is_ready() && !has_table_problem {
            AnswerStatus::Fine
        } else {
            AnswerStatus::Problem
        }
    }
}

/// Inspects the table of family `A`. Returns `None` if it does not exist.
fn table_report<A: Address>(kernel: &mut Kernel) -> anyhow::Result<Option<TableReport>> {
    let family = A::FAMILY.to_string();
    let shape = match kernel.inspect::<A>()? {
        TableStatus::Missing => return Ok(None),
        TableStatus::Foreign(reason) => {
            return Ok(Some(TableReport {
                family,
                layer: layer(A::FAMILY),
                problem: Some(format!("created by another version: {reason}")),
                owned: false,
                owner: None,
                numbers: None,
            }));
        }
        TableStatus::Ours(shape) => shape,
    };
    let counts = kernel.element_counts::<A>()?;
    let count =
        |sets: &[SetName]| -> usize { sets.iter().filter_map(|name| counts.get(name)).sum() };
    let names = [
        SetName::OF_FRONTENDS.as_slice(),
        &[SetName::ServicesRestricted],
    ]
    .concat();
    let table = kernel
        .read_elements(&shape.table, &names)?
        .unwrap_or_default();
    let entries = || names.iter().flat_map(|name| table.entries(*name));
    let services: BTreeSet<_> = entries()
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
            frontends: count(&[SetName::Services, SetName::Ranges]),
            node_ports: count(&[SetName::Nodeports]),
            without_endpoints: entries()
                .filter(|(_, entry)| entry.value == Value::Verdict(Verdict::Refuse))
                .count(),
            endpoints: count(&[
                SetName::Endpoints,
                SetName::NodeportEndpoints,
                SetName::RangeEndpoints,
            ]),
            elements: counts.values().sum(),
        }),
    }))
}

impl fmt::Display for StatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "daemon     {}", self.daemon)?;
        self.daemon.write_details(f)?;
        let KernelStatus {
            release,
            table_ownership,
        } = &self.kernel;
        let ownership = if *table_ownership {
            "supported"
        } else {
            "not supported (Linux 6.9 or newer)"
        };
        writeln!(f, "kernel     {release}; table ownership: {ownership}")?;
        for table in &self.tables {
            table.fmt(f)?;
        }
        if self.tables.is_empty() {
            writeln!(f, "tables     no table {TABLE}: nothing is programmed")?;
        }
        Ok(())
    }
}

impl fmt::Display for TableReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}table {} {TABLE}", self.family, self.layer)?;
        match (&self.problem, &self.owner, self.owned) {
            (Some(problem), ..) => writeln!(f, ", {problem}")?,
            (None, Some(owner), _) => writeln!(f, ", owned by {owner}")?,
            (None, None, true) => writeln!(f, ", owned")?,
            (None, None, false) => writeln!(f, ", not owned")?,
        }
        let Some(numbers) = &self.numbers else {
            return Ok(());
        };
        let TableNumbers {
            services,
            frontends,
            node_ports,
            without_endpoints,
            endpoints,
            elements,
        } = numbers;
        writeln!(
            f,
            "           Services {services}, frontends {frontends}, node ports {node_ports}, \
             without endpoints {without_endpoints}, endpoints {endpoints}, elements {elements}"
        )
    }
}
