//! `cleanup`, and what all subcommands have in common.

use libtest_mimic::Trial;
use serde_json::Value;

use super::explain::run;
use super::shop::{Shop, cart_on_every_frontend, cart_slices};
use crate::lab::{nft, supports_owned_tables};

pub(super) fn tests() -> Vec<Trial> {
    use super::commands;
    crate::trials!(commands:
        cleanup_fails_while_a_daemon_is_running,
        every_command_has_help_and_completions,
    )
}

/// The manifests of the Service `cart` with every kind of frontend and two endpoints.
pub(super) fn manifests(shop: &Shop) -> String {
    let ready = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    cart_on_every_frontend().yaml() + &ready
}

/// Runs a subcommand with `-o json`. Returns the exit code and the answer.
#[track_caller]
pub(super) fn json(shop: &Shop, arguments: &[&str]) -> (i32, Value) {
    let (code, out, error) = run(shop, &[arguments, &["-o", "json"]].concat());
    let answer = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"));
    (code, answer)
}

/// What `cleanup` says while a daemon is running: the problem and the fix, first for tables without
/// an owner.
pub(super) const CLEANUP_REFUSALS: [(&str, &str); 2] = [
    ("is running and would recreate the tables", "stop it first"),
    (
        "is owned by another process, kube-dnat (",
        "stop the daemon first",
    ),
];

fn cleanup_fails_while_a_daemon_is_running() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let before = nft::normalise(&nft::list(&shop.cluster.node.namespace));
    for flags in [
        &["cleanup"][..],
        &["cleanup", "--kube-proxy"],
        &["--cleanup"],
    ] {
        let (code, _, error) = run(&shop, flags);
        assert_eq!(code, 1, "{error}");
        let (problem, fix) = CLEANUP_REFUSALS[usize::from(supports_owned_tables())];
        assert!(error.contains(problem), "{error}");
        assert!(error.contains(fix), "{error}");
    }
    assert_eq!(
        nft::normalise(&nft::list(&shop.cluster.node.namespace)),
        before
    );
    // The preview fails where the deletion would fail.
    let (code, out, error) = run(&shop, &["cleanup", "--dry-run"]);
    let (problem, _) = CLEANUP_REFUSALS[usize::from(supports_owned_tables())];
    assert_eq!(code, 1, "{error}");
    assert!(error.contains(problem), "{error}");
    assert!(out.contains("would delete table ip kube-dnat ("), "{out}");
    daemon.terminate();
    let proxy = "table ip kube-proxy {\n}\n";
    nft::load(&shop.cluster.node.namespace, proxy);
    let before = nft::list(&shop.cluster.node.namespace);
    let (code, out, error) = run(&shop, &["cleanup", "--dry-run", "--kube-proxy"]);
    assert_eq!(code, 0, "{error}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(
        lines[1].starts_with("would delete table ip6 kube-dnat ("),
        "{out}"
    );
    assert_eq!(lines[2], "would delete table ip kube-proxy");
    assert_eq!(nft::list(&shop.cluster.node.namespace), before);
    assert_eq!(run(&shop, &["cleanup", "--kube-proxy"]).0, 0);
    let (code, out, _) = run(&shop, &["cleanup", "--dry-run", "--kube-proxy"]);
    assert_eq!((code, out.as_str()), (0, "nothing to delete\n"));
    assert!(!nft::list(&shop.cluster.node.namespace).contains("kube-dnat"));
}

fn every_command_has_help_and_completions() {
    let shop = Shop::new();
    for command in [
        "run",
        "services",
        "explain",
        "status",
        "top",
        "check",
        "render",
        "cleanup",
        "bugreport",
        "completions",
    ] {
        let (code, out, error) = run(&shop, &[command, "--help"]);
        assert_eq!(code, 0, "{error}");
        assert!(out.contains("Examples:"), "{command}: {out}");
    }
    for (shell, names) in [
        ("bash", "_clap_complete_kube_dnat"),
        ("zsh", "#compdef kube-dnat"),
        (
            "fish",
            "complete --keep-order --exclusive --command kube-dnat",
        ),
    ] {
        let (code, out, error) = run(&shop, &["completions", shell]);
        assert_eq!(code, 0, "{error}");
        assert!(out.contains(names), "{shell}: {out}");
    }
}
