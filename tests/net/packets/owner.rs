//! Tables that are ours alone, where the kernel can.

use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;

use super::health_check::ask;
use super::restart::{assert_every_frontend_is_served, manifests};
use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices};
use super::{Daemon, Family, Protocol, names, servers};
use crate::lab::{nft, wait_until};

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn tests() -> Vec<Trial> {
    use super::owner;
    crate::trials!(owner:
        nobody_else_can_change_or_delete_the_tables,
        tables_whose_owner_is_gone_are_taken_over,
        tables_that_anyone_could_change_become_ours_alone_and_back,
        a_second_daemon_says_that_it_is_one_and_changes_nothing,
    )
}

/// What nft says of a command.
fn nft(shop: &Shop, command: &str) -> Result<(), String> {
    let node = &shop.cluster.node.namespace;
    let output = node.output("nft", &["-f", "-"], command);
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// What nobody but the owner may do.
const CHANGES: [&str; 4] = [
    "delete table ip kube-dnat",
    "flush map ip6 kube-dnat services",
    "add element ip kube-dnat node-ips { 192.0.2.1 }",
    "add rule ip6 kube-dnat services counter",
];

fn assert_ours_alone(shop: &Shop) {
    for command in CHANGES {
        let refused = nft(shop, command).expect_err(command);
        assert!(
            refused.contains("Operation not permitted"),
            "{command}: {refused}"
        );
    }
}

fn listing(shop: &Shop) -> String {
    nft::list(&shop.cluster.node.namespace)
}

fn nobody_else_can_change_or_delete_the_tables() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    assert_eq!(daemon.log_lines("alone=true").len(), 1);
    let before = nft::normalise(&listing(&shop));
    assert_ours_alone(&shop);
    // Not an error: it goes for the tables that may be deleted.
    assert_eq!(nft(&shop, "flush ruleset"), Ok(()));
    assert_eq!(nft::normalise(&listing(&shop)), before);
    assert!(listing(&shop).contains("flags owner"), "{}", listing(&shop));
    assert_eq!(daemon.log_lines("another process"), [""; 0]);
    assert_every_frontend_is_served(&shop);
    // What nobody may do, the daemon still does.
    let other = cart_slices(shop.pods(["pod-2"])).yaml();
    daemon.apply("shop.yaml", &(cart_on_every_frontend().yaml() + &other));
    let to = (Family::V4.lan(2), NODE_PORT);
    let probe = shop.cluster.client.probe(Protocol::Tcp, to);
    assert_eq!(servers(&probe), names(["pod-2:8080"]));
}

fn tables_whose_owner_is_gone_are_taken_over() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    daemon.kill();
    assert_every_frontend_is_served(&shop);
    // Nobody's: what is changed now is found by the next start.
    nft(
        &shop,
        "delete element ip kube-dnat services { tcp . 10.96.0.1 . 80 }",
    )
    .unwrap();
    let again = Daemon::start(&shop.cluster, &shop.manifests);
    assert_eq!(again.log_lines("adopting the table").len(), 2);
    assert_ours_alone(&shop);
    assert_every_frontend_is_served(&shop);
}

fn tables_that_anyone_could_change_become_ours_alone_and_back() {
    let shop = Shop::new();
    shop.start_without_owner(&manifests(&shop)).terminate();
    let alone = Daemon::start(&shop.cluster, &shop.manifests);
    assert_eq!(alone.log_lines("anyone can change it").len(), 2);
    assert_ours_alone(&shop);
    assert_every_frontend_is_served(&shop);
    alone.terminate();
    let shared = shop.start_without_owner(&manifests(&shop));
    assert_eq!(shared.log_lines("adopting the table").len(), 2);
    for command in &CHANGES[1..3] {
        assert_eq!(nft(&shop, command), Ok(()), "{command}");
    }
    shared.synchronise();
    assert_every_frontend_is_served(&shop);
}

fn a_second_daemon_says_that_it_is_one_and_changes_nothing() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let before = listing(&shop);
    let node = &shop.cluster.node.namespace;
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    let output = node.output(program, &["cleanup"], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("belongs to another process"), "{said}");
    let manifests = shop.manifests.path();
    let mut second = Command::new(program);
    second
        .args([
            "run",
            "--manifests",
            manifests,
            "--metrics-bind-address=0.0.0.0:11249",
        ])
        .stderr(Stdio::piped());
    let mut second = node.spawn(&mut second);
    let to = (Family::V4.lan(2), 11_249);
    let failed = || {
        let told = ask(&shop.cluster.client, to, "GET /metrics", "").unwrap_or_default();
        let mut lines = told
            .lines()
            .filter(|line| line.contains("nftables_sync_failures_total{"));
        lines.any(|line| !line.ends_with(" 0"))
    };
    wait_until("the failure is counted", PATIENCE, failed);
    second.kill().expect("send SIGKILL");
    let output = second.wait_with_output().expect("wait for the second");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is kube-dnat running twice?"), "{said}");
    assert_eq!(nft::normalise(&listing(&shop)), nft::normalise(&before));
    assert_eq!(daemon.log_lines("WARN"), [""; 0]);
    assert_every_frontend_is_served(&shop);
}
