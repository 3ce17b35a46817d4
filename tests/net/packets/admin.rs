//! The endpoints for operators, the kubelet and Prometheus.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::shop::{NODE_PORT, Shop, cart, cart_on_every_frontend, cart_slices};
use super::{Daemon, Family, Protocol};
use crate::lab::http::{ask, status};
use crate::lab::{Host, Service, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::admin;
    crate::trials!(admin:
        health_is_200_once_everything_is_committed,
        health_is_503_before_the_first_commit,
        a_node_that_is_being_removed_is_not_eligible,
        metrics_are_valid_and_count_changes,
        state_and_configuration_are_served_on_loopback_only,
        the_page_has_services_syncs_and_connections,
        a_name_of_another_site_is_refused,
        the_verbosity_of_the_log_changes_at_run_time,
        sigusr1_returns_to_the_configured_verbosity,
        logs_are_json_if_configured,
        a_port_in_use_is_retried_or_ends_the_start,
        connections_are_counted_by_service_while_elements_change,
        connections_are_not_counted_if_disabled,
    )
}

const HEALTH: u16 = 10_256;
const METRICS: u16 = 10_249;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn manifests(shop: &Shop) -> String {
    cart_on_every_frontend().yaml() + &cart_slices(shop.pods(["pod-1", "remote-1"])).yaml()
}

/// Sends a request; returns the status and the body of the answer.
fn answer(from: &Host, to: (IpAddr, u16), what: &str, body: &str) -> (u16, String) {
    let answer = ask(from, to, what, body).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    (status(&answer).expect("a status"), body.to_owned())
}

/// Waits for the end of the sync in progress: the sync loop answers `/debug/state` between two
/// syncs.
pub(super) fn await_sync(shop: &Shop) {
    let to = (LOOPBACK, METRICS);
    wait_until("the sync loop answers", || {
        let answer = ask(&shop.cluster.node, to, "GET /debug/state", "");
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    });
}

/// Requests a path of the health port from outside, after the sync in progress.
pub(super) fn health(shop: &Shop, path: &str) -> (u16, Value) {
    await_sync(shop);
    let to = (Family::V4.lan(2), HEALTH);
    let (status, body) = answer(&shop.cluster.client, to, &format!("GET {path}"), "");
    let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
    (status, body)
}

/// Requests a path of the metrics port from the node, after the sync in progress.
pub(super) fn on_loopback(shop: &Shop, path: &str) -> (u16, String) {
    await_sync(shop);
    let to = (LOOPBACK, METRICS);
    answer(&shop.cluster.node, to, &format!("GET {path}"), "")
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

fn health_is_200_once_everything_is_committed() {
    let shop = Shop::new();
    let _daemon = shop.start(&manifests(&shop));
    let (status, body) = health(&shop, "/healthz");
    assert_eq!(status, 200, "{body}");
    let fields = [
        "currentTime",
        "healthy",
        "lastUpdated",
        "nodeEligible",
        "status",
    ];
    let mut all = keys(&body);
    all.sort_unstable();
    assert_eq!(all, fields);
    assert_eq!(
        (&body["healthy"], &body["nodeEligible"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(body["lastUpdated"], body["currentTime"]);
    for family in ["IPv4", "IPv6"] {
        assert_eq!(body["status"][family]["healthy"], true, "{body}");
    }
    let (status, body) = health(&shop, "/livez");
    assert_eq!((status, &body["healthy"]), (200, &json!(true)));
    assert_eq!(body.get("nodeEligible"), None);
    assert_eq!(health(&shop, "/readyz"), (200, json!("ok")));
    assert_eq!(health(&shop, "/metrics").0, 404);
    let ipv6 = (Family::V6.lan(2), HEALTH);
    assert_eq!(answer(&shop.cluster.client, ipv6, "GET /livez", "").0, 200);
}

fn health_is_503_before_the_first_commit() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    let flags = [
        "--signal=TERM",
        "4",
        program,
        "--master=https://127.0.0.1:1",
    ];
    std::thread::scope(|scope| {
        let daemon = scope.spawn(|| node.output("timeout", &flags, ""));
        let to = (LOOPBACK, HEALTH);
        wait_until("the health port answers", || {
            ask(&shop.cluster.node, to, "GET /livez", "").is_ok()
        });
        for path in ["/healthz", "/livez"] {
            let (status, body) = health(&shop, path);
            assert_eq!(status, 503, "{path}");
            assert_eq!(body["healthy"], false, "{path}: {body}");
            assert_eq!(
                body["lastUpdated"], "0001-01-01T00:00:00Z",
                "{path}: {body}"
            );
            assert_eq!(body["status"], json!({}), "{path}: {body}");
        }
        assert_eq!(health(&shop, "/readyz").0, 503);
        let (status, metrics) = on_loopback(&shop, "/metrics");
        assert_eq!(status, 200);
        assert!(
            metrics.contains("kubeproxy_proxy_livez_total{code=\"503\"}"),
            "{metrics}"
        );
        assert!(
            metrics
                .contains("kube_dnat_watch_restarts_total{kind=\"Service\",reason=\"closed\"} 1"),
            "{metrics}"
        );
        daemon.join().expect("the daemon");
    });
}

fn a_node_that_is_being_removed_is_not_eligible() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": shop.cluster.node.name()},
        "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": Family::V4.lan(2)}]},
    });
    daemon.apply("node.yaml", &node.to_string());
    let (status, body) = health(&shop, "/healthz");
    assert_eq!(
        (status, &body["nodeEligible"]),
        (503, &json!(false)),
        "{body}"
    );
    assert_eq!(body["healthy"], false);
    assert_eq!(health(&shop, "/livez").0, 200);
}

/// Returns the value of a metric with this name and these labels, in the syntax of the exposition
/// format.
pub(super) fn value(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("a number"))
}

/// Returns the value of a metric of the daemon.
pub(super) fn metric(shop: &Shop, name: &str) -> Option<f64> {
    value(&on_loopback(shop, "/metrics").1, name)
}

/// The metrics that must not be zero after the repair.
const COUNTED: &[&str] = &[
    "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}",
    "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"}",
    "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}",
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}",
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv6\"}",
    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    "kubeproxy_sync_proxy_rules_service_changes_total",
    "kube_dnat_elements{ip_family=\"IPv4\",set=\"cluster-ips\"}",
    "kube_dnat_services{ip_family=\"IPv6\"}",
    "kube_dnat_transactions_total{outcome=\"committed\"}",
    "kube_dnat_transaction_duration_seconds_count",
    "kube_dnat_operations_total",
    "kube_dnat_netlink_sent_bytes_total",
    "kube_dnat_rejected_object_parts_total{kind=\"Service\",reason=\"address\"}",
    "kube_dnat_objects_not_served{reason=\"InvalidAddress\"}",
    "kube_dnat_drift_repairs_total",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_start_time_seconds",
    "process_open_fds",
];

/// The metrics that are zero after the repair, and not absent.
const ZERO: &[&str] = &[
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"}",
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    "kubeproxy_sync_proxy_rules_service_changes_pending",
    "kube_dnat_unread_services",
    "kubeproxy_proxy_healthz_total{code=\"503\"}",
    "kubeproxy_proxy_livez_total{code=\"200\"}",
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"}",
    "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv6\"}",
    "kube_dnat_transactions_total{outcome=\"failed\"}",
    "kube_dnat_localhost_socket_failures_total{protocol=\"udp\"}",
    "kube_dnat_rejected_object_parts_total{kind=\"EndpointSlice\",reason=\"no_service\"}",
    "kube_dnat_watch_restarts_total{kind=\"Service\",reason=\"closed\"}",
    "kube_dnat_objects_not_served{reason=\"UnknownNode\"}",
    "kube_dnat_events_dropped_total",
    "kube_dnat_node_drained",
];

fn metrics_are_valid_and_count_changes() {
    let shop = Shop::new();
    let daemon = shop.start_without_owner(&manifests(&shop));
    let bad = Service::new("shop/bad", 9).both("http", 80);
    let bad = bad.spec("externalIPs", json!(["not-an-address"]));
    daemon.apply("bad.yaml", &bad.yaml());
    daemon.apply(
        "shop.yaml",
        &cart().spec("internalTrafficPolicy", json!("Local")).yaml(),
    );
    let node = &shop.cluster.node.namespace;
    crate::lab::nft::load(node, "flush set ip kube-dnat cluster-ips");
    let repaired = || !daemon.logged(LogEvent::DriftRepaired).is_empty();
    wait_until("the tables are repaired", repaired);
    let (status, metrics) = on_loopback(&shop, "/metrics");
    assert_eq!(status, 200);
    for name in COUNTED {
        let value = value(&metrics, name);
        assert!(
            value.is_some_and(|value| value > 0.0),
            "{name} {value:?}\n{metrics}"
        );
    }
    for name in ZERO {
        assert_eq!(value(&metrics, name), Some(0.0), "{name}\n{metrics}");
    }
    let elements = |metrics: &str| {
        let sets = metrics
            .lines()
            .filter(|line| line.starts_with("kube_dnat_elements{ip_family=\"IPv4\""));
        sets.map(|line| {
            line.rsplit(' ')
                .next()
                .expect("a value")
                .parse::<u32>()
                .expect("a number")
        })
        .sum::<u32>()
    };
    // The kernel has the same number of elements.
    let listed = crate::lab::nft::list_json(node);
    let listed = listed["nftables"].as_array().expect("objects");
    let sets = listed
        .iter()
        .flat_map(|object| [&object["set"], &object["map"]]);
    let in_kernel: usize = sets
        .filter(|set| set["family"] == "ip" && set["table"] == "kube-dnat")
        .map(|set| set["elem"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(
        usize::try_from(elements(&metrics)),
        Ok(in_kernel),
        "{metrics}"
    );
}

fn state_and_configuration_are_served_on_loopback_only() {
    let shop = Shop::new();
    let _daemon = shop.start(&manifests(&shop));
    assert_eq!(
        on_loopback(&shop, "/proxyMode"),
        (200, "nftables".to_owned())
    );
    assert_eq!(on_loopback(&shop, "/healthz"), (200, "ok".to_owned()));
    assert_eq!(on_loopback(&shop, "/nothing").0, 404);
    let (_, configuration) = on_loopback(&shop, "/configz");
    let configuration: Value = serde_json::from_str(&configuration).expect("JSON");
    let configuration = &configuration["kubeproxy.config.k8s.io"];
    assert_eq!(
        configuration["clusterCIDR"],
        Family::ALL.map(Family::cluster_cidr).join(",")
    );
    let (code, status) = on_loopback(&shop, "/debug/status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(code, 200);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"), "{status}");
    assert!(status["lastSyncSeconds"].is_f64(), "{status}");
    for count in [
        "pendingChanges",
        "unreadServices",
        "driftRepairs",
        "failedSyncs",
    ] {
        assert!(status[count].is_u64(), "{count}: {status}");
    }
    wait_until("conntrack is cleaned up", || {
        let (_, status) = on_loopback(&shop, "/debug/status");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        status["conntrackCleanupPending"] == json!(false)
    });
    let (_, state) = on_loopback(&shop, "/debug/state");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    let port = &state["IPv4"]["services"]["shop/cart"][0];
    assert_eq!(
        port["clusterIPs"],
        json!([Family::V4.cluster_ip(1)]),
        "{state}"
    );
    assert_eq!(
        port["endpoints"].as_array().map(Vec::len),
        Some(2),
        "{state}"
    );
    assert_eq!(port["internal"], "to all endpoints");
    let outside = ask(
        &shop.cluster.client,
        (Family::V4.lan(2), METRICS),
        "GET /metrics",
        "",
    );
    assert!(outside.is_err(), "{outside:?}");
}

/// Requests a path of the metrics port from the node, as JSON.
fn json_on_loopback(shop: &Shop, path: &str) -> Value {
    let (code, body) = on_loopback(shop, path);
    assert_eq!(code, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

fn the_page_has_services_syncs_and_connections() {
    let shop = Shop::new();
    let _daemon = shop.start(&manifests(&shop));
    let page = answer(&shop.cluster.node, (LOOPBACK, METRICS), "GET /", "");
    assert!(
        page.0 == 200 && page.1.starts_with("<!doctype html>"),
        "{page:?}"
    );
    let overview = json_on_loopback(&shop, "/debug/overview");
    assert_eq!(overview["health"], "healthy", "{overview}");
    assert_eq!(overview["node"], shop.cluster.node.name());
    assert_eq!(overview["syncs"][0]["full"], true, "{overview}");
    let services = json_on_loopback(&shop, "/debug/services");
    assert_eq!(services["busy"], false, "{services}");
    let ports = services["ports"].as_array().expect("ports");
    let port = ports
        .iter()
        .find(|port| port["name"] == "shop/cart:http-tcp");
    let port = port.unwrap_or_else(|| panic!("{services}"));
    let endpoints = &port["families"][0];
    assert_eq!(
        (
            &endpoints["family"],
            &endpoints["used"],
            &endpoints["total"]
        ),
        (&json!("IPv4"), &json!(2), &json!(2)),
        "{port}"
    );
    let known = format!("/debug/services?revision={}", services["revision"]);
    assert_eq!(json_on_loopback(&shop, &known).get("ports"), None);
    let cart = json_on_loopback(&shop, "/debug/services?service=shop%2Fcart");
    assert_eq!(
        cart["endpoints"].as_array().map(Vec::len),
        Some(4),
        "{cart}"
    );
    let missing = on_loopback(&shop, "/debug/services?service=shop/web");
    assert_eq!(missing, (404, "no such Service".to_owned()));
    let to = (Family::V4.cluster_ip(1), 80);
    let tally = shop.cluster.client.probe(Protocol::Tcp, to).send_times(3);
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    wait_until("the connections are counted", || {
        let counted = json_on_loopback(&shop, "/debug/connections");
        counted["connections"] == json!({ "shop/cart:http-tcp": 3 })
    });
}

fn a_name_of_another_site_is_refused() {
    let shop = Shop::new();
    let _daemon = shop.start(&manifests(&shop));
    let status = |host: &str, what: &str| {
        shop.cluster.node.namespace.run(|| {
            let mut stream = TcpStream::connect((LOOPBACK, METRICS)).expect("a connection");
            write!(stream, "{what} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("it is sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            answer.split(' ').nth(1).expect("a status").to_owned()
        })
    };
    let node = shop.cluster.node.name();
    for path in ["/", "/debug/status", "/debug/services", "/configz"] {
        let get = format!("GET {path}");
        for host in ["localhost:10249", "[::1]:10249", "192.168.7.2", node] {
            assert_eq!(status(host, &get), "200", "{path} at {host}");
        }
        assert_eq!(status("rebound.example:10249", &get), "403", "{path}");
    }
    assert_eq!(status("rebound.example", "PUT /debug/flags/v"), "403");
    // Monitoring may have any name for the node.
    assert_eq!(status("node-1.monitoring.example", "GET /metrics"), "200");
}

fn the_verbosity_of_the_log_changes_at_run_time() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let set = |verbosity: &str| {
        answer(
            &shop.cluster.node,
            (LOOPBACK, METRICS),
            "PUT /debug/flags/v",
            verbosity,
        )
    };
    let commits = || daemon.logged(LogEvent::SyncCommitted).len();
    assert_eq!(set("0").0, 200);
    let quiet = commits();
    daemon.await_programmed();
    assert_eq!(commits(), quiet);
    assert_eq!(
        set("4"),
        (
            200,
            "successfully set klog.logging.verbosity to 4\n".to_owned()
        )
    );
    daemon.await_programmed();
    wait_until("a commit is logged", || commits() > quiet);
    assert_eq!(set("loud").0, 400);
    for changes in [3, 4] {
        daemon.signal(Signal::SIGUSR1);
        let said = || daemon.logged(LogEvent::LogVerbosityChanged).len();
        wait_until("the verbosity is changed", || said() == changes);
    }
}

fn sigusr1_returns_to_the_configured_verbosity() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &["-v=2"]);
    let changes = || daemon.logged(LogEvent::LogVerbosityChanged);
    for (count, verbosity) in [(1, "verbosity=4"), (2, "verbosity=2"), (3, "verbosity=4")] {
        daemon.signal(Signal::SIGUSR1);
        wait_until("the verbosity is changed", || changes().len() == count);
        let line = changes().pop().expect("a line");
        assert!(line.ends_with(verbosity), "{line}");
    }
}

fn logs_are_json_if_configured() {
    let shop = Shop::new();
    shop.manifests.write("shop.yaml", &manifests(&shop));
    let flags = ["--logging-format=json"];
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    let first = daemon.logged(LogEvent::FirstSyncCommitted);
    let line: Value = serde_json::from_str(&first[0]).expect("JSON");
    assert_eq!(
        (&line["level"], &line["rebuilt"]),
        (&json!("INFO"), &json!(true)),
        "{line}"
    );
}

fn a_port_in_use_is_retried_or_ends_the_start() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    let in_use = node.run(|| TcpListener::bind(("::", HEALTH)).expect("the port"));
    let program = env!("CARGO_BIN_EXE_kube-dnat");
    let flags = [
        "run",
        "--manifests",
        shop.manifests.path(),
        "--bind-address-hard-fail",
    ];
    let output = node.output(program, &flags, "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot serve health at 0.0.0.0:10256"),
        "{said}"
    );
    let daemon = shop.start(&manifests(&shop));
    let diagnostics = || daemon.logged(LogEvent::ServerListenFailed).len();
    wait_until("the failure is logged", || diagnostics() == 1);
    drop(in_use);
    wait_until("the daemon listens", || {
        !daemon.logged(LogEvent::ServerListening).is_empty()
    });
    assert_eq!(health(&shop, "/healthz").0, 200);
    assert_eq!(diagnostics(), 1);
}

fn connections_are_counted_by_service_while_elements_change() {
    let shop = Shop::new();
    let with = |pods: &[&str]| {
        let pods = pods.iter().map(|name| shop.cluster.pod(name));
        cart_on_every_frontend().yaml() + &cart_slices(pods).yaml()
    };
    let daemon = shop.start(&with(&["pod-1"]));
    let counted = || {
        let (_, metrics) = on_loopback(&shop, "/metrics");
        let of = |name: &str| {
            let labels = format!("namespace=\"shop\",service=\"cart\",port_name=\"{name}\"");
            let name = format!("kube_dnat_service_connections_total{{{labels}}}");
            value(&metrics, &name).unwrap_or_else(|| panic!("{metrics}"))
        };
        of("http-tcp") + of("http-udp")
    };
    let connect = |to: (IpAddr, u16)| {
        for protocol in Protocol::ALL {
            let tally = shop.cluster.client.probe(protocol, to).send_times(10);
            assert!(tally.failures.is_empty(), "{:?}", tally.failures);
        }
    };
    assert!(counted().abs() < f64::EPSILON);
    connect((Family::V4.cluster_ip(1), 80));
    connect((Family::V6.lan(2), NODE_PORT));
    assert!((counted() - 40.0).abs() < f64::EPSILON, "{}", counted());
    // The elements are recreated, and their counters start at zero.
    daemon.apply("shop.yaml", &with(&["pod-1", "pod-2"]));
    connect((Family::V4.cluster_ip(1), 80));
    assert!((counted() - 60.0).abs() < f64::EPSILON, "{}", counted());
}

fn connections_are_not_counted_if_disabled() {
    let shop = Shop::new();
    shop.start(&manifests(&shop)).terminate();
    let listed = || crate::lab::nft::list_table(&shop.cluster.node.namespace, Family::V4.table());
    let counters = |listing: &str| listing.matches("\t\tcounter\n").count();
    assert_eq!(counters(&listed()), 9);
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--cluster-cidr", &cidrs, "--connection-counters=false"];
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    // Only the counters of full affinity maps remain.
    assert_eq!(counters(&listed()), 1, "{}", listed());
    let probe = shop
        .cluster
        .client
        .probe(Protocol::Tcp, (Family::V4.lan(2), NODE_PORT));
    assert!(probe.send_times(5).failures.is_empty());
    let (_, metrics) = on_loopback(&shop, "/metrics");
    assert!(
        !metrics.contains("kube_dnat_service_connections"),
        "{metrics}"
    );
    daemon.terminate();
    let flags = ["--cluster-cidr", &cidrs, "--connection-metrics-limit=1"];
    let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    let (_, metrics) = on_loopback(&shop, "/metrics");
    let shown = metrics
        .lines()
        .filter(|line| line.starts_with("kube_dnat_service_connections_total"));
    assert_eq!(shown.count(), 1, "{metrics}");
    assert!(value(&metrics, "kube_dnat_service_ports_hidden").is_some_and(|hidden| hidden > 0.0));
}
