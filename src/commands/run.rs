//! `kube-dnat run`: the daemon.

use std::path::PathBuf;

use clap::Args;
use tracing::info;

use super::cleanup::Cleanup;
use super::configuration::load;
use super::flags::{DaemonFlags, GivenFlags, NodeFlags, SWITCH, switch};
use crate::agent::{self, ObjectSource, Options};
use crate::config;
use crate::logging;

/// `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat --config=/var/lib/kube-proxy/config.conf --hostname-override=node-1\n  \
    kube-dnat run --cluster-cidr 10.244.0.0/16            (in a cluster)\n  \
    kube-dnat run --kubeconfig /etc/kubernetes/proxy.conf --hostname-override node-1\n  \
    kube-dnat run --manifests /etc/kube-dnat/manifests    (without a cluster)")]
pub(super) struct Run {
    #[command(flatten)]
    given: GivenFlags<RunFlags>,
}

/// The flags of `run`: kube-proxy's, and `--manifests`.
#[derive(Debug, Args)]
#[command(next_help_heading = "The process")]
struct RunFlags {
    /// Take the objects from a directory of YAML and JSON files instead of an API server, and
    /// follow the files as they change.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "master"])]
    manifests: Option<PathBuf>,

    /// Write the configuration to this file, as kube-proxy reads it, and end.
    #[arg(long, value_name = "FILE")]
    write_config_to: Option<PathBuf>,

    /// Remove our tables from this node, and end.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    cleanup: Option<bool>,

    /// Make the kernel settings, which may need more rights than the rest, and end.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    init_only: Option<bool>,

    /// Keep other processes from changing or deleting our tables, where the kernel can (Linux 6.9).
    ///
    /// The tables stay when this process ends, and the next one takes them over.
    /// On by default.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    table_owner: Option<bool>,

    /// Once everything is in the kernel, remove what kube-proxy left: its nftables tables, its
    /// iptables chains (nft variant), IPVS and its IP sets.
    ///
    /// Until then both sets of rules are there, and ours come first.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    takeover: Option<bool>,

    /// Count connections on the elements of frontends and node ports.
    ///
    /// On by default. Switched, the tables are made anew.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    connection_counters: Option<bool>,

    /// Of how many ports of Services connections are shown among the metrics, those with the most
    /// first. 0: of none, and nothing is read.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    connection_metrics_limit: usize,

    #[command(flatten)]
    node: NodeFlags,

    /// The URL of the API server; overrides the one in the kubeconfig.
    #[arg(long, value_name = "URL", help_heading = "API server")]
    master: Option<String>,

    #[command(flatten)]
    daemon: DaemonFlags,
}

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let GivenFlags { flags, names } = self.given;
        let RunFlags {
            manifests,
            write_config_to,
            cleanup,
            init_only,
            table_owner,
            takeover,
            connection_counters,
            connection_metrics_limit,
            node,
            master,
            daemon,
        } = flags;
        let (mut config, notes) = load(node, Some(daemon), &names)?;
        config.facts.without_counters = connection_counters == Some(false);
        let json = config.logging.format == config::LogFormat::Json;
        logging::configure(json, config.logging.verbosity);
        for note in notes {
            note.log();
        }
        if let Some(path) = write_config_to {
            config::write(&config.written, &path)?;
            info!(file = %path.display(), "configuration written");
            return Ok(());
        }
        if cleanup == Some(true) {
            return Cleanup::of_ours().execute();
        }
        if init_only == Some(true) {
            return agent::init(&config);
        }
        let source = match manifests {
            Some(dir) => ObjectSource::Manifests(dir),
            None => ObjectSource::ApiServer {
                kubeconfig: config.kubeconfig.clone(),
                master: master.filter(|master| !master.is_empty()),
            },
        };
        let options = Options {
            table_owner: table_owner.unwrap_or(true),
            takeover: takeover == Some(true),
            connection_metrics_limit,
        };
        agent::run(source, config, options)
    }
}
