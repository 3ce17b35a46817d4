//! `kube-dnat run`: the daemon.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::flags::NodeFlags;
use crate::agent::{self, Source};

/// The flags of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat run --cluster-cidr 10.244.0.0/16            (in a cluster)\n  \
    kube-dnat run --kubeconfig /etc/kubernetes/proxy.conf --hostname-override node-1\n  \
    kube-dnat run --manifests /etc/kube-dnat/manifests    (without a cluster)")]
pub struct Run {
    /// Take the objects from a directory of YAML and JSON files instead of an API server, and
    /// follow the files as they change.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "master"])]
    manifests: Option<PathBuf>,

    /// How to reach the API server; without it and --master: as a Pod of the cluster does.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The URL of the API server; overrides the one in the kubeconfig.
    #[arg(long, value_name = "URL")]
    master: Option<String>,

    /// Keep other processes from changing or deleting our tables, where the kernel can (Linux 6.9).
    ///
    /// The tables stay when this process ends, and the next one takes them over.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    table_owner: bool,

    #[command(flatten)]
    node: NodeFlags,
}

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let Self {
            manifests,
            kubeconfig,
            master,
            table_owner,
            node,
        } = self;
        let source = match manifests {
            Some(dir) => Source::Manifests(dir),
            None => Source::ApiServer { kubeconfig, master },
        };
        agent::run(source, node.node_name()?, node.facts()?, table_owner)
    }
}
