//! Two API servers of one cluster, without a load balancer in front of them, and a network that goes
//! silent.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::process::Child;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Cluster, Family, Host};
use crate::api_server::Server;
use crate::lab::{nft, run_command, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::api_servers;
    crate::trials!(api_servers: a_silent_network_is_left_for_another_server)
}

pub(super) const PORT: u16 = 6443;

/// The daemon on node-1, with an API server instead of manifests.
pub(super) struct ApiDaemon {
    process: Child,
    directory: TempDir,
}

impl ApiDaemon {
    pub(super) fn start(cluster: &Cluster, servers: &[&Server], flags: &[&str]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let log = File::create(directory.path().join("log")).expect("a log");
        let mut command = run_command(cluster);
        command
            .args(["-v=4", "--kubeconfig"])
            .arg(servers[0].kubeconfig())
            .args(
                servers
                    .iter()
                    .map(|server| format!("--master={}", server.url())),
            )
            .args(flags)
            .stderr(log);
        let process = cluster.node.namespace.spawn(&mut command);
        Self { process, directory }
    }

    /// Returns the lines of the log with an event.
    pub(super) fn logged(&self, event: LogEvent) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.path().join("log")).expect("a log");
        let field = format!(" event={event} ");
        let lines = log
            .lines()
            .filter(|line| format!("{line} ").contains(&field));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for ApiDaemon {
    fn drop(&mut self) {
        // The daemon may have exited already.
        let _killed = self.process.kill();
        let _status = self.process.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log"));
            eprintln!("--- log of kube-dnat\n{}---", log.unwrap_or_default());
        }
    }
}

pub(super) fn service(name: &str, cluster_ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    })
}

pub(super) fn is_programmed(cluster: &Cluster, cluster_ip: &str) -> bool {
    let table = Family::V4.table();
    nft::has_element(&cluster.node.namespace, table, "cluster-ips", cluster_ip)
}

/// Drops every packet of an API server in its own namespace, so that no end learns of it.
fn cut(host: &Host) {
    nft::load(
        &host.namespace,
        &format!(
            "table inet cut {{
                chain in {{ type filter hook input priority 0; tcp dport {PORT} drop; }}
                chain out {{ type filter hook output priority 0; tcp sport {PORT} drop; }}
            }}"
        ),
    );
}

fn address(host: &Host, family: Family) -> SocketAddr {
    let ip: IpAddr = host.ip(family);
    (ip, PORT).into()
}

fn a_silent_network_is_left_for_another_server() {
    let cluster = Cluster::new();
    let (one, other) = (&cluster.client, &cluster.other_node);
    let first = address(one, Family::V4);
    let second = address(other, Family::V6);
    let server = one.namespace.run(|| Server::start_at(first));
    let replica = other.namespace.run(|| server.replica_at(second));
    server.apply(service("cart", "10.96.0.77"));
    let _daemon = ApiDaemon::start(&cluster, &[&server, &replica], &[]);
    wait_until("the Service is programmed", || {
        is_programmed(&cluster, "10.96.0.77")
    });
    let open = |server: &Server| server.connections().open;
    let (host, rest) = match (open(&server), open(&replica)) {
        (1, 0) => (one, &replica),
        (0, 1) => (other, &server),
        connections => panic!("not one connection: {connections:?}"),
    };
    let requests_of = |server: &Server| server.requests("services").len();
    assert_eq!(requests_of(rest), 0);

    cut(host);
    rest.apply(service("till", "10.96.0.78"));

    wait_until("the watch continues at the other server", || {
        is_programmed(&cluster, "10.96.0.78")
    });
    // The watch was resumed, not the list.
    let requests = rest.requests("services");
    assert!(
        !requests[0].asks("sendInitialEvents", "true"),
        "{requests:?}"
    );
    assert!(is_programmed(&cluster, "10.96.0.77"));
}
