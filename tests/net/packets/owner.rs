//! Owned tables. On a kernel without them, the same changes are accepted and repaired.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::drift::assert_no_drift;
use super::restart::{assert_every_frontend_is_served, manifests};
use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices};
use super::{Daemon, Family, Protocol, names, servers};
use crate::lab::http::ask;
use crate::lab::{nft, run_command, supports_owned_tables, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::owner;
    crate::trials!(owner:
        no_other_process_can_change_or_delete_the_tables,
        tables_of_an_exited_owner_are_taken_over,
        tables_become_owned_and_not_owned_again,
        a_second_daemon_reports_the_owner_and_changes_nothing,
        a_second_daemon_backs_off_and_takes_over_at_once,
        changes_of_other_tables_are_not_received,
    )
}

/// Runs an nft command. The error is nft's standard error.
fn nft(shop: &Shop, command: &str) -> Result<(), String> {
    let node = &shop.cluster.node.namespace;
    let output = node.output("nft", &["-f", "-"], command);
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Changes of another process.
const CHANGES: [&str; 4] = [
    "delete table ip kube-dnat",
    "flush map ip6 kube-dnat services",
    "add element ip kube-dnat node-ips { 192.0.2.1 }",
    "add rule ip6 kube-dnat services counter",
];

/// Checks that no other process can change the tables, or that kube-dnat repairs each change.
fn assert_protected(shop: &Shop) {
    let before = nft::normalise(&listing(shop));
    for command in CHANGES {
        let result = nft(shop, command);
        if supports_owned_tables() {
            let refused = result.expect_err(command);
            assert!(
                refused.contains("Operation not permitted"),
                "{command}: {refused}"
            );
        } else {
            assert_eq!(result, Ok(()), "{command}");
            await_listing(shop, &before);
        }
    }
}

/// Waits until the tables are these again.
fn await_listing(shop: &Shop, before: &str) {
    wait_until("the tables are repaired", || {
        nft::normalise(&listing(shop)) == before
    });
}

fn listing(shop: &Shop) -> String {
    nft::list(&shop.cluster.node.namespace)
}

fn no_other_process_can_change_or_delete_the_tables() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let probed = daemon.logged(LogEvent::TableOwnershipProbed);
    assert_eq!(probed.len(), 1, "{probed:?}");
    let supported = format!("supported={}", supports_owned_tables());
    assert!(probed[0].contains(&supported), "{probed:?}");
    let before = nft::normalise(&listing(&shop));
    assert_protected(&shop);
    // This command succeeds, because it skips owned tables.
    assert_eq!(nft(&shop, "flush ruleset"), Ok(()));
    if supports_owned_tables() {
        assert_eq!(nft::normalise(&listing(&shop)), before);
        assert!(listing(&shop).contains("flags owner"), "{}", listing(&shop));
        assert_no_drift(&daemon);
    } else {
        await_listing(&shop, &before);
    }
    assert_every_frontend_is_served(&shop);
    // The daemon itself can still change its tables.
    let other = cart_slices(shop.pods(["pod-2"])).yaml();
    daemon.apply("shop.yaml", &(cart_on_every_frontend().yaml() + &other));
    let to = (Family::V4.lan(2), NODE_PORT);
    let probe = shop.cluster.client.probe(Protocol::Tcp, to);
    assert_eq!(servers(&probe), names(["pod-2:8080"]));
}

fn tables_of_an_exited_owner_are_taken_over() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    daemon.kill();
    assert_every_frontend_is_served(&shop);
    // The tables have no owner now. The next start finds and repairs this change.
    nft(
        &shop,
        "delete element ip kube-dnat services { tcp . 10.96.0.1 . 80 }",
    )
    .unwrap();
    let again = Daemon::start(&shop.cluster, &shop.manifests);
    assert_eq!(again.logged(LogEvent::TableAdopted).len(), 2);
    assert_protected(&shop);
    assert_every_frontend_is_served(&shop);
}

fn tables_become_owned_and_not_owned_again() {
    let shop = Shop::new();
    shop.start_without_owner(&manifests(&shop)).terminate();
    let alone = Daemon::start(&shop.cluster, &shop.manifests);
    let changed = if supports_owned_tables() {
        LogEvent::TableReplaced
    } else {
        LogEvent::TableAdopted
    };
    assert_eq!(alone.logged(changed).len(), 2);
    assert_protected(&shop);
    assert_every_frontend_is_served(&shop);
    alone.terminate();
    let shared = shop.start_without_owner(&manifests(&shop));
    assert_eq!(shared.logged(LogEvent::TableAdopted).len(), 2);
    for command in &CHANGES[1..3] {
        assert_eq!(nft(&shop, command), Ok(()), "{command}");
    }
    shared.await_programmed();
    assert_every_frontend_is_served(&shop);
}

fn a_second_daemon_reports_the_owner_and_changes_nothing() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let before = listing(&shop);
    let node = &shop.cluster.node.namespace;
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    let output = node.output(program, &["cleanup"], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    let (refused, metric) = if supports_owned_tables() {
        (
            "is owned by another process",
            "nftables_sync_failures_total{",
        )
    } else {
        // Without an owner the second daemon takes part: it finds its own state in the kernel.
        (
            "is running and would recreate the tables",
            "sync_proxy_rules_last_timestamp_seconds{",
        )
    };
    assert!(said.contains(refused), "{said}");
    let mut second = run_command(&shop.cluster);
    second
        .args(["--manifests", shop.manifests.path()])
        .arg("--metrics-bind-address=0.0.0.0:11249")
        .stderr(Stdio::piped());
    let mut second = node.spawn(&mut second);
    let to = (Family::V4.lan(2), 11_249);
    let counted = || {
        let told = ask(&shop.cluster.client, to, "GET /metrics", "").unwrap_or_default();
        let mut lines = told.lines().filter(|line| line.contains(metric));
        lines.any(|line| !line.ends_with(" 0") && !line.ends_with(" 0.0"))
    };
    wait_until("the second daemon has tried", counted);
    second.kill().expect("send SIGKILL");
    let output = second.wait_with_output().expect("wait for the second");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said.contains("is kube-dnat running twice?"),
        supports_owned_tables(),
        "{said}"
    );
    assert_eq!(nft::normalise(&listing(&shop)), nft::normalise(&before));
    assert_eq!(daemon.warnings(), [""; 0]);
    assert_every_frontend_is_served(&shop);
}

/// A second daemon retries with its back-off, also when objects change. It takes the tables over
/// as soon as the first daemon exits.
fn a_second_daemon_backs_off_and_takes_over_at_once() {
    let shop = Shop::new();
    let first = shop.start(&manifests(&shop));
    let mut second = Command::new(env!("CARGO_BIN_EXE_kube-dnat"));
    second
        .args([
            "run",
            "--manifests",
            shop.manifests.path(),
            "--hostname-override=node-1",
        ])
        .args(["--metrics-bind-address=0.0.0.0:11249"])
        .args(["--healthz-bind-address=0.0.0.0:11256"])
        .env("RUST_LOG", "info,kube_dnat=debug")
        .stderr(Stdio::piped());
    let second = shop.cluster.node.namespace.spawn(&mut second);
    // A change every 50 ms continues until the growing back-off takes seconds.
    for turn in 0..80 {
        let pod = ["pod-2", "pod-1"][turn % 2];
        let slices = cart_slices(shop.pods([pod])).yaml();
        let yaml = cart_on_every_frontend().yaml() + &slices;
        shop.manifests.write("shop.yaml", &yaml);
        thread::sleep(Duration::from_millis(50));
    }
    first.terminate();
    let second = Daemon::started(&shop.cluster, &shop.manifests, second);
    if !supports_owned_tables() {
        // Both have programmed the changes. The second repairs the last one of the first.
        let served = |family: Family| {
            let to = (family.cluster_ip(1), 80);
            servers(&shop.cluster.client.probe(Protocol::Tcp, to)) == names(["pod-1:8080"])
        };
        wait_until("the last change is in force", || {
            Family::ALL.into_iter().all(served)
        });
        assert_every_frontend_is_served(&shop);
        return;
    }
    assert_every_frontend_is_served(&shop);
    let attempts = second.logged(LogEvent::SyncFailed);
    let errors = attempts.iter().filter(|line| line.contains(" ERROR "));
    assert_eq!(errors.count(), 1, "{attempts:?}");
    assert_eq!(second.logged(LogEvent::SyncRecovered).len(), 1);
    let attempts = attempts.len();
    assert!((2..=20).contains(&attempts), "{attempts} attempts");
}

fn changes_of_other_tables_are_not_received() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let node = &shop.cluster.node.namespace;
    let element = |number: u32| Ipv4Addr::from(0x0a00_0000 + number).to_string();
    let elements: Vec<_> = (0..400_000).map(element).collect();
    let theirs = format!(
        "table ip theirs {{ set s {{ type ipv4_addr; elements = {{ {} }}\n }}\n }}",
        elements.join(", ")
    );
    nft::load(node, &theirs);
    nft::load(node, "delete table ip theirs");
    daemon.await_programmed();
    assert_no_drift(&daemon);
}
