//! `kube-dnat drain`: the health checks of load balancers fail while the node serves.

use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::json;

use super::admin::{health, on_loopback, value};
use super::commands::json;
use super::explain::{PROGRAM, run};
use super::health_check::{answer, body, local};
use super::shop::{NODE_PORT, Shop, cart_slices};
use super::{Daemon, Family, everywhere, names, servers};
use crate::lab::{Service, Slices, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::drain;
    crate::trials!(drain:
        a_drained_node_fails_the_health_checks_and_serves,
        a_restart_ends_the_drain,
        drain_without_a_daemon_or_with_one_that_hangs_fails_at_once,
        only_root_drains_a_node,
        a_control_socket_in_use_is_logged_once_and_retried,
    )
}

/// The health-check port of the Service.
const PORT: u16 = 32_000;

/// The status of the two families' health checks and of `/healthz`, once all have it.
fn await_status(shop: &Shop, port: u16, status: &str) -> Vec<String> {
    let answers = Family::ALL.map(|family| answer(shop, family, port, status));
    let (code, _) = health(shop, "/healthz");
    assert!(status.starts_with(&code.to_string()), "{status}, {code}");
    answers.into()
}

/// Every frontend goes to the local Pod, through the node port too.
fn serves(shop: &Shop) {
    for (family, protocol) in everywhere() {
        for to in [(family.lan(2), NODE_PORT), (family.load_balancer_ip(1), 80)] {
            let probe = shop.cluster.client.probe(protocol, to);
            assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
        }
    }
}

fn manifests(shop: &Shop) -> String {
    local(PORT).yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()
}

fn gauge(shop: &Shop) -> Option<f64> {
    value(&on_loopback(shop, "/metrics").1, "kube_dnat_node_drained")
}

/// Adds another Service with a health check while the node is drained.
fn add_mail(shop: &Shop, daemon: &Daemon<'_>) {
    let mail = Service::new("shop/mail", 2)
        .both("http", 80)
        .load_balancer_ip(2);
    let mail = mail.spec("externalTrafficPolicy", json!("Local"));
    let mail = mail.spec("healthCheckNodePort", json!(PORT + 1)).yaml();
    let slices = Slices::of("shop/mail").both("http", 8080);
    daemon.apply(
        "mail.yaml",
        &(mail + &slices.ready(shop.pods(["pod-2"])).yaml()),
    );
}

fn a_drained_node_fails_the_health_checks_and_serves() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    await_status(&shop, PORT, "200 OK");
    assert_eq!(gauge(&shop), Some(0.0));
    assert_eq!(
        json(&shop, &["status"]).1["daemon"]["drainedSeconds"],
        json!(null)
    );

    let (code, drained) = json(&shop, &["drain"]);
    assert_eq!(
        (code, &drained),
        (0, &json!({"drained": true, "changed": true}))
    );
    for answer in await_status(&shop, PORT, "503 Service Unavailable") {
        let drained = body(1).replace("true\n}", "true,\n\t\"drained\": true\n}");
        assert!(answer.ends_with(&drained), "{answer}");
        let head = answer.to_lowercase();
        assert!(
            head.contains("x-load-balancing-endpoint-weight: 0\r\n"),
            "{head}"
        );
    }
    assert_eq!(health(&shop, "/healthz").1["nodeEligible"], false);
    assert_eq!(health(&shop, "/livez").0, 200);
    assert_eq!(health(&shop, "/readyz").0, 200);
    serves(&shop);
    add_mail(&shop, &daemon);
    await_status(&shop, PORT + 1, "503 Service Unavailable");

    assert_eq!(gauge(&shop), Some(1.0));
    let (code, status) = json(&shop, &["status"]);
    assert_eq!(
        (code, &status["daemon"]["healthy"]),
        (2, &json!(true)),
        "{status}"
    );
    assert!(status["daemon"]["drainedSeconds"].is_number(), "{status}");
    let (_, out, _) = run(&shop, &["status"]);
    assert!(out.contains(", healthy, DRAINED\n"), "{out}");
    assert!(out.contains("\ndrained    for "), "{out}");
    let overview = on_loopback(&shop, "/debug/overview").1;
    assert!(overview.contains("\"health\":\"drained\""), "{overview}");
    let (code, out, _) = run(&shop, &["drain"]);
    assert_eq!((code, out.as_str()), (0, "the node is drained already\n"));

    let (code, out, _) = run(&shop, &["undrain"]);
    assert_eq!(code, 0, "{out}");
    await_status(&shop, PORT, "200 OK");
    await_status(&shop, PORT + 1, "200 OK");
    assert_eq!(gauge(&shop), Some(0.0));
    assert_eq!(json(&shop, &["status"]).0, 0);
    assert_eq!(run(&shop, &["undrain"]).1, "the node is not drained\n");
    assert_eq!(daemon.logged(LogEvent::NodeDrained).len(), 1);
    assert_eq!(daemon.logged(LogEvent::NodeUndrained).len(), 1);
    serves(&shop);
}

fn a_restart_ends_the_drain() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    assert_eq!(run(&shop, &["drain"]).0, 0);
    await_status(&shop, PORT, "503 Service Unavailable");
    daemon.terminate();
    let _daemon = shop.start(&manifests(&shop));
    await_status(&shop, PORT, "200 OK");
}

fn drain_without_a_daemon_or_with_one_that_hangs_fails_at_once() {
    let shop = Shop::new();
    let fails = |expected: i32, why: &str| {
        for command in ["drain", "undrain"] {
            let (code, _, error) = run(&shop, &[command]);
            assert_eq!(code, expected, "{error}");
            assert!(
                error.starts_with("error: ") && error.contains(why),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    };
    fails(
        3,
        "no kube-dnat daemon is running in this network namespace",
    );
    let daemon = shop.start(&manifests(&shop));
    // The daemon of another node does not hear it.
    let other = &shop.cluster.other_node.namespace;
    let output = other.output(PROGRAM, &["drain"], "");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    await_status(&shop, PORT, "200 OK");
    daemon.signal(Signal::SIGSTOP);
    fails(2, "does not answer within 2 s");
    daemon.signal(Signal::SIGCONT);
    wait_until("the daemon answers", || run(&shop, &["undrain"]).0 == 0);
}

/// In a user namespace with a single user, no other user exists: the unit test of `http::control` has this.
fn only_root_drains_a_node() {
    let shop = Shop::new();
    let daemon = shop.start(&manifests(&shop));
    let users = std::fs::read_to_string("/proc/self/uid_map").expect("/proc/self/uid_map");
    let node = &shop.cluster.node.namespace;
    if users.split_whitespace().last() != Some("1") {
        let as_user = ["--reuid=65534", "--clear-groups", PROGRAM, "drain"];
        let output = node.output("setpriv", &as_user, "");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("only root can drain a node"), "{error}");
        assert!(daemon.logged(LogEvent::NodeDrained).is_empty());
    }
    // A request that never ends keeps nobody else from draining the node.
    let silent: Vec<_> = (0..32)
        .map(|_| {
            node.run(|| {
                let mut stream = UnixStream::connect_addr(&address()).expect("a connection");
                stream.write_all(b"PUT /dr").expect("a part of a request");
                stream
            })
        })
        .collect();
    assert_eq!(run(&shop, &["drain"]).0, 0);
    await_status(&shop, PORT, "503 Service Unavailable");
    drop(silent);
}

fn address() -> SocketAddr {
    SocketAddr::from_abstract_name("kube-dnat/control").expect("a name")
}

fn a_control_socket_in_use_is_logged_once_and_retried() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    let in_use = node.run(|| UnixListener::bind_addr(&address()).expect("free"));
    let daemon = shop.start(&manifests(&shop));
    let failed = || daemon.logged(LogEvent::ControlListenFailed).len();
    wait_until("the socket in use is logged", || failed() == 1);
    await_status(&shop, PORT, "200 OK");
    drop(in_use);
    wait_until("the node can be drained", || run(&shop, &["drain"]).0 == 0);
    await_status(&shop, PORT, "503 Service Unavailable");
    assert_eq!(failed(), 1);
    assert_eq!(daemon.logged(LogEvent::ControlListening).len(), 1);
}
