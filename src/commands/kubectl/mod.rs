//! `kubectl dnat`: the commands of kube-dnat on one node or on all nodes of a cluster.
//!
//! kubectl runs an executable `kubectl-dnat` in the path as its subcommand `dnat`. This program is that
//! plugin if it has this name. It runs kube-dnat in the Pods through `kubectl exec`, so that the
//! kubeconfig, the credentials and the rights are the caller's, as kubectl finds them.

mod diff;
mod nodes;
mod on_nodes;
mod program;
mod summary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::finish;
use crate::logging::LogStyle;
use diff::command::Diff;
use on_nodes::OnNodes;

/// The name of the executable.
const NAME: &str = "kubectl-dnat";

/// Run the commands of kube-dnat on the nodes of a cluster.
///
/// Each command runs in the Pod of kube-dnat on the node, through `kubectl exec`, with the rights of
/// the caller: get Pods and Nodes, and create pods/exec in the namespace of kube-dnat.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl dnat",
    bin_name = "kubectl dnat",
    version,
    after_help = "Examples:\n  \
    kubectl dnat status -A\n  \
    kubectl dnat services --node node-1 -- -n shop\n  \
    kubectl dnat explain -A shop/web --from 10.244.1.9\n  \
    kubectl dnat diff\n\n\
    Exit codes:\n  0  success on every node\n  1  error: wrong usage, kubectl failed, a node does not answer\n  2  a problem on a node, or a difference\n  3  not found on a node"
)]
pub struct Plugin {
    #[command(flatten)]
    cluster: Cluster,

    #[command(subcommand)]
    command: PluginCommand,
}

/// The cluster, and where kube-dnat runs in it.
#[derive(Debug, Args)]
struct Cluster {
    /// Kubeconfig file, as in kubectl.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig, as in kubectl.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// Namespace of the Pods of kube-dnat.
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    namespace: String,
}

/// A subcommand of the plugin.
#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Show whether kube-dnat is running and what it has programmed, a line for each node.
    Status(OnNodes),
    /// List the frontends of Services, with their endpoints and connections.
    Services(OnNodes),
    /// Explain what the rules of a node do with a connection.
    Explain(OnNodes),
    /// Check whether nodes are ready.
    Check(OnNodes),
    /// Show the rate of new connections by Service and endpoint.
    Top(OnNodes),
    /// Drain nodes: their load-balancer health checks answer 503 while they go on serving.
    Drain(OnNodes),
    /// End a drain.
    Undrain(OnNodes),
    /// Show which nodes hold something else than the others for a Service.
    Diff(Diff),
}

/// Returns whether this process is the plugin, by its name.
pub(super) fn is_plugin() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|path| {
        Path::new(&path)
            .file_name()
            .is_some_and(|name| name == NAME)
    })
}

/// Runs the plugin, and reports an error as one sentence.
pub(super) fn main() -> ExitCode {
    finish(Plugin::try_parse(), |_| LogStyle::Messages, Plugin::execute)
}

impl Plugin {
    /// Executes the subcommand.
    fn execute(self) -> anyhow::Result<ExitCode> {
        let Self { cluster, command } = self;
        let runtime = crate::agent::runtime()?;
        runtime.block_on(async {
            match command {
                PluginCommand::Status(on) => on.status(&cluster).await,
                PluginCommand::Services(on) => on.run(&cluster, "services").await,
                PluginCommand::Explain(on) => on.run(&cluster, "explain").await,
                PluginCommand::Check(on) => on.run(&cluster, "check").await,
                PluginCommand::Top(on) => on.top(&cluster).await,
                PluginCommand::Drain(on) => on.drain(&cluster).await,
                PluginCommand::Undrain(on) => on.run(&cluster, "undrain").await,
                PluginCommand::Diff(diff) => diff.execute(&cluster).await,
            }
        })
    }
}
