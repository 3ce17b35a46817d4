//! `kube-dnat status`: whether the daemon is running, and what it has programmed.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Daemon;
use super::admin::await_sync;
use super::commands::{json, manifests};
use super::explain::run;
use super::shop::Shop;
use crate::lab::{nft, supports_owned_tables, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::status;
    crate::trials!(status:
        status_shows_whether_the_daemon_is_running_and_what_it_has_programmed,
        status_of_tables_without_an_owner,
        another_program_at_the_default_ports_is_not_mistaken_for_kube_dnat,
        kube_dnat_under_the_name_of_kube_proxy_is_recognized,
        a_daemon_without_owned_tables_at_other_ports_is_found,
        a_daemon_that_stands_still_is_not_healthy,
    )
}

fn status_shows_whether_the_daemon_is_running_and_what_it_has_programmed() {
    let shop = Shop::new();
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 3, "{answer}");
    assert_eq!(answer["daemon"]["running"], false, "{answer}");
    assert_eq!(answer["tables"], Value::Array(Vec::new()), "{answer}");

    let daemon = shop.start(&manifests(&shop));
    await_sync(&shop);
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 0, "{answer}");
    let told = &answer["daemon"];
    assert_eq!(told["running"], true, "{answer}");
    assert_eq!(told["healthy"], true, "{answer}");
    assert_eq!(told["process"]["name"], "kube-dnat", "{answer}");
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"), "{answer}");
    assert_eq!(told["pendingChanges"], 0, "{answer}");
    assert_eq!(told["failedSyncs"], 0, "{answer}");
    assert_eq!(told["driftRepairs"], 0, "{answer}");
    assert!(
        told["lastSyncSeconds"]
            .as_f64()
            .is_some_and(|age| (0.0..60.0).contains(&age)),
        "{answer}"
    );
    for table in answer["tables"].as_array().expect("tables") {
        let numbers = &table["numbers"];
        // The lab adds a Service with only a ClusterIP, as a mark.
        assert_eq!(numbers["services"], 2, "{answer}");
        assert_eq!(numbers["frontends"], 7, "{answer}");
        assert_eq!(numbers["nodePorts"], 2, "{answer}");
        assert_eq!(numbers["endpoints"], 2 * (6 + 2), "{answer}");
        let owner = [&Value::Null, &told["process"]][usize::from(supports_owned_tables())];
        assert_eq!(&table["owner"], owner, "{answer}");
    }
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.starts_with("daemon     running, kube-dnat ("), "{out}");
    let owned = ["not owned\n", "owned by kube-dnat ("][usize::from(supports_owned_tables())];
    let table = format!("table ip kube-dnat, {owned}");
    assert!(out.contains(&table), "{out}");
    assert!(
        out.contains(
            "\n           Services 2, frontends 7, node ports 2, without endpoints 1, endpoints 16,"
        ),
        "{out}"
    );
    // An older daemon has no such path, and neither does this one at its health address.
    let address = ["--metrics-address", "127.0.0.1:10256"];
    let (code, out, _) = run(&shop, &[["status"].as_slice(), &address].concat());
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("), healthy\n"), "{out}");
    let silent = "kube-dnat at 127.0.0.1:10256 does not report its status: it has another version";
    assert!(out.contains(silent), "{out}");

    daemon.kill();
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 2, "{answer}");
    assert_eq!(answer["daemon"]["running"], false, "{answer}");
    assert_eq!(answer["tables"][0]["numbers"]["services"], 2, "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.starts_with("daemon     not running\n"), "{out}");
    assert!(
        out.contains("cannot reach 127.0.0.1:10256: Connection refused"),
        "{out}"
    );
}

fn status_of_tables_without_an_owner() {
    let shop = Shop::new();
    let daemon = shop.start_without_owner(&manifests(&shop));
    nft::load(
        &shop.cluster.node.namespace,
        "flush map ip kube-dnat services",
    );
    wait_until("the repair is logged", || {
        !daemon.logged(LogEvent::DriftRepaired).is_empty()
    });
    await_sync(&shop);
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["daemon"]["driftRepairs"], 1, "{answer}");
    assert_eq!(answer["tables"][0]["owned"], false, "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.contains("table ip kube-dnat, not owned\n"), "{out}");
    assert!(out.contains("table repairs: 1;"), "{out}");
}

/// Responds to every request at these ports of node-1 with 200, like kube-proxy, until the process
/// exits.
fn answer_at(shop: &Shop, ports: [u16; 2]) {
    for port in ports {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = shop.cluster.node.namespace.run(bind).expect("a free port");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _request = stream.read(&mut [0; 4096]);
                let answer =
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nok\n";
                let _gone = stream.write_all(answer.as_bytes());
            }
        });
    }
}

fn another_program_at_the_default_ports_is_not_mistaken_for_kube_dnat() {
    let shop = Shop::new();
    answer_at(&shop, [10249, 10256]);
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 3, "{answer}");
    assert_eq!(answer["daemon"]["running"], false, "{answer}");
    assert_eq!(answer["daemon"]["healthy"], Value::Null, "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(
        out.contains("another program uses 127.0.0.1:10256"),
        "{out}"
    );
    // The same without metrics.
    let elsewhere = ["status", "--metrics-address", "127.0.0.1:1"];
    let (code, answer) = json(&shop, &elsewhere);
    assert_eq!(code, 3, "{answer}");
    // The same with a daemon that cannot bind these ports: the response is not its health.
    shop.manifests.write("shop.yaml", &manifests(&shop));
    let metrics_elsewhere = ["--metrics-bind-address=127.0.0.1:1"];
    let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &metrics_elsewhere);
    let (code, answer) = json(&shop, &["status", "--metrics-address", "127.0.0.1:2"]);
    assert_eq!(code, 2, "unknown health is not health: {answer}");
    assert_eq!(answer["daemon"]["running"], true, "{answer}");
    assert_eq!(answer["daemon"]["healthy"], Value::Null, "{answer}");
    // Its metrics address is found, and reports the first commit.
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["daemon"]["healthy"], true, "{answer}");
    let (_, out, _) = run(&shop, &["check"]);
    assert!(out.contains("WARN  ports"), "{out}");
    assert!(out.contains("10256 is in use by net-"), "{out}");
}

fn kube_dnat_under_the_name_of_kube_proxy_is_recognized() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    let directory = format!("{}.link", shop.manifests.path());
    std::fs::create_dir_all(&directory).expect("a directory");
    let link = format!("{directory}/kube-proxy");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kube-dnat"), &link).expect("a link");
    let mut command = std::process::Command::new(&link);
    command
        .args(["--manifests", shop.manifests.path()])
        .args(["--hostname-override", "node-1"])
        .stderr(std::process::Stdio::piped());
    let child = shop.cluster.node.namespace.spawn(&mut command);
    let _daemon = Daemon::started(&shop.cluster, &shop.manifests, child);
    std::fs::remove_dir_all(&directory).expect("remove the link");
    let (_, answer) = json(&shop, &["status"]);
    let (code, out, _) = run(&shop, &["check"]);
    assert_eq!(answer["daemon"]["process"]["name"], "kube-dnat", "{answer}");
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("ok    kube-proxy "), "{out}");
    assert!(out.contains("10256 is in use by kube-dnat ("), "{out}");
}

fn a_daemon_without_owned_tables_at_other_ports_is_found() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    let flags = [
        "--table-owner=false",
        "--healthz-bind-address=127.0.0.1:20256",
        "--metrics-bind-address=127.0.0.1:20249",
    ];
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["daemon"]["running"], true, "{answer}");
    assert_eq!(answer["daemon"]["process"]["name"], "kube-dnat", "{answer}");
    assert_eq!(answer["daemon"]["healthy"], true, "{answer}");
    assert_eq!(answer["daemon"]["eligible"], true, "{answer}");
    assert!(answer["daemon"]["version"].is_string(), "{answer}");
    let usage = &answer["daemon"]["usage"];
    assert!(usage["runningSeconds"].is_u64(), "{answer}");
    assert!(
        usage["residentBytes"].as_u64() > Some(1_000_000),
        "{answer}"
    );
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.contains("\nprocess    running for "), "{out}");
    let (code, _, error) = run(&shop, &["cleanup"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("would recreate the tables"), "{error}");
    assert!(error.contains("stop it first"), "{error}");
    daemon.terminate();
    assert_eq!(json(&shop, &["status"]).0, 2);
    assert_eq!(run(&shop, &["cleanup"]).0, 0);
}

fn a_daemon_that_stands_still_is_not_healthy() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    daemon.signal(Signal::SIGSTOP);
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 2, "{answer}");
    assert_eq!(answer["daemon"]["running"], true, "{answer}");
    assert_eq!(answer["daemon"]["healthy"], Value::Null, "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.contains(", health UNKNOWN\n"), "{out}");
    daemon.signal(Signal::SIGCONT);
    wait_until("the daemon is healthy", || run(&shop, &["status"]).0 == 0);
}
