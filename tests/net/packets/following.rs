//! What `status` shows of the sources of objects, of the Node, and of a takeover.

use std::net::SocketAddr;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use serde_json::{Value, json as value};

use super::admin::await_sync;
use super::api_servers::{ApiDaemon, service};
use super::commands::json;
use super::explain::run;
use super::shop::{Shop, cart};
use super::silence::objects_not_served;
use super::{Daemon, Family};
use crate::api_server::Server;
use crate::lab::{run_command, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::following;
    crate::trials!(following:
        status_shows_the_api_server_and_each_watch,
        a_watch_that_fails_is_in_status,
        status_before_the_first_connection_shows_the_pending_takeover,
        a_node_name_that_no_node_has_is_reported,
        a_manifest_that_does_not_parse_is_in_status_until_it_does,
        frontends_without_endpoints_are_counted_without_a_daemon,
        a_missing_directory_of_manifests_changes_nothing,
        an_empty_cluster_cidr_is_a_warning,
    )
}

/// Starts an API server at the client's address.
fn api_server(shop: &Shop) -> Server {
    let client = &shop.cluster.client;
    let at: SocketAddr = (client.ip(Family::V4), 6443).into();
    client.namespace.run(|| Server::start_at(at))
}

fn node(name: &str) -> Value {
    value!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

/// Returns the watch of a kind in an answer of `status`.
fn watch<'a>(answer: &'a Value, kind: &str) -> &'a Value {
    let watches = answer["daemon"]["watches"].as_array();
    let mut watches = watches.into_iter().flatten();
    let found = watches.find(|watch| watch["kind"] == kind);
    found.unwrap_or(&Value::Null)
}

fn await_state(shop: &Shop, kind: &str, state: &str) {
    wait_until(state, || {
        watch(&json(shop, &["status"]).1, kind)["state"] == state
    });
}

/// Starts an API server with a Service and the Node, and the daemon.
fn started(shop: &Shop) -> (Server, ApiDaemon) {
    let server = api_server(shop);
    server.apply(service("cart", "10.96.0.77"));
    server.apply(node("node-1"));
    let daemon = ApiDaemon::start(&shop.cluster, &[&server], &[]);
    await_state(shop, "Service", "synced");
    wait_until("the daemon is healthy", || run(shop, &["status"]).0 == 0);
    (server, daemon)
}

fn status_shows_the_api_server_and_each_watch() {
    let shop = Shop::new();
    let (server, daemon) = started(&shop);

    let (_, answer) = json(&shop, &["status"]);
    let daemon_status = &answer["daemon"];
    let url = daemon_status["apiServer"]["url"].as_str().expect("a URL");
    assert!(url.starts_with(&server.url()), "{answer}");
    let age = daemon_status["apiServer"]["followedSeconds"].as_f64();
    assert!(
        age.is_some_and(|age| (0.0..60.0).contains(&age)),
        "{answer}"
    );
    for (kind, objects) in [
        ("Service", 1),
        ("EndpointSlice", 0),
        ("Node", 1),
        ("ServiceCIDR", 0),
    ] {
        let watch = watch(&answer, kind);
        assert_eq!(watch["state"], "synced", "{answer}");
        assert_eq!(watch["objects"], objects, "{kind}: {answer}");
        assert_eq!(watch["error"], Value::Null, "{answer}");
        let age = watch["seconds"].as_f64();
        assert!(
            age.is_some_and(|age| (0.0..60.0).contains(&age)),
            "{answer}"
        );
    }
    let last_event = watch(&answer, "Service")["lastEventSeconds"].as_f64();
    assert!(last_event.is_some(), "{answer}");
    let node = value!({"name": "node-1", "exists": true});
    assert_eq!(daemon_status["node"], node, "{answer}");
    assert_eq!(daemon_status["takeoverWaitsFor"], Value::Null, "{answer}");
    assert_eq!(daemon_status["manifests"], Value::Null, "{answer}");
    let starting = daemon.logged(LogEvent::DaemonStarting);
    assert!(starting[0].contains(&server.url()), "{starting:?}");
    let (_, out, _) = run(&shop, &["status"]);
    let line = format!("\nAPI server {url}, followed for ");
    assert!(out.contains(&line), "{out}");
    assert!(out.contains("\nwatch      Service: synced for "), "{out}");
    assert!(out.contains("\nnode       node-1\n"), "{out}");
}

fn a_watch_that_fails_is_in_status() {
    let shop = Shop::new();
    let (server, daemon) = started(&shop);
    // The last known objects stay programmed, so this is not a problem of the node.
    server.go_down();
    await_state(&shop, "Service", "failing");
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 0, "{answer}");
    let failing = watch(&answer, "Service");
    assert_eq!(failing["objects"], 1, "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.contains("\nwatch      Service: FAILING for "), "{out}");
    let warnings = daemon.logged(LogEvent::WatchFailed);
    let url = server.url();
    assert!(
        warnings.iter().all(|line| line.contains(&url)),
        "{warnings:?}"
    );
    assert!(!warnings.is_empty());
    server.come_up();
    await_state(&shop, "Service", "synced");
    // The Node goes, and status says so before the problem is reported.
    server.delete("nodes", "node-1");
    wait_until("the Node is gone", || {
        json(&shop, &["status"]).1["daemon"]["node"]["exists"] == false
    });
    assert_eq!(run(&shop, &["status"]).0, 2);
}

fn status_before_the_first_connection_shows_the_pending_takeover() {
    let shop = Shop::new();
    let server = api_server(&shop);
    server.apply(node("node-1"));
    server.go_down();
    let daemon = ApiDaemon::start(&shop.cluster, &[&server], &["--takeover"]);
    await_state(&shop, "Node", "failing");
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 2, "nothing is programmed: {answer}");
    let told = &answer["daemon"];
    assert_eq!(told["takeoverWaitsFor"], "the first sync", "{answer}");
    assert_eq!(told["apiServer"]["url"], Value::Null, "{answer}");
    assert_eq!(told["node"]["exists"], Value::Null, "{answer}");
    let error = watch(&answer, "Node")["error"].as_str().expect("an error");
    assert!(error.contains(&server.url()), "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    for line in [
        format!("\nAPI server NOT connected yet: {}", server.url()),
        "\ntakeover   pending: waits for the first sync\n".to_owned(),
        "\nnode       node-1, not listed yet\n".to_owned(),
    ] {
        assert!(out.contains(&line), "{out}");
    }
    server.come_up();
    wait_until("the takeover is done", || {
        !daemon.logged(LogEvent::KubeProxyNotFound).is_empty()
    });
    let done = || json(&shop, &["status"]).1["daemon"]["takeoverWaitsFor"] == Value::Null;
    wait_until("no takeover is pending", done);
}

fn a_node_name_that_no_node_has_is_reported() {
    let shop = Shop::new();
    let server = api_server(&shop);
    for name in ["worker", "node-2", "nod-1"] {
        server.apply(node(name));
    }
    let daemon = ApiDaemon::start(&shop.cluster, &[&server], &[]);
    let warnings = || daemon.logged(LogEvent::NodeUnknown);
    wait_until("the problem is logged", || warnings().len() == 1);
    let line = &warnings()[0];
    let similar = "the most similar Nodes are nod-1, node-2, worker";
    assert!(line.contains(" WARN ") && line.contains(similar), "{line}");
    await_sync(&shop);
    assert!((objects_not_served(&shop, "UnknownNode") - 1.0).abs() < f64::EPSILON);
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 2, "{answer}");
    let absent = value!({"name": "node-1", "exists": false});
    assert_eq!(answer["daemon"]["node"], absent, "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    let line = "\nnode       node-1: NO such Node object\n";
    assert!(out.contains(line), "{out}");
    assert!(out.contains(similar), "{out}");

    server.apply(node("node-1"));
    wait_until("the node is known", || run(&shop, &["status"]).0 == 0);
    wait_until("the problem is over", || {
        objects_not_served(&shop, "UnknownNode").abs() < f64::EPSILON
    });
    assert_eq!(warnings().len(), 1);
}

fn a_manifest_that_does_not_parse_is_in_status_until_it_does() {
    let shop = Shop::new();
    let daemon = shop.start(&cart().yaml());
    await_sync(&shop);
    shop.manifests.write("broken.yaml", "kind: [Service\n");
    wait_until("the problem is logged", || {
        !daemon.logged(LogEvent::ManifestUnreadable).is_empty()
    });
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 0, "{answer}");
    let manifests = &answer["daemon"]["manifests"];
    assert_eq!(manifests["directory"], shop.manifests.path(), "{answer}");
    let problems = manifests["problems"].as_object().expect("problems");
    assert_eq!(problems.len(), 1, "{answer}");
    let file = format!("{}/broken.yaml", shop.manifests.path());
    let reason = problems[&file].as_str().expect("a reason");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(
        out.contains(&format!("\nPROBLEM    {file}: {reason}\n")),
        "{out}"
    );

    shop.manifests.write("broken.yaml", &cart().yaml());
    wait_until("the end of the problem is logged", || {
        daemon.logged(LogEvent::ManifestReadable).len() == 1
    });
    let (_, answer) = json(&shop, &["status"]);
    assert_eq!(
        answer["daemon"]["manifests"]["problems"],
        value!({}),
        "{answer}"
    );
}

fn frontends_without_endpoints_are_counted_without_a_daemon() {
    let shop = Shop::new();
    let restricted = value!(["192.0.2.0/24", "2001:db8::/32"]);
    let cart = cart()
        .load_balancer_ip(1)
        .spec("loadBalancerSourceRanges", restricted);
    let daemon = shop.start(&cart.yaml());
    await_sync(&shop);
    daemon.kill();
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 2, "{answer}");
    for table in answer["tables"].as_array().expect("tables") {
        // The ClusterIP and the restricted load-balancer IP, each in TCP and UDP, and the mark.
        assert_eq!(table["numbers"]["withoutEndpoints"], 5, "{answer}");
    }
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.contains(", without endpoints 5, "), "{out}");
}

fn a_missing_directory_of_manifests_changes_nothing() {
    let shop = Shop::new();
    let mut command = run_command(&shop.cluster);
    command
        .args(["--manifests", "/no/such/directory"])
        .stderr(std::process::Stdio::piped());
    let child = shop.cluster.node.namespace.spawn(&mut command);
    let output = child.wait_with_output().expect("an exit");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 1, "{log}");
    let error = "cannot read the directory of manifests /no/such/directory";
    assert!(lines[0].contains(error), "{log}");
}

fn an_empty_cluster_cidr_is_a_warning() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &cart().yaml());
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &[]);
    let warnings = daemon.logged(LogEvent::ClusterCidrMissing);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("clusterCIDR is empty"), "{warnings:?}");
    let starting = daemon.logged(LogEvent::DaemonStarting);
    let words = "pods=\"ClusterCIDR without a range\"";
    assert!(starting[0].contains(words), "{starting:?}");
    drop(daemon);
    let daemon = Daemon::start(&shop.cluster, &shop.manifests);
    assert_eq!(daemon.logged(LogEvent::ClusterCidrMissing), [""; 0]);
    let starting = daemon.logged(LogEvent::DaemonStarting);
    let words = format!("pods=\"ClusterCIDR {}", Family::V4.cluster_cidr());
    assert!(starting[0].contains(&words), "{starting:?}");
}
