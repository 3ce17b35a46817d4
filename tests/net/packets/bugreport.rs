//! `kube-dnat bugreport`: one archive, complete with a healthy daemon, still useful without one, and
//! free of credentials.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use super::api_servers::{ApiDaemon, PORT, is_programmed, service};
use super::commands::manifests;
use super::explain::{PROGRAM, run, run_without_capabilities};
use super::shop::Shop;
use super::{Cluster, Family};
use crate::api_server::Server;
use crate::lab::{Namespace, wait_for, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::bugreport;
    crate::trials!(bugreport:
        a_bug_report_of_a_healthy_node_has_every_part,
        a_bug_report_of_a_hung_or_missing_daemon_says_what_is_missing,
        a_bug_report_contains_no_credential,
        a_bug_report_that_cannot_be_written_is_an_error,
    )
}

/// Returns the files of an archive, without the name of its folder.
fn unpack(archive: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let entries = archive.entries().expect("an archive");
    let file = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        let (folder, name) = path.split_once('/').expect("a folder");
        assert!(folder.starts_with("kube-dnat-bugreport-"), "{path}");
        let mut content = String::new();
        entry.read_to_string(&mut content).expect("UTF-8");
        (name.to_owned(), content)
    };
    entries.map(file).collect()
}

fn bugreport(node: &Namespace) -> BTreeMap<String, String> {
    let output = node.output(PROGRAM, &["bugreport", "--output", "-"], "");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    let files = unpack(&output.stdout);
    assert_eq!(files["README.txt"], error, "the summary");
    files
}

fn a_bug_report_of_a_healthy_node_has_every_part() {
    let shop = Shop::new();
    let _daemon = shop.start(&manifests(&shop));
    // On a busy machine, the daemon may answer too late.
    let files = wait_for("a complete report", || {
        let files = bugreport(&shop.cluster.node.namespace);
        let missing = files["README.txt"]
            .lines()
            .filter(|line| line.contains("MISSING"))
            // The kernel may lack a file.
            .filter(|line| !line.contains("/proc/"))
            .count();
        (missing == 0 && files["status.txt"].contains(", healthy")).then_some(files)
    });
    let readme = &files["README.txt"];
    for (file, expected) in [
        ("version.txt", env!("CARGO_PKG_VERSION")),
        ("status.txt", ", healthy"),
        ("services.txt", "shop/cart:http"),
        ("services.json", "shop/cart:http"),
        ("check.txt", "for kube-dnat"),
        ("tables/ip.nft", "shop/cart"),
        ("tables/ip6.nft", "shop/cart"),
        ("nft/ruleset-without-elements.nft", "table ip kube-dnat"),
        ("daemon/log.txt", "starting"),
        ("daemon/state.json", "shop/cart"),
        ("daemon/configuration.json", "kubeproxy.config.k8s.io"),
        ("daemon/metrics.txt", "kube_dnat_build_info"),
        ("daemon/process.txt", "--manifests"),
        ("system/interfaces.txt", "eth0"),
        ("conntrack/statistics.txt", "entries"),
    ] {
        assert!(files[file].contains(expected), "{file}: {}", files[file]);
        assert!(readme.contains(file), "{readme}");
    }
    for (file, content) in files
        .iter()
        .filter(|(file, _)| Path::new(file).extension().is_some_and(|end| end == "json"))
    {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(content);
        assert!(parsed.is_ok(), "{file}: {content}");
    }
    // Without elements, whatever their number.
    let terse = &files["nft/ruleset-without-elements.nft"];
    assert!(!terse.contains("shop/cart"), "{terse}");
}

fn a_bug_report_of_a_hung_or_missing_daemon_says_what_is_missing() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    daemon.signal(Signal::SIGSTOP);
    let files = bugreport(&shop.cluster.node.namespace);
    let readme = &files["README.txt"];
    assert!(files["status.txt"].contains("health UNKNOWN"), "{readme}");
    assert!(files["daemon/process.txt"].contains("stopped"), "{readme}");
    assert!(files["tables/ip.nft"].contains("shop/cart"), "{readme}");
    assert!(!files.contains_key("daemon/log.txt"), "{readme}");
    assert!(
        readme.contains("MISSING  GET /debug/log: deadline has elapsed"),
        "{readme}"
    );
    daemon.kill();
    let files = bugreport(&shop.cluster.node.namespace);
    let readme = &files["README.txt"];
    assert!(files["status.txt"].contains("not running"), "{readme}");
    assert!(files["tables/ip6.nft"].contains("shop/cart"), "{readme}");
    assert!(
        readme.contains("limits of the daemon: not running"),
        "{readme}"
    );
}

fn a_bug_report_contains_no_credential() {
    let cluster = Cluster::new();
    let host = &cluster.client;
    let address = (host.ip(Family::V4), PORT).into();
    let server = host.namespace.run(|| Server::start_at(address));
    server.apply(service("cart", "10.96.0.77"));
    let _daemon = ApiDaemon::start(&cluster, &[&server, &server], &[]);
    wait_until("the Service is programmed", || {
        is_programmed(&cluster, "10.96.0.77")
    });
    let node = &cluster.node.namespace;
    server.close_watches();
    let requests = server.requests("services").len();
    wait_until("a request is logged", || {
        server.requests("services").len() > requests
    });

    let files = bugreport(node);

    let log = &files["daemon/log.txt"];
    assert!(log.contains("DEBUG"), "a detailed log: {log}");
    for (file, content) in &files {
        assert!(!content.contains(&server.token()), "{file}");
        assert!(!content.contains("PRIVATE KEY"), "{file}");
    }
}

fn a_bug_report_that_cannot_be_written_is_an_error() {
    let shop = Shop::new();
    let (code, _, error) = run(&shop, &["bugreport", "--output", "/proc/no/file"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("cannot write /proc/no/file"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    // Without permission for nftables there is an archive that says so.
    let output = run_without_capabilities(&shop, &["bugreport", "--output", "-"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    let readme = &unpack(&output.stdout)["README.txt"];
    assert!(readme.contains("tables/ip.nft"), "{readme}");
    assert!(readme.contains("CAP_NET_ADMIN is needed"), "{readme}");
}
