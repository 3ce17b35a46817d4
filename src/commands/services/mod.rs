//! `kube-dnat services`: the frontends in the kernel, one a line.

mod text;
mod totals;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use clap_complete::ArgValueCompleter;
use serde::Serialize;

use super::completions::{namespaces, services};
use super::output::{self, AnswerStatus};
use super::{inspect_table, no_tables};
use crate::netlink::Kernel;
use crate::planner::explain::ServiceQuery;
use crate::planner::model::Address;
use crate::planner::ruleset::Comment;
use crate::planner::service_list::{FrontendElements, FrontendRow, SETS_OF_FRONTENDS};

/// The arguments of `kube-dnat services`.
#[derive(Debug, Args)]
#[command(
    visible_alias = "svc",
    after_help = "Columns:\n  \
    POLICY       internalTrafficPolicy of a ClusterIP, externalTrafficPolicy of the others\n  \
    AFFINITY     how long a client keeps its endpoint after its last connection\n  \
    ENDPOINTS    ready/local/total: those that connections are sent to; those of them\n               \
    on this node or without a node name; all in any state (-: the daemon does not answer)\n  \
    CONNECTIONS  new connections, including rejected ones, since the element of the\n               \
    frontend last changed\n\n\
    Examples:\n  \
    kube-dnat services -n shop\n  \
    kube-dnat services --no-endpoints\n  \
    kube-dnat services --selector cart -o wide\n  \
    kube-dnat services -o json | jq '.frontends[].address'\n\n\
    Exit codes:\n  0  success, also if no frontend matches\n  1  error: wrong usage, no permission, no nftables\n  3  no kube-dnat tables"
)]
pub(super) struct Services {
    /// Only Services in this namespace.
    #[arg(short, long, value_name = "NAMESPACE", add = ArgValueCompleter::new(namespaces))]
    namespace: Option<String>,

    /// Only the Service with this name, in any namespace unless one is given, and only the port with
    /// this name or number.
    #[arg(long, value_name = "[NAMESPACE/]NAME[:PORT]", value_parser = str::parse::<ServiceQuery>, add = ArgValueCompleter::new(services))]
    selector: Option<ServiceQuery>,

    /// Only frontends without an endpoint for their connections.
    #[arg(long)]
    no_endpoints: bool,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: ListFormat,
}

/// The output format of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListFormat {
    /// A table.
    Text,
    /// A table with the endpoints.
    Wide,
    /// One JSON value.
    Json,
    /// One YAML document.
    Yaml,
}

/// The answer.
#[derive(Debug, Serialize)]
struct ServicesReport {
    /// The frontends, by Service port.
    frontends: Vec<FrontendRow>,
}

impl Services {
    /// Reads the frontends, and prints them.
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let mut kernel = Kernel::open()?;
        let families = [
            rows::<Ipv4Addr>(&mut kernel)?,
            rows::<Ipv6Addr>(&mut kernel)?,
        ];
        let has_table = families.iter().any(Option::is_some);
        let mut frontends: Vec<_> = families.into_iter().flatten().flatten().collect();
        frontends.sort_by_cached_key(FrontendRow::sort_key);
        frontends.retain(|row| self.selects(row));
        totals::add(&mut frontends);
        output::print(
            self.output
                .format(&ServicesReport { frontends })?
                .as_bytes(),
        )?;
        Ok(if has_table {
            AnswerStatus::Fine.into()
        } else {
            no_tables()
        })
    }

    /// Returns whether a frontend is listed.
    fn selects(&self, row: &FrontendRow) -> bool {
        let namespace = self.namespace.as_ref();
        let selector = self.selector.as_ref();
        let name = || Comment::from(&*row.service);
        namespace.is_none_or(|namespace| *namespace == row.namespace)
            && selector.is_none_or(|selector| selector.matches(&name(), row.port))
            && (!self.no_endpoints || row.endpoints.is_empty())
    }
}

impl ListFormat {
    /// Formats the answer.
    fn format(self, report: &ServicesReport) -> anyhow::Result<String> {
        Ok(match self {
            Self::Text => text::table(&report.frontends, false),
            Self::Wide => text::table(&report.frontends, true),
            Self::Json => serde_json::to_string_pretty(report)? + "\n",
            Self::Yaml => yaml_serde::to_string(report)?,
        })
    }
}

/// Reads the frontends of family `A`, each map once. Returns `None` if there is no table.
fn rows<A: Address>(kernel: &mut Kernel) -> anyhow::Result<Option<Vec<FrontendRow>>> {
    if inspect_table::<A>(kernel)?.is_none() {
        return Ok(None);
    }
    let mut elements = FrontendElements::default();
    for set in SETS_OF_FRONTENDS {
        kernel.dump_elements::<A>(set, |element, packets| elements.add(element, packets))?;
    }
    Ok(Some(elements.rows()))
}
