//! `kube-dnat run`: the daemon.

use std::path::PathBuf;

use clap::Args;
use tracing::info;

use super::cleanup::Cleanup;
use super::flags::{DaemonFlags, GivenFlags, NodeFlags, SWITCH, load, switch};
use crate::agent::{self, ObjectSource, Options};
use crate::config;
use crate::logging::{self, LogEvent};
use crate::watch::apiserver::{ClientSettings, HttpVersions};

/// The arguments of `kube-dnat run`, and of `kube-dnat` without a subcommand.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kube-dnat --config=/var/lib/kube-proxy/config.conf --hostname-override=node-1\n  \
    kube-dnat run --cluster-cidr 10.244.0.0/16            (in a cluster)\n  \
    kube-dnat run --kubeconfig /etc/kubernetes/proxy.conf --hostname-override node-1\n  \
    kube-dnat run --manifests /etc/kube-dnat/manifests    (without a cluster)\n\n\
    Flags of kube-proxy without effect are accepted and not listed here: those of iptables, IPVS, client\n\
    rate limits, feature gates, profiling, log files and the libraries that kube-proxy is built with.\n\
    docs/configuration.md lists each of them.")]
pub(super) struct Run {
    #[command(flatten)]
    given: GivenFlags<RunFlags>,
}

/// The flags of `run`: kube-proxy's and kube-dnat's own.
#[derive(Debug, Args)]
#[command(next_help_heading = "General")]
struct RunFlags {
    /// Read objects from the YAML and JSON files in this directory instead of from an API server,
    /// and watch the files for changes.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "master", "api_servers_file"])]
    manifests: Option<PathBuf>,

    /// Write the configuration to this file in kube-proxy's format, and exit.
    #[arg(long, value_name = "FILE")]
    write_config_to: Option<PathBuf>,

    /// Delete kube-dnat's tables from this node, and exit.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    cleanup: Option<bool>,

    /// Apply the kernel settings, which can need more privileges than the daemon, and exit.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    init_only: Option<bool>,

    /// Own the tables, so that no other process can change or delete them (Linux 6.9 or newer)
    /// [default: true].
    ///
    /// The tables stay after kube-dnat exits. The next kube-dnat process adopts them.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    table_owner: Option<bool>,

    /// Remove kube-proxy's rules after the first sync: its nftables tables, its iptables chains
    /// (nft variant), its IPVS virtual servers and its IP sets.
    ///
    /// Until then both rulesets exist, and kube-dnat's chains run first.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    takeover: Option<bool>,

    /// Count the connections of each frontend and node port [default: true].
    ///
    /// Changing this flag recreates the tables.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    connection_counters: Option<bool>,

    /// Maximum number of Service ports with connection metrics, busiest first; 0 disables these
    /// metrics.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    connection_metrics_limit: usize,

    /// Serve TCP and UDP node ports at `127.0.0.1` and `::1` too, as `localhost` in
    /// --nodeport-addresses does.
    ///
    /// The daemon listens there and connects to the endpoints itself.
    #[arg(long, value_name = SWITCH, value_parser = switch, help_heading = "Beyond kube-proxy")]
    localhost_node_ports: Option<bool>,

    #[command(flatten)]
    node: NodeFlags,

    /// URL of the API server; overrides the one in the kubeconfig. Repeat the flag for each API
    /// server of the cluster, to need no load balancer.
    #[arg(long, value_name = "URL", help_heading = "API server")]
    master: Vec<String>,

    /// File with URLs of API servers, one a line, in addition to --master. kube-dnat follows its
    /// changes.
    #[arg(long, value_name = "FILE", help_heading = "API server")]
    api_servers_file: Option<PathBuf>,

    #[command(flatten)]
    daemon: DaemonFlags,
}

impl Run {
    /// Returns whether the command is the daemon. `--cleanup` is the command `cleanup`.
    pub(super) fn is_daemon(&self) -> bool {
        self.given.flags.cleanup != Some(true)
    }

    /// Runs the daemon, or the task that a flag selects.
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
            localhost_node_ports,
            node,
            master,
            api_servers_file,
            daemon,
        } = flags;
        let (mut config, notices) = load(node, Some(daemon), &names)?;
        config.facts.counters = connection_counters.unwrap_or(true);
        config.localhost_node_ports = localhost_node_ports.unwrap_or(config.localhost_node_ports);
        let json = config.logging.format == config::LogFormat::Json;
        logging::configure(json, config.logging.verbosity);
        for notice in notices {
            notice.log();
        }
        if let Some(path) = write_config_to {
            config::write(&config.written, &path)?;
            info!(event = %LogEvent::ConfigWritten, file = %path.display(), "configuration written");
            return Ok(());
        }
        if cleanup == Some(true) {
            return Cleanup::own_tables().execute();
        }
        if init_only == Some(true) {
            return agent::init(&config);
        }
        let source = match manifests {
            Some(dir) => ObjectSource::Manifests(dir),
            None => ObjectSource::ApiServer(ClientSettings {
                kubeconfig: config.kubeconfig.clone(),
                masters: master.into_iter().filter(|url| !url.is_empty()).collect(),
                servers_file: api_servers_file,
                accepted: config.accepted_types,
                versions: HttpVersions::default(),
            }),
        };
        let options = Options {
            table_owner: table_owner.unwrap_or(true),
            takeover: takeover == Some(true),
            connection_metrics_limit,
        };
        agent::run(source, config, options)
    }
}
