//! `kube-dnat check --config`: a configuration and its cluster, before a daemon starts with them.

use std::fs;
use std::net::SocketAddr;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::api_servers::{PORT, service};
use super::explain::PROGRAM;
use super::{Cluster, Family};
use crate::api_server::Server;
use crate::lab::wait_for;

pub(super) fn tests() -> Vec<Trial> {
    use super::check_cluster;
    crate::trials!(check_cluster:
        check_accepts_a_configuration_and_its_cluster,
        check_names_each_mistake_of_a_configuration,
        check_names_each_problem_of_a_cluster,
        check_reports_an_api_server_without_an_answer,
        check_compares_the_probes_of_the_daemon_set,
    )
}

/// The level, name and message of a result.
type CheckLine = (String, String, String);

/// A cluster with an API server, and a configuration file.
struct Setup {
    cluster: Cluster,
    server: Server,
    directory: TempDir,
}

impl Setup {
    fn new() -> Self {
        let cluster = Cluster::new();
        let host = &cluster.client;
        let address: SocketAddr = (host.ip(Family::V4), PORT).into();
        let server = host.namespace.run(|| Server::start_at(address));
        server.apply(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
            "spec": {"podCIDRs": [Family::V4.pod_cidr(1)]},
        }));
        let mut kubernetes = service("kubernetes", "10.96.0.1");
        kubernetes["metadata"]["namespace"] = "default".into();
        server.apply(kubernetes);
        let directory = TempDir::new().expect("a directory");
        Self {
            cluster,
            server,
            directory,
        }
    }

    /// Checks this configuration. Returns the exit code, and the level and text of each result.
    fn check(&self, configuration: &str, flags: &[&str]) -> (i32, Vec<CheckLine>) {
        let file = self.directory.path().join("config.yaml");
        let header = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        fs::write(&file, format!("{header}{configuration}")).expect("a file");
        let file = file.to_string_lossy();
        let given = ["check", "-o", "json", "--config", &file];
        let node = &self.cluster.node.namespace;
        let output = node.output(PROGRAM, &[&given[..], flags].concat(), "");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        });
        let results = answer["results"].as_array().expect("results").iter();
        let text =
            |result: &Value, field: &str| result[field].as_str().unwrap_or_default().to_owned();
        let results = results.map(|result| {
            (
                text(result, "level"),
                text(result, "check"),
                text(result, "message"),
            )
        });
        (output.status.code().expect("a code"), results.collect())
    }

    /// Checks until the API server answers in time, which it may not on a busy machine.
    fn check_answered(&self, configuration: &str, flags: &[&str]) -> (i32, Vec<CheckLine>) {
        wait_for("answers of the API server", || {
            let (code, results) = self.check(configuration, flags);
            let is_late = |(_, _, message): &CheckLine| {
                message.contains("no answer from") || message.contains("no answer in")
            };
            (!results.iter().any(is_late)).then_some((code, results))
        })
    }

    fn kubeconfig(&self) -> String {
        self.server.kubeconfig().to_string_lossy().into_owned()
    }
}

#[track_caller]
fn assert_has(results: &[CheckLine], level: &str, check: &str, message: &str) {
    let has = results.iter().any(|(of_level, of_check, text)| {
        of_level == level && of_check == check && text.contains(message)
    });
    assert!(has, "{level} {check} {message}: {results:#?}");
}

/// A configuration of the lab's cluster.
fn configuration() -> String {
    format!(
        "mode: nftables\nhostnameOverride: node-1\nclusterCIDR: {}\n",
        Family::V4.cluster_cidr()
    )
}

fn check_accepts_a_configuration_and_its_cluster() {
    let setup = Setup::new();
    let (code, results) =
        setup.check_answered(&configuration(), &["--kubeconfig", &setup.kubeconfig()]);
    assert_eq!(code, 0, "{results:#?}");
    let ok = |check, message: &str| assert_has(&results, "ok", check, message);
    ok("configuration", "is valid (mode nftables), node node-1");
    ok("API server", &setup.server.url());
    ok(
        "API server",
        "answers with version v1.36.2; its certificate is ",
    );
    ok("rights", "list and watch Services");
    ok("node", "the Node object node-1 exists");
    ok("cluster CIDR", Family::V4.cluster_cidr());
    ok("route", "10.96.0.1");
    ok("health", "0.0.0.0:10256");
    // The file names the kubeconfig as well.
    let named = format!(
        "{}clientConnection:\n  kubeconfig: {}\n",
        configuration(),
        setup.kubeconfig()
    );
    assert_eq!(setup.check_answered(&named, &[]), (0, results));
}

fn check_names_each_mistake_of_a_configuration() {
    let setup = Setup::new();
    let (code, results) = setup.check_answered("clusterCIDR: 10.0.0.0/99\n", &[]);
    assert_eq!(code, 2, "{results:#?}");
    assert_has(&results, "failure", "configuration", "clusterCIDR");
    let dubious = "clusterCdir: 10.0.0.0/8\nhealthzBindAddress: 127.0.0.1:10256\n";
    let (code, results) = setup.check_answered(dubious, &["--kubeconfig", &setup.kubeconfig()]);
    // The host name of this machine is no Node.
    assert_eq!(code, 2, "{results:#?}");
    assert_has(&results, "warning", "configuration", "clusterCdir");
    assert_has(&results, "warning", "health", "127.0.0.1:10256 is loopback");
    assert_has(&results, "warning", "cluster CIDR", "is empty");
    assert_has(&results, "failure", "node", "there is no Node object");
}

fn check_names_each_problem_of_a_cluster() {
    let setup = Setup::new();
    setup.server.bar("endpointslices", 403);
    setup.server.bar("servicecidrs", 403);
    let elsewhere = "hostnameOverride: node-1\nclusterCIDR: 192.168.0.0/16\n";
    let kubeconfig = setup.kubeconfig();
    let flags = ["--kubeconfig", &kubeconfig];
    let (code, results) = setup.check_answered(elsewhere, &flags);
    assert_eq!(code, 2, "{results:#?}");
    let denied = "may not list endpointslices, watch endpointslices";
    assert_has(&results, "failure", "rights", denied);
    assert_has(&results, "warning", "rights", "list servicecidrs");
    let uncovered = format!("does not cover {}", Family::V4.pod_cidr(1));
    assert_has(&results, "failure", "cluster CIDR", &uncovered);
    let node = &setup.cluster.node.namespace;
    node.ip("route flush scope global");
    let (code, results) = setup.check_answered(elsewhere, &flags);
    assert_eq!(code, 2, "{results:#?}");
    assert_has(&results, "failure", "route", "no route covers ClusterIP");
}

fn check_reports_an_api_server_without_an_answer() {
    let setup = Setup::new();
    let kubeconfig = setup.kubeconfig();
    let flags = ["--kubeconfig", kubeconfig.as_str()];
    let url = setup.server.url();
    setup.server.go_down();
    let (code, results) = setup.check(&configuration(), &flags);
    assert_eq!(code, 2, "{results:#?}");
    assert_has(&results, "failure", "API server", url.trim_end_matches('/'));
    setup.server.come_up();
    setup.server.fall_silent();
    let (code, results) = setup.check(&configuration(), &flags);
    assert_eq!(code, 2, "{results:#?}");
    assert_has(&results, "failure", "API server", "no answer from");
    setup.server.speak();
    setup.server.set_token("another");
    let (code, results) = setup.check_answered(&configuration(), &flags);
    assert_eq!(code, 2, "{results:#?}");
    assert_has(&results, "failure", "API server", "401");
}

fn check_compares_the_probes_of_the_daemon_set() {
    let setup = Setup::new();
    let kubeconfig = setup.kubeconfig();
    let flags = ["--kubeconfig", kubeconfig.as_str()];
    let (code, results) = setup.check_answered(&configuration(), &flags);
    assert_eq!(code, 0, "{results:#?}");
    assert_has(&results, "ok", "probes", "no DaemonSet of kube-dnat yet");
    let probe = json!({"httpGet": {"host": "127.0.0.1", "path": "/livez", "port": 10256}});
    let pod = json!({"containers": [{"name": "kube-dnat", "livenessProbe": probe}]});
    setup.server.apply(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "namespace": "kube-system", "name": "kube-dnat",
            "labels": {"app.kubernetes.io/name": "kube-dnat"},
        },
        "spec": {
            "selector": {}, "template": {"spec": pod},
        },
    }));
    let (code, results) = setup.check_answered(&configuration(), &flags);
    assert_eq!(code, 0, "{results:#?}");
    assert_has(&results, "ok", "probes", "kube-system/kube-dnat");
    let moved = configuration() + "healthzBindAddress: 0.0.0.0:10299\n";
    let (code, results) = setup.check_answered(&moved, &flags);
    assert_eq!(code, 2, "{results:#?}");
    assert_has(
        &results,
        "failure",
        "probes",
        "its livenessProbe requests port 10256, but healthzBindAddress is 0.0.0.0:10299",
    );
    setup.server.bar("daemonsets", 403);
    let (code, results) = setup.check_answered(&moved, &flags);
    assert_eq!(code, 0, "{results:#?}");
    assert_has(&results, "warning", "probes", "cannot be read");
}
