//! The command: reads all nodes, compares them, and prints what differs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::compare::{Difference, HeldFrontend, NodeFrontends, compare};
use crate::commands::kubectl::Cluster;
use crate::commands::kubectl::nodes::ClusterNode;
use crate::commands::kubectl::on_nodes::ask;
use crate::commands::output::{AnswerStatus, OutputFormat};

/// The time between two readings. A change reaches all nodes within it, so that what differs in both
/// readings is no change on its way.
const SETTLE_TIME: Duration = Duration::from_secs(3);

/// The arguments of `kubectl dnat diff`.
#[derive(Debug, Args)]
#[command(
    after_help = "A difference that is gone three seconds later is not shown. The endpoints of a \
    frontend with policy Local differ by node, and those selected by topology hints differ by zone: they \
    are not compared between nodes, or zones.\n\n\
    Exit codes:\n  0  all nodes hold the same\n  1  error: a node does not answer\n  2  a node differs"
)]
pub(in crate::commands::kubectl) struct Diff {
    /// Compare only this Service or port of a Service.
    #[arg(value_name = "[NAMESPACE/]NAME[:PORT]")]
    service: Option<String>,

    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

/// The answer of `services -o json`.
#[derive(Debug, Deserialize)]
struct ServicesAnswer {
    /// The frontends.
    frontends: Vec<HeldFrontend>,
}

/// The result of the comparison.
#[derive(Debug, Serialize)]
struct DiffReport {
    /// The number of nodes that were compared.
    nodes: usize,
    /// The largest number of frontends of a node.
    frontends: usize,
    /// The nodes that do not answer, each with the reason.
    unanswered: Vec<String>,
    /// What differs.
    differences: BTreeSet<Difference>,
}

impl Diff {
    /// Compares the nodes, and prints what differs.
    pub(in crate::commands::kubectl) async fn execute(
        self,
        cluster: &Cluster,
    ) -> anyhow::Result<ExitCode> {
        let Self { service, output } = self;
        let nodes = cluster.nodes().await?;
        let mut report = read(cluster, &nodes, service.as_deref()).await;
        if !report.differences.is_empty() {
            sleep(SETTLE_TIME).await;
            let again = read(cluster, &nodes, service.as_deref()).await;
            report
                .differences
                .retain(|difference| again.differences.contains(difference));
        }
        output.print(&report)?;
        Ok(if !report.unanswered.is_empty() {
            ExitCode::FAILURE
        } else if report.differences.is_empty() {
            AnswerStatus::Fine.into()
        } else {
            AnswerStatus::Problem.into()
        })
    }
}

/// Reads what the nodes hold, and compares it.
async fn read(cluster: &Cluster, nodes: &[ClusterNode], service: Option<&str>) -> DiffReport {
    let mut arguments = ["services", "-o", "json"].map(OsString::from).to_vec();
    if let Some(service) = service {
        arguments.extend(["--selector", service].map(OsString::from));
    }
    let mut held = Vec::new();
    let mut unanswered = Vec::new();
    for (node, answer) in ask(cluster, nodes, &arguments).await {
        let frontends = answer.and_then(|output| {
            let answer: Result<ServicesAnswer, _> = serde_json::from_str(&output.out);
            answer.map_err(|_not_json| output.error.trim_end().to_owned())
        });
        match frontends {
            Ok(ServicesAnswer { frontends }) => {
                let of_node = nodes.iter().find(|of_node| of_node.name == node);
                let zone = of_node.and_then(|of_node| of_node.zone.clone());
                held.push(NodeFrontends {
                    node,
                    zone,
                    frontends,
                });
            }
            Err(reason) => unanswered.push(format!("{node} does not answer: {reason}")),
        }
    }
    let frontends = held.iter().map(|node| node.frontends.len()).max();
    DiffReport {
        nodes: held.len(),
        frontends: frontends.unwrap_or(0),
        unanswered,
        differences: compare(&held),
    }
}

impl fmt::Display for DiffReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.unanswered {
            writeln!(f, "{line}")?;
        }
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        if self.differences.is_empty() {
            writeln!(
                f,
                "{} nodes hold the same, up to {} frontends each",
                self.nodes, self.frontends
            )?;
        }
        Ok(())
    }
}
