//! `kube-dnat status`: whether the daemon is running, and what it has programmed.

mod daemon;

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
use crate::planner::ruleset::{SetName, TABLE, layer, service_and_port};

/// The arguments of `kube-dnat status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat status\n  \
    kube-dnat status -o json | jq .tables\n\n\
    Exit codes:\n  0  running and healthy\n  1  error: wrong usage, no permission, no nftables\n  2  not running, not healthy, not ready for load balancers, or a table of another version\n  3  not running, and no kube-dnat tables")]
pub(super) struct Status {
    /// Address of the daemon's health checks (its --healthz-bind-address).
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10256")]
    healthz_address: SocketAddr,

    /// Address of the daemon's metrics (its --metrics-bind-address).
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10249")]
    metrics_address: SocketAddr,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct StatusReport {
    daemon: DaemonStatus,
    kernel: KernelStatus,
    tables: Vec<TableReport>,
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
        let has_owner = tables.iter().any(|table| table.owned);
        let process = tables.iter().find_map(|table| table.owner.clone());
        let mut daemon = DaemonStatus::find(has_owner, process);
        daemon.ask(self.healthz_address, self.metrics_address);
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
        let well = answer.daemon.is_well() && !foreign;
        let status = if nothing {
            AnswerStatus::NotFound
        } else if well {
            AnswerStatus::Fine
        } else {
            AnswerStatus::Problem
        };
        Ok(status.into())
    }
}

fn standing<A: Address>(kernel: &mut Kernel) -> anyhow::Result<Option<TableReport>> {
    let family = A::FAMILY.to_string();
    let shape = match kernel.inspect::<A>()? {
        TableStatus::Missing => return Ok(None),
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
        self.daemon.write_details(f)?;
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
