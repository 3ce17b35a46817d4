//! `kubectl dnat`: the plugin on three nodes. There is no kubelet in the lab, so a script takes the place
//! of kubectl: its `exec` enters the network namespace of the node and runs the program there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Output};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::explain::PROGRAM;
use super::shop::{Shop, cart, cart_slices};
use crate::lab::wait_for;

pub(super) fn tests() -> Vec<Trial> {
    use super::kubectl;
    crate::trials!(kubectl:
        the_plugin_runs_commands_on_one_node_and_on_all,
        the_plugin_shows_how_nodes_differ,
        the_plugin_reports_wrong_usage_and_missing_nodes,
    )
}

/// The directory with the plugin and the script.
struct Bin(TempDir);

impl Bin {
    /// Creates the directory for a cluster with these nodes, and one node without a Pod.
    fn new(shops: &[Shop]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        symlink(PROGRAM, file("kubectl-dnat")).expect("a link");
        let numbers = 1..=shops.len();
        let pods = numbers.clone().map(|number| {
            json!({
                "metadata": {"name": format!("kube-dnat-{number}")},
                "spec": {"nodeName": format!("node-{number}"), "containers": []},
                "status": {"phase": "Running"},
            })
        });
        let nodes = numbers.map(|number| json!({"metadata": {"name": format!("node-{number}")}}));
        let list = |items: Vec<Value>| json!({ "items": items }).to_string();
        fs::write(file("pods"), list(pods.collect())).expect("a file");
        fs::write(file("nodes"), list(nodes.collect())).expect("a file");
        let cases: Vec<_> = shops
            .iter()
            .zip(1..)
            .map(|(shop, number)| {
                let namespace = shop.cluster.node.namespace.path();
                format!("kube-dnat-{number}) namespace={namespace} ;;")
            })
            .collect();
        let script = format!(
            "#!/bin/sh\nset -e\n\
            case $1 in\n\
            get) cat \"{directory}/$2\" ;;\n\
            exec)\n\
            [ \"$2 $3 $5 $6 $7 $8\" = '--namespace kube-system --container kube-dnat -- /usr/local/bin/kube-dnat' ]\n\
            case $4 in\n{cases}\n\
            *) echo \"no Pod $4\" >&2; exit 1 ;;\n\
            esac\n\
            shift 8\n\
            exec nsenter --net=\"$namespace\" {PROGRAM} \"$@\" ;;\n\
            *) exit 1 ;;\n\
            esac\n",
            directory = directory.path().display(),
            cases = cases.join("\n"),
        );
        let kubectl = file("kubectl");
        fs::write(&kubectl, script).expect("a script");
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&kubectl, executable).expect("an executable");
        Self(directory)
    }

    /// Runs the plugin. Returns the exit code, the standard output and the standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.0.path().display());
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(self.0.path().join("kubectl-dnat"))
            .args(arguments)
            .env("PATH", path)
            .output()
            .expect("the plugin");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (
            status.code().expect("an exit code"),
            text(stdout),
            text(stderr),
        )
    }
}

/// The Service with these Pods as endpoints.
fn manifests(shop: &Shop, pods: &[&str]) -> String {
    let pods = pods.iter().map(|name| shop.cluster.pod(name));
    cart().yaml() + &cart_slices(pods).yaml()
}

fn the_plugin_runs_commands_on_one_node_and_on_all() {
    let shops = [Shop::new(), Shop::new()];
    let both = ["pod-1", "remote-1"];
    let _first = shops[0].start(&manifests(&shops[0], &both));
    let second = shops[1].start(&manifests(&shops[1], &both));
    let bin = Bin::new(&shops);

    // On a busy machine, a daemon may answer too late.
    let out = wait_for("the status of both nodes", || {
        let (code, out, _) = bin.run(&["status", "-A"]);
        (code == 0).then_some(out)
    });
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[0].starts_with("NODE     STATE"), "{out}");
    assert!(lines[1].starts_with("node-1   healthy   0.1.0"), "{out}");
    let (code, out, _) = bin.run(&["services", "--node", "node-2", "-n", "shop"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("shop/cart:http"), "{out}");
    assert!(!out.contains("== "), "{out}");
    let (code, out, _) = bin.run(&["explain", "-A", "-o", "json", "shop/cart"]);
    assert_eq!(code, 0, "{out}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    for node in ["node-1", "node-2"] {
        let connections = answer[node]["connections"].as_array();
        assert!(connections.is_some_and(|all| !all.is_empty()), "{answer}");
    }
    let (code, out, _) = bin.run(&["top", "-A", "--interval", "0.1"]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("== node-1\n") && out.contains("== node-2\n"),
        "{out}"
    );

    second.signal(Signal::SIGSTOP);
    let out = wait_for("the status of the running node", || {
        let (code, out, _) = bin.run(&["status", "-A"]);
        assert_eq!(code, 2, "{out}");
        out.contains("node-1   healthy").then_some(out)
    });
    assert!(out.contains("node-2   health UNKNOWN"), "{out}");
    second.signal(Signal::SIGCONT);
}

fn the_plugin_shows_how_nodes_differ() {
    let shops = [Shop::new(), Shop::new(), Shop::new()];
    let three = ["pod-1", "pod-2", "remote-1"];
    let _daemons = [
        shops[0].start(&manifests(&shops[0], &three)),
        shops[1].start(&manifests(&shops[1], &three)),
    ];
    let third = shops[2].start(&manifests(&shops[2], &three));
    let bin = Bin::new(&shops);
    // The lab marks the generation of each node with another Service.
    let (code, out, error) = bin.run(&["diff", "shop/cart"]);
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.starts_with("3 nodes hold the same"), "{out}");

    third.apply("shop.yaml", &manifests(&shops[2], &three[..1]));
    third.await_programmed();
    let (code, out, error) = bin.run(&["diff", "shop/cart"]);
    assert_eq!(code, 2, "{out}{error}");
    assert!(
        out.contains("node-3 has 2 endpoints fewer for shop/cart:http"),
        "{out}"
    );
    assert!(!out.contains("node-1"), "{out}");
    let (code, out, _) = bin.run(&["diff", "shop/cart", "-o", "json"]);
    assert_eq!(code, 2, "{out}");
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["nodes"], 3, "{report}");
    assert_eq!(report["differences"][0]["node"], "node-3", "{report}");

    third.remove("shop.yaml");
    third.await_programmed();
    let (code, out, _) = bin.run(&["diff", "shop/cart"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("node-3 lacks shop/cart:http"), "{out}");
}

fn the_plugin_reports_wrong_usage_and_missing_nodes() {
    let shops = [Shop::new()];
    let bin = Bin::new(&shops);
    for (arguments, expected) in [
        (&["services"][..], "--node <NODE>"),
        (
            &["services", "--node", "node-7"],
            "no node node-7 is in the cluster",
        ),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["drain", "-A"], "name the nodes to drain with --node"),
    ] {
        let (code, out, error) = bin.run(arguments);
        assert_eq!(code, 1, "{out}{error}");
        assert!(error.starts_with("error: "), "{error}");
        assert!(error.contains(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    // Nothing is programmed.
    let (code, out, error) = bin.run(&["services", "-A"]);
    assert_eq!(code, 3, "{out}{error}");
    // No daemon is running.
    let (code, out, error) = bin.run(&["drain", "--node", "node-1"]);
    assert_eq!(code, 3, "{out}{error}");
    // A node without a Pod does not answer.
    let nodes =
        json!({"items": [{"metadata": {"name": "node-1"}}, {"metadata": {"name": "node-9"}}]});
    fs::write(bin.0.path().join("nodes"), nodes.to_string()).expect("a file");
    let (code, out, error) = bin.run(&["diff"]);
    assert_eq!(code, 1, "{out}{error}");
    assert!(
        out.contains("node-9 does not answer: no Pod of kube-dnat"),
        "{out}"
    );
    fs::write(bin.0.path().join("pods"), json!({"items": []}).to_string()).expect("a file");
    let (code, _, error) = bin.run(&["status", "-A"]);
    assert_eq!(code, 1, "{error}");
    assert!(
        error.contains("no Pod of kube-dnat is running in namespace kube-system"),
        "{error}"
    );
}
