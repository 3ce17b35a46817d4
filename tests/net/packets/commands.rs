//! The commands for people: `status`, `top`, `check`, `cleanup`.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::changes::under_load;
use super::explain::run;
use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices};
use super::{Daemon, Family, Protocol};
use crate::lab::{nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::commands;
    crate::trials!(commands:
        status_tells_whether_it_runs_and_what_is_programmed,
        status_of_tables_that_anyone_can_change,
        another_program_at_our_ports_is_not_taken_for_us,
        our_program_by_the_name_of_kube_proxy_is_not_taken_for_it,
        top_counts_connections_by_service_and_endpoint,
        top_without_counters_counts_what_it_hears,
        top_goes_on_while_the_tables_go_and_come,
        top_is_left_by_a_key,
        check_finds_a_node_ready_and_changes_nothing,
        check_says_what_to_mend,
        check_without_capabilities_names_the_one_that_is_missing,
        check_knows_a_table_that_another_version_owns,
        a_daemon_that_owns_no_tables_and_answers_elsewhere_is_found,
        cleanup_is_refused_while_a_daemon_owns_the_tables,
        help_and_completions_are_there_for_every_command,
    )
}

fn manifests(shop: &Shop) -> String {
    let ready = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    cart_on_every_frontend().yaml() + &ready
}

/// The answer as JSON, and the exit code.
#[track_caller]
fn json(shop: &Shop, arguments: &[&str]) -> (i32, Value) {
    let (code, out, error) = run(shop, &[arguments, &["-o", "json"]].concat());
    let answer = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"));
    (code, answer)
}

fn status_tells_whether_it_runs_and_what_is_programmed() {
    let shop = Shop::new();
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 3, "{answer}");
    assert_eq!(answer["daemon"]["running"], false, "{answer}");
    assert_eq!(answer["tables"], Value::Array(Vec::new()), "{answer}");

    let daemon = shop.start(&manifests(&shop));
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
        // The lab's own mark is a Service with a ClusterIP alone.
        assert_eq!(numbers["services"], 2, "{answer}");
        assert_eq!(numbers["frontends"], 6, "{answer}");
        assert_eq!(numbers["nodePorts"], 2, "{answer}");
        assert_eq!(numbers["endpoints"], 2 * (6 + 2), "{answer}");
        assert_eq!(table["owner"], told["process"], "{answer}");
    }
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.starts_with("daemon     runs, kube-dnat ("), "{out}");
    assert!(
        out.contains(
            "alone can change it\n           Services 2, frontends 6, node ports 2, endpoints 16,"
        ),
        "{out}"
    );

    daemon.kill();
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 2, "{answer}");
    assert_eq!(answer["daemon"]["running"], false, "{answer}");
    assert_eq!(answer["tables"][0]["numbers"]["services"], 2, "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.starts_with("daemon     does not run\n"), "{out}");
    assert!(
        out.contains("cannot ask 127.0.0.1:10256: Connection refused"),
        "{out}"
    );
}

fn status_of_tables_that_anyone_can_change() {
    let shop = Shop::new();
    let daemon = shop.start_without_owner(&manifests(&shop));
    nft::load(
        &shop.cluster.node.namespace,
        "flush map ip kube-dnat services",
    );
    wait_until("the repair", Duration::from_secs(10), || {
        !daemon
            .log_lines("another process changed the tables")
            .is_empty()
    });
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["daemon"]["driftRepairs"], 1, "{answer}");
    assert_eq!(answer["tables"][0]["owned"], false, "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(
        out.contains("table ip kube-dnat, anyone can change it"),
        "{out}"
    );
    assert!(out.contains("repairs of the tables: 1;"), "{out}");
}

/// Answers every request at these ports of node-1 with 200, as kube-proxy does, until the test ends.
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

fn another_program_at_our_ports_is_not_taken_for_us() {
    let shop = Shop::new();
    answer_at(&shop, [10249, 10256]);
    let (code, answer) = json(&shop, &["status"]);
    assert_eq!(code, 3, "{answer}");
    assert_eq!(answer["daemon"]["running"], false, "{answer}");
    assert_eq!(answer["daemon"]["healthy"], Value::Null, "{answer}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(
        out.contains("127.0.0.1:10256 is answered by another program"),
        "{out}"
    );
    // Without metrics too.
    let elsewhere = ["status", "--metrics-address", "127.0.0.1:1"];
    let (code, answer) = json(&shop, &elsewhere);
    assert_eq!(code, 3, "{answer}");
    // Beside a daemon of ours that cannot have the ports: what it is asked for is not its health.
    shop.manifests.write("shop.yaml", &manifests(&shop));
    let metrics_elsewhere = ["--metrics-bind-address=127.0.0.1:1"];
    let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &metrics_elsewhere);
    let (code, answer) = json(&shop, &["status", "--metrics-address", "127.0.0.1:2"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["daemon"]["running"], true, "{answer}");
    assert_eq!(answer["daemon"]["healthy"], Value::Null, "{answer}");
    let (_, out, _) = run(&shop, &["check"]);
    assert!(out.contains("WARN  ports"), "{out}");
    assert!(out.contains("10256 is taken by net-"), "{out}");
}

fn our_program_by_the_name_of_kube_proxy_is_not_taken_for_it() {
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
    assert!(out.contains("10256 is taken by kube-dnat ("), "{out}");
}

/// The row of the cart's TCP port.
fn cart_row(answer: &Value) -> Option<&Value> {
    let rows = answer["services"].as_array()?;
    rows.iter()
        .find(|row| row["service"] == "shop/cart:http-tcp")
}

/// `top --once` while connections are made to the ClusterIP and the node port.
fn top_under_load(shop: &Shop) -> (Value, usize) {
    let client = &shop.cluster.client;
    let probes = [
        client.probe(Protocol::Tcp, (Family::V4.cluster_ip(1), 80)),
        client.probe(Protocol::Tcp, (Family::V6.lan(2), NODE_PORT)),
    ];
    let mut answer = Value::Null;
    let tallies = under_load(&probes, || {
        let (code, told) = json(shop, &["top", "--once"]);
        assert_eq!(code, 0, "{told}");
        answer = told;
    });
    let made = tallies
        .iter()
        .flat_map(|tally| tally.servers.values())
        .sum();
    (answer, made)
}

fn top_counts_connections_by_service_and_endpoint() {
    let shop = Shop::new();
    let _daemon = shop.start(&manifests(&shop));
    let (answer, made) = top_under_load(&shop);
    let row = cart_row(&answer).expect("the cart");
    let seconds = answer["seconds"].as_f64().expect("seconds");
    let rate = row["connectionsPerSecond"].as_f64().expect("a rate");
    let made_at_most = u32::try_from(made).map(f64::from).expect("a number");
    assert!(
        rate > 0.0 && rate * seconds <= made_at_most,
        "{made}: {answer}"
    );
    let total = row["connections"].as_u64().expect("a number");
    assert!(
        total > 0 && total <= u64::try_from(made).expect("a number"),
        "{made}: {answer}"
    );
    let endpoints = row["endpoints"].as_array().expect("endpoints");
    let of_endpoints: f64 = endpoints
        .iter()
        .filter_map(|row| row["connectionsPerSecond"].as_f64())
        .sum();
    // Both count the same connections, but for those that began while they were read.
    assert!((of_endpoints - rate).abs() < rate / 4.0 + 20.0, "{answer}");
    // Two Pods in two families.
    assert_eq!(endpoints.len(), 4, "{answer}");
    let idle = answer["services"].as_array().expect("rows").iter();
    let idle = idle.filter(|row| row["service"] == "shop/cart:http-udp");
    assert!(
        idle.clone().all(|row| row["connectionsPerSecond"] == 0.0),
        "{answer}"
    );
    assert_eq!(idle.count(), 1, "{answer}");
    let (_, out, _) = run(
        &shop,
        &["top", "--once", "--interval", "0.1", "--sort", "service"],
    );
    assert!(out.starts_with("SERVICE "), "{out}");
    assert!(out.contains("\nshop/cart:http-tcp "), "{out}");
}

fn top_without_counters_counts_what_it_hears() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--cluster-cidr", &cidrs, "--connection-counters=false"];
    let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    let (answer, _) = top_under_load(&shop);
    let row = cart_row(&answer).expect("the cart");
    assert!(
        row["connectionsPerSecond"]
            .as_f64()
            .is_some_and(|rate| rate > 0.0),
        "{answer}"
    );
    assert_eq!(
        row["endpoints"].as_array().map(Vec::len),
        Some(4),
        "{answer}"
    );
}

fn top_goes_on_while_the_tables_go_and_come() {
    let shop = Shop::new();
    shop.start(&manifests(&shop)).terminate();
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    let node = &shop.cluster.node.namespace;
    let command = format!(
        "{program} top --once --interval 2 & sleep 0.5; {program} cleanup 2>&1; wait -n; echo left: $?"
    );
    let out = node.command("bash", &["-c", &command]);
    assert!(out.contains("left: 0"), "{out}");
    assert!(out.contains("table deleted"), "{out}");
}

fn top_is_left_by_a_key() {
    let shop = Shop::new();
    let (code, _, error) = run(&shop, &["top", "--once"]);
    assert_eq!(code, 3, "{error}");
    assert!(
        error.contains("there is no table kube-dnat here"),
        "{error}"
    );
    let _daemon = shop.start(&manifests(&shop));
    let (code, _, error) = run(&shop, &["top"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("no terminal: use --once"), "{error}");
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    // A terminal of script(1); the key comes once the second table is drawn.
    let inside = format!("stty rows 24 cols 80; {program} top --interval 0.2; echo left: $?");
    let command = format!(
        "(sleep 1; printf e; sleep 1; printf q) | timeout 20 script -qec '{inside}' /dev/null"
    );
    let screen = shop
        .cluster
        .node
        .namespace
        .command("bash", &["-c", &command]);
    for shown in [
        "SERVICE",
        "NEW/S",
        "shop/cart:http-tcp",
        "q leave",
        "left: 0",
    ] {
        assert!(screen.contains(shown), "{shown}: {screen:?}");
    }
}

fn check_finds_a_node_ready_and_changes_nothing() {
    let shop = Shop::new();
    let before = nft::list(&shop.cluster.node.namespace);
    let (code, answer) = json(&shop, &["check"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(answer["ready"], true, "{answer}");
    let levels = answer["findings"].as_array().expect("findings").iter();
    let levels = levels.map(|finding| (&finding["what"], &finding["level"]));
    assert!(
        levels
            .clone()
            .all(|(_, level)| level == "ok" || level == "warning"),
        "{answer}"
    );
    assert!(
        levels
            .clone()
            .any(|(what, level)| what == "nftables" && level == "ok"),
        "{answer}"
    );
    assert_eq!(nft::list(&shop.cluster.node.namespace), before);
    // And so beside a daemon.
    let daemon = shop.start(&manifests(&shop));
    let (code, out, _) = run(&shop, &["check"]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("the kernel takes our tables: they are there"),
        "{out}"
    );
    assert!(out.ends_with("this node is ready for kube-dnat\n"), "{out}");
    assert_eq!(daemon.log_lines("WARN"), [""; 0]);
}

/// What others may have on a node, each of which is to be told of.
const CONFLICTS: &str = "
table ip kube-proxy {
}
table inet firewalld {
}
table ip nat {
    chain KUBE-SVC-A {
    }
    chain PREROUTING {
        type nat hook prerouting priority -150;
        jump KUBE-SVC-A
    }
}
table inet mine {
    chain forward {
        type filter hook forward priority 0; policy drop;
        accept
    }
}
";

fn check_says_what_to_mend() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    node.sysctls(&[
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv4/conf/all/rp_filter", "1"),
    ]);
    node.ip("link add bridge type bridge\nlink add port type veth peer name other\nlink set port master bridge\n");
    nft::load(node, CONFLICTS);
    let (code, answer) = json(&shop, &["check"]);
    assert_eq!(code, 2, "{answer}");
    let found = |what: &str| {
        let findings = answer["findings"].as_array().expect("findings");
        let finding = findings.iter().find(|finding| finding["what"] == what);
        let finding = finding.unwrap_or_else(|| panic!("nothing of {what}: {answer}"));
        let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
        (text("level"), text("found"), text("mend"))
    };
    let (level, _, mend) = found("ip_forward");
    assert_eq!(level, "failure");
    assert!(mend.contains("sysctl -w net.ipv4.ip_forward=1"), "{mend}");
    for (what, said, mended_by) in [
        (
            "kube-proxy rules",
            "table ip kube-proxy, and iptables chains (1) with the jumps to them (1)",
            "--takeover",
        ),
        ("firewalld", "firewalld is active", "firewall-cmd"),
        (
            "host firewall",
            "table inet mine chain forward",
            "ct status dnat accept",
        ),
        (
            "earlier chains",
            "table ip nat chain PREROUTING",
            "addresses of Services",
        ),
        ("rp_filter", "strict on ", "rp_filter=2"),
    ] {
        let (level, found, mend) = found(what);
        assert_eq!(level, "warning", "{what}");
        assert!(found.contains(said), "{what}: {found}");
        assert!(mend.contains(mended_by), "{what}: {mend}");
    }
    let (_, out, _) = run(&shop, &["check"]);
    assert!(out.contains("FAIL  ip_forward"), "{out}");
    assert!(
        out.ends_with("this node is NOT ready for kube-dnat\n"),
        "{out}"
    );
}

fn check_without_capabilities_names_the_one_that_is_missing() {
    let shop = Shop::new();
    let bare = [
        "--bounding-set=-all",
        "--inh-caps=-all",
        env!("CARGO_BIN_EXE_kube-dnat"),
        "check",
    ];
    let output = shop.cluster.node.namespace.output("setpriv", &bare, "");
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{out}");
    assert!(out.contains("FAIL  capability"), "{out}");
    assert!(out.contains("CAP_NET_ADMIN is missing"), "{out}");
}

fn check_knows_a_table_that_another_version_owns() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    let make = "echo 'add table ip kube-dnat { flags owner; }'";
    let wait = "until nft list tables | grep -q kube-dnat; do sleep 0.1; done";
    let command = format!("({make}; sleep 2) | timeout 10 nft -i & {wait}; {program} check; wait");
    let out = node.command("bash", &["-c", &command]);
    assert!(
        out.contains("FAIL  nftables          another process owns a table of our name"),
        "{out}"
    );
}

fn a_daemon_that_owns_no_tables_and_answers_elsewhere_is_found() {
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
    let (code, _, error) = run(&shop, &["cleanup"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("would make the tables again"), "{error}");
    assert!(error.contains("stop the daemon first"), "{error}");
    daemon.terminate();
    assert_eq!(json(&shop, &["status"]).0, 2);
    assert_eq!(run(&shop, &["cleanup"]).0, 0);
}

fn cleanup_is_refused_while_a_daemon_owns_the_tables() {
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
        assert!(
            error.contains("belongs to another process, kube-dnat ("),
            "{error}"
        );
        assert!(error.contains("stop the daemon first"), "{error}");
    }
    assert_eq!(
        nft::normalise(&nft::list(&shop.cluster.node.namespace)),
        before
    );
    daemon.terminate();
    assert_eq!(run(&shop, &["cleanup"]).0, 0);
    assert!(!nft::list(&shop.cluster.node.namespace).contains("kube-dnat"));
}

fn help_and_completions_are_there_for_every_command() {
    let shop = Shop::new();
    for command in [
        "run",
        "explain",
        "status",
        "top",
        "check",
        "render",
        "cleanup",
        "completions",
    ] {
        let (code, out, error) = run(&shop, &[command, "--help"]);
        assert_eq!(code, 0, "{error}");
        assert!(out.contains("Examples:"), "{command}: {out}");
    }
    for (shell, names) in [
        ("bash", "_kube__dnat()"),
        ("zsh", "#compdef kube-dnat"),
        ("fish", "complete -c kube-dnat"),
    ] {
        let (code, out, error) = run(&shop, &["completions", shell]);
        assert_eq!(code, 0, "{error}");
        assert!(out.contains(names) && out.contains("takeover"), "{shell}");
    }
}
