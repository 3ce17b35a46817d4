//! Flags in all forms that kube-proxy accepts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use kube_dnat::config::{KubeProxyConfiguration, SETTINGS, Setting, Support, parse};

use super::kube_dnat;

/// Returns the configuration that results from flags.
fn written(flags: &[&str]) -> KubeProxyConfiguration {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("written.yaml");
    let arguments = [flags, &["--write-config-to", out.to_str().unwrap()]].concat();
    let outcome = kube_dnat(&arguments);
    assert_eq!(outcome.code, Some(0), "{flags:?}: {:#?}", outcome.log);
    let (mut written, _) = parse(&fs::read_to_string(&out).unwrap(), Path::new("out")).unwrap();
    written.set_defaults();
    written
}

#[test]
fn switches_numbers_and_lists_have_the_syntax_of_kube_proxy() {
    for (flags, expected) in [
        (&["--masquerade-all"][..], true),
        (&["--masquerade-all=true"], true),
        (&["--masquerade-all=T"], true),
        (&["--masquerade_all"], true),
        (&["--masquerade-all", "--masquerade-all=false"], false),
        (&["--masquerade-all=0"], false),
        (&[], false),
    ] {
        assert_eq!(
            written(flags).iptables.masquerade_all,
            expected,
            "{flags:?}"
        );
    }
    for (flags, expected) in [
        (&["-v", "4"][..], 4),
        (&["-v=4"], 4),
        (&["-v4"], 4),
        (&["--v=4"], 4),
        (&["--v", "4"], 4),
        (&["-v2", "--v=4"], 4),
    ] {
        assert_eq!(written(flags).logging.verbosity, expected, "{flags:?}");
    }
    let config = written(&[
        "--oom-score-adj",
        "-500",
        "--nodeport-addresses=10.0.0.0/8,fd00::/8",
        "--nodeport-addresses",
        "192.0.2.0/24",
        "--feature-gates=A=true,B=false",
        "--feature-gates=A=false",
        "--vmodule=proxier=3,nft*=4",
        "--conntrack-tcp-timeout-established=1h2m3.5s",
    ]);
    assert_eq!(config.oom_score_adj, Some(-500));
    let addresses = ["10.0.0.0/8", "fd00::/8", "192.0.2.0/24"];
    assert_eq!(config.node_port_addresses, addresses);
    let gates: Vec<_> = config.feature_gates.into_iter().collect();
    assert_eq!(gates, [("A".to_owned(), false), ("B".to_owned(), false)]);
    assert_eq!(config.logging.vmodule[1].file_pattern, "nft*");
    let timeout = config.conntrack.tcp_established_timeout.unwrap();
    assert_eq!(timeout.to_string(), "1h2m3.5s");
}

#[test]
fn flags_of_periods_set_the_section_of_the_mode() {
    let flags = [
        "--iptables-min-sync-period=2s",
        "--ipvs-min-sync-period=3s",
        "--masquerade-all",
    ];
    let of = |mode: &str| written(&[&flags[..], &[&format!("--proxy-mode={mode}")]].concat());
    let nftables = of("nftables");
    assert_eq!(nftables.nftables.min_sync_period.to_string(), "2s");
    assert!(nftables.nftables.masquerade_all && !nftables.iptables.masquerade_all);
    let ipvs = of("ipvs");
    assert_eq!(ipvs.ipvs.min_sync_period.to_string(), "3s");
    assert!(ipvs.iptables.masquerade_all);
    assert_eq!(of("iptables").iptables.min_sync_period.to_string(), "2s");
}

#[test]
fn deprecated_ports_set_the_addresses_of_health_and_metrics() {
    for (flags, healthz, metrics) in [
        (&[][..], "0.0.0.0:10256", "127.0.0.1:10249"),
        (&["--healthz-port=1"], "0.0.0.0:1", "127.0.0.1:10249"),
        (
            &[
                "--healthz-bind-address=::",
                "--healthz-port=1",
                "--metrics-bind-address=::1",
            ],
            "[::]:1",
            "[::1]:10249",
        ),
        (&["--bind-address=::"], "0.0.0.0:10256", "127.0.0.1:10249"),
    ] {
        let config = written(flags);
        assert_eq!(config.healthz_bind_address, healthz, "{flags:?}");
        assert_eq!(config.metrics_bind_address, metrics, "{flags:?}");
    }
}

/// The names of the flags that `run --help` lists.
fn help(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_kube-dnat"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let flags = text.lines().filter_map(|line| {
        let line = line.trim_start();
        let flag = line
            .strip_prefix("-v, ")
            .unwrap_or(line)
            .strip_prefix("--")?;
        let end = flag.find(|letter: char| letter != '-' && !letter.is_ascii_lowercase());
        Some(flag[..end.unwrap_or(flag.len())].to_owned())
    });
    flags.collect()
}

/// Flags that kube-proxy does not have.
const OURS: [&str; 9] = [
    "api-servers-file",
    "connection-counters",
    "connection-metrics-limit",
    "external-local-without-endpoints",
    "localhost-node-ports",
    "manifests",
    "refuse-unserved-load-balancer-ports",
    "table-owner",
    "takeover",
];

/// The others are in docs/configuration.md, as a test of that document proves.
#[test]
fn each_flag_with_an_effect_is_in_the_help_with_and_without_run() {
    let has_effect = |setting: &&Setting| setting.support != Support::NoEffect;
    let settings = SETTINGS.iter().filter(has_effect);
    let settings = settings.flat_map(|setting| setting.flags);
    let mut expected: BTreeSet<String> = settings.map(|flag| (*flag).to_owned()).collect();
    expected.extend(OURS.map(str::to_owned));
    assert_eq!(help(&["--help"]), expected);
    assert_eq!(help(&["run", "--help"]), expected);
}

#[test]
fn an_unknown_subcommand_is_reported_with_a_similar_one() {
    let outcome = kube_dnat(&["statsu"]);
    assert_eq!(outcome.code, Some(1));
    assert_eq!(
        outcome.log,
        [
            "error: unrecognized subcommand 'statsu'; a similar subcommand exists: 'status' (see --help)"
        ]
    );
}

#[test]
fn run_is_the_default_subcommand() {
    let outcome = kube_dnat(&["--kubeconfig=/nonexistent", "--hostname-override=node-1"]);
    assert_eq!(outcome.code, Some(1));
    // Without permission, the program fails before it reads the kubeconfig.
    let error = outcome.error();
    assert!(
        error.contains("/nonexistent") || error.contains("netlink"),
        "{error}"
    );
    let version = Command::new(env!("CARGO_BIN_EXE_kube-dnat"))
        .arg("--version")
        .output()
        .unwrap();
    assert!(version.stdout.starts_with(b"kube-dnat "));
}
