//! A command on one node or on all nodes, in parallel.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use futures::StreamExt;
use futures::stream;
use serde_json::{Map, Value};

use super::nodes::ClusterNode;
use super::program::PodOutput;
use super::{Cluster, summary};
use crate::commands::output::{self, OutputFormat};

/// The number of nodes that are asked at the same time.
const PARALLEL: usize = 32;

/// The nodes, and the arguments of the command.
#[derive(Debug, Args)]
pub(super) struct OnNodes {
    /// Node to ask. Repeat the flag for each node.
    #[arg(long, value_name = "NODE", required_unless_present = "all_nodes")]
    node: Vec<String>,

    /// Ask all nodes, in parallel.
    #[arg(short = 'A', long, conflicts_with = "node")]
    all_nodes: bool,

    /// Output format. JSON is one object with a field for each node.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,

    /// Arguments of the command, as on the node.
    #[arg(
        value_name = "ARGUMENT",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    arguments: Vec<OsString>,
}

/// The answer of a node: the output of the command, or the reason why it did not run.
pub(super) type NodeAnswer = Result<PodOutput, String>;

impl OnNodes {
    /// Returns the chosen nodes.
    async fn nodes(&self, cluster: &Cluster) -> anyhow::Result<Vec<ClusterNode>> {
        let mut nodes = cluster.nodes().await?;
        if self.all_nodes {
            return Ok(nodes);
        }
        for name in &self.node {
            if !nodes.iter().any(|node| node.name == *name) {
                bail!("no node {name} is in the cluster");
            }
        }
        nodes.retain(|node| self.node.contains(&node.name));
        Ok(nodes)
    }

    /// Runs a command of kube-dnat on the nodes, and prints their answers.
    pub(super) async fn run(self, cluster: &Cluster, command: &str) -> anyhow::Result<ExitCode> {
        let nodes = self.nodes(cluster).await?;
        self.run_on(cluster, &nodes, command, &[]).await
    }

    /// Drains the nodes, which must be named: without any node, a load balancer serves nothing.
    pub(super) async fn drain(self, cluster: &Cluster) -> anyhow::Result<ExitCode> {
        if self.all_nodes {
            bail!(
                "load balancers need nodes that are not drained: name the nodes to drain with --node"
            );
        }
        self.run(cluster, "drain").await
    }

    /// Shows the status: a table of all nodes, or the whole answer of one.
    pub(super) async fn status(self, cluster: &Cluster) -> anyhow::Result<ExitCode> {
        let nodes = self.nodes(cluster).await?;
        if self.output == OutputFormat::Json || nodes.len() == 1 {
            return self.run_on(cluster, &nodes, "status", &[]).await;
        }
        let mut arguments = vec!["status".into(), "-o".into(), "json".into()];
        arguments.extend(self.arguments);
        let answers = ask(cluster, &nodes, &arguments).await;
        output::print(summary::table(&answers).as_bytes())?;
        Ok(exit_code(&answers))
    }

    /// Shows the rates of connections: live at this terminal for one node, and once for several.
    pub(super) async fn top(self, cluster: &Cluster) -> anyhow::Result<ExitCode> {
        let nodes = self.nodes(cluster).await?;
        if let [ClusterNode { pod: Ok(pod), .. }] = nodes.as_slice()
            && self.output == OutputFormat::Text
            && io::stdout().is_terminal()
        {
            let mut arguments = vec![OsString::from("top")];
            arguments.extend(self.arguments);
            return Ok(cluster.attach(pod, &arguments).await?.into());
        }
        let is_once = self.arguments.iter().any(|argument| argument == "--once");
        let once: &[&str] = if is_once { &[] } else { &["--once"] };
        self.run_on(cluster, &nodes, "top", once).await
    }

    /// Runs a command with these further flags, and prints the answers.
    async fn run_on(
        self,
        cluster: &Cluster,
        nodes: &[ClusterNode],
        command: &str,
        flags: &[&str],
    ) -> anyhow::Result<ExitCode> {
        let mut arguments = vec![command.into()];
        arguments.extend(flags.iter().map(OsString::from));
        if self.output == OutputFormat::Json {
            arguments.extend(["-o", "json"].map(OsString::from));
        }
        arguments.extend(self.arguments);
        let answers = ask(cluster, nodes, &arguments).await;
        let text = match self.output {
            OutputFormat::Text => sections(&answers),
            OutputFormat::Json => serde_json::to_string_pretty(&json(&answers))? + "\n",
        };
        output::print(text.as_bytes())?;
        Ok(exit_code(&answers))
    }
}

/// Runs kube-dnat on the nodes at the same time. Returns the answers, sorted by node.
pub(super) async fn ask(
    cluster: &Cluster,
    nodes: &[ClusterNode],
    arguments: &[OsString],
) -> Vec<(String, NodeAnswer)> {
    let show_progress = io::stderr().is_terminal() && nodes.len() > 1;
    let answers = nodes.iter().map(|node| async {
        let answer = match &node.pod {
            Ok(pod) => {
                let answer = cluster.run_in(pod, arguments).await;
                answer.map_err(|error| format!("{error:#}"))
            }
            Err(reason) => Err(reason.clone()),
        };
        (node.name.clone(), answer)
    });
    let mut answers = stream::iter(answers).buffer_unordered(PARALLEL);
    let mut done = Vec::new();
    while let Some(answer) = answers.next().await {
        done.push(answer);
        if show_progress {
            // Nobody reads the progress if this fails.
            let _closed = write!(io::stderr(), "\r{} of {} nodes", done.len(), nodes.len());
        }
    }
    if show_progress {
        let _closed = write!(io::stderr(), "\r\x1b[K");
    }
    done.sort_by(|(one, _), (other, _)| one.cmp(other));
    done
}

/// Formats the answers of the nodes one after another; that of a single node has no heading.
fn sections(answers: &[(String, NodeAnswer)]) -> String {
    let mut text = String::new();
    for (node, answer) in answers {
        if answers.len() > 1 {
            text.push_str(&format_heading(node));
        }
        match answer {
            Ok(PodOutput { out, error, .. }) => {
                text.push_str(out);
                text.push_str(error);
            }
            Err(reason) => {
                text.push_str(reason);
                text.push('\n');
            }
        }
    }
    text
}

/// Formats the heading of a node's answer.
fn format_heading(node: &str) -> String {
    format!("== {node}\n")
}

/// Returns the answers as one object. A node without a JSON answer has a field `error`.
fn json(answers: &[(String, NodeAnswer)]) -> Value {
    let value = |answer: &NodeAnswer| match answer {
        Ok(PodOutput { out, error, .. }) => serde_json::from_str(out)
            .unwrap_or_else(|_| serde_json::json!({ "error": error.trim_end() })),
        Err(reason) => serde_json::json!({ "error": reason }),
    };
    let fields = answers
        .iter()
        .map(|(node, answer)| (node.clone(), value(answer)));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Returns the exit code of all: an error of one node, or else its largest exit code.
pub(super) fn exit_code(answers: &[(String, NodeAnswer)]) -> ExitCode {
    let codes = answers
        .iter()
        .map(|(_, answer)| answer.as_ref().map_or(1, |output| output.code));
    let codes: Vec<u8> = codes.collect();
    let known = [0, 2, 3];
    match codes.iter().find(|code| !known.contains(code)) {
        Some(_) => ExitCode::FAILURE,
        None => codes.into_iter().max().unwrap_or(0).into(),
    }
}
