//! The health checks at `healthCheckNodePort` of Services with external traffic policy Local.

use std::net::{IpAddr, SocketAddr, TcpListener};

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{Shop, cart, cart_slices};
use super::{Daemon, Family, Host, Protocol, names, servers};
use crate::lab::http::{ask, get_briefly};
use crate::lab::{Service, Slices, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::health_check;
    crate::trials!(health_check:
        health_checks_count_the_local_endpoints,
        the_listener_follows_the_policy_the_port_and_the_service,
        a_port_in_use_is_logged_once_and_retried,
        health_checks_are_served_at_the_node_port_addresses,
        the_older_service_keeps_a_contested_port,
        health_checks_are_served_at_load_balancer_ips_of_the_node,
    )
}

const PORT: u16 = 32_000;
/// The cart with a health check and the first load-balancer IPs of the lab.
pub(super) fn local(port: u16) -> Service {
    with_health_check(port, 1)
}

/// The cart with a health check and the n-th load-balancer IPs of the lab.
fn with_health_check(port: u16, n: u8) -> Service {
    cart()
        .node_port(30_080)
        .load_balancer_ip(n)
        .spec("externalTrafficPolicy", json!("Local"))
        .spec("healthCheckNodePort", json!(port))
}

/// Sends a GET request; returns the whole answer.
fn get(from: &Host, to: (IpAddr, u16), path: &str) -> std::io::Result<String> {
    ask(from, to, &format!("GET {path}"), "")
}

/// Waits until an outside client gets this status; returns the answer.
pub(super) fn answer(shop: &Shop, family: Family, port: u16, status: &str) -> String {
    let mut last = String::new();
    wait_until(&format!("{family} port {port} answers {status}"), || {
        let to = (family.lan(2), port);
        last = get(&shop.cluster.client, to, "/any/path").unwrap_or_else(|error| error.to_string());
        last.starts_with(&format!("HTTP/1.1 {status}"))
    });
    last
}

pub(super) fn body(count: usize) -> String {
    format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"cart\"\n\t}},\n\
         \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
    )
}

/// Waits until the node rejects connections to the port.
fn await_closed(shop: &Shop, port: u16) {
    for family in Family::ALL {
        let to = (family.lan(2), port);
        wait_until(&format!("{family} port {port} is closed"), || {
            let refused = std::io::ErrorKind::ConnectionRefused;
            get(&shop.cluster.client, to, "/").is_err_and(|error| error.kind() == refused)
        });
    }
}

fn health_checks_count_the_local_endpoints() {
    let shop = Shop::new();
    let terminating = json!({ "ready": false, "serving": true, "terminating": true });
    let [one, two, remote] = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let daemon = shop.start(&(local(PORT).yaml() + &cart_slices([one, two, remote]).yaml()));
    for family in Family::ALL {
        let answer = answer(&shop, family, PORT, "200 OK\r\n");
        let (head, text) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let head = head.to_lowercase();
        for header in [
            "content-type: application/json",
            "x-content-type-options: nosniff",
            "x-load-balancing-endpoint-weight: 2",
        ] {
            assert!(head.lines().any(|line| line == header), "{header}: {head}");
        }
        assert_eq!(text, body(2));
    }
    // A terminating endpoint can still serve, but the health check does not count it.
    let drained = cart_slices([one, remote]).with([two], &terminating);
    daemon.apply("shop.yaml", &(local(PORT).yaml() + &drained.yaml()));
    for family in Family::ALL {
        wait_until("one endpoint is counted", || {
            answer(&shop, family, PORT, "200 OK\r\n").ends_with(&body(1))
        });
    }
    let drained = cart_slices([remote]).with([one, two], &terminating);
    daemon.apply("shop.yaml", &(local(PORT).yaml() + &drained.yaml()));
    for family in Family::ALL {
        let answer = answer(&shop, family, PORT, "503 Service Unavailable\r\n");
        assert!(answer.ends_with(&body(0)), "{answer}");
    }
}

fn the_listener_follows_the_policy_the_port_and_the_service() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let daemon = shop.start(&(local(PORT).yaml() + &slices));
    let open = |port| Family::ALL.map(|family| answer(&shop, family, port, "200 OK"));
    open(PORT);
    let cluster = local(PORT).spec("externalTrafficPolicy", json!("Cluster"));
    daemon.apply("shop.yaml", &(cluster.yaml() + &slices));
    await_closed(&shop, PORT);
    daemon.apply("shop.yaml", &(local(PORT + 1).yaml() + &slices));
    open(PORT + 1);
    daemon.apply("shop.yaml", &(local(PORT).yaml() + &slices));
    open(PORT);
    await_closed(&shop, PORT + 1);
    daemon.apply("shop.yaml", &slices);
    await_closed(&shop, PORT);
}

fn a_port_in_use_is_logged_once_and_retried() {
    let shop = Shop::new();
    let addresses = Family::ALL.map(|family| SocketAddr::new(family.lan(2), PORT));
    let node = &shop.cluster.node.namespace;
    let in_use = node.run(|| addresses.map(|address| TcpListener::bind(address).expect("free")));
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let daemon = shop.start(&(local(PORT).yaml() + &slices));
    let logged = || daemon.logged(LogEvent::HealthCheckListenFailed);
    wait_until("the port in use is logged", || logged().len() == 2);
    assert!(
        logged().iter().all(|line| line.contains("shop/cart")),
        "{:?}",
        logged()
    );
    for family in Family::ALL {
        let probe = shop
            .cluster
            .client
            .probe(Protocol::Tcp, (family.lan(2), 30_080));
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
    let problems = || super::commands::json(&shop, &["status"]).1["daemon"]["problems"].clone();
    let listed = problems()["Service shop/cart"].to_string();
    for address in addresses {
        let reason = format!("health check cannot be served at {address}");
        assert!(listed.contains(&reason), "{listed}");
    }
    drop(in_use);
    for family in Family::ALL {
        answer(&shop, family, PORT, "200 OK");
    }
    assert_eq!(problems(), json!({}));
    assert_eq!(logged().len(), 2, "logged once: {:?}", logged());
}

/// A load balancer must never reach the Pods of another Service instead of a health check.
fn the_older_service_keeps_a_contested_port() {
    let shop = Shop::new();
    let [pod] = shop.pods(["pod-1"]);
    let mail = |created| {
        let mail = Service::new("shop/mail", 2).port("http", Protocol::Tcp, 80);
        mail.node_port(PORT).created(created).yaml()
    };
    let mail_slices = Slices::of("shop/mail").port("http", Protocol::Tcp, 8080);
    let others = mail_slices.ready([pod]).yaml() + &cart_slices([pod]).yaml();
    let cart = local(PORT).yaml();
    let daemon = shop.start(&(cart.clone() + &mail("2024-02-01T00:00:00Z") + &others));
    let await_conflict = |daemon: &Daemon<'_>, loser: &str, winner: &str| {
        wait_until("the conflict is logged", || {
            let conflicts = daemon.diagnostics(loser, "FrontendConflict");
            let is_named = |line: &String| line.contains("32000/tcp") && line.contains(winner);
            conflicts.len() == 1 && conflicts.iter().all(is_named)
        });
    };
    for family in Family::ALL {
        assert!(answer(&shop, family, PORT, "200 OK\r\n").ends_with(&body(1)));
    }
    await_conflict(&daemon, "Service shop/mail", "Service shop/cart");
    // The other Service becomes older: it gets the port, and the health check is not served.
    daemon.apply(
        "shop.yaml",
        &(cart + &mail("2023-01-01T00:00:00Z") + &others),
    );
    for family in Family::ALL {
        let probe = shop
            .cluster
            .client
            .probe(Protocol::Tcp, (family.lan(2), PORT));
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
    await_conflict(&daemon, "Service shop/cart", "Service shop/mail");
    // The other Service is deleted: the health check is served.
    daemon.apply("shop.yaml", &(local(PORT).yaml() + &others));
    for family in Family::ALL {
        assert!(answer(&shop, family, PORT, "200 OK\r\n").ends_with(&body(1)));
    }
}

/// Some cloud agents add the load-balancer IP to the node and send health checks to it.
fn health_checks_are_served_at_load_balancer_ips_of_the_node() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let ips = Family::ALL.map(|family| family.load_balancer_ip(1));
    let node = &shop.cluster.node;
    node.hold(&ips);
    let daemon = shop.start(&(local(PORT).yaml() + &slices));
    let answers = |ip| {
        let answer = get_briefly(&shop.cluster.client, (ip, PORT), "/");
        answer.is_ok_and(|answer| answer.ends_with(&body(1)))
    };
    let until = |what: &str, serves: bool| {
        for ip in ips {
            wait_until(&format!("{ip} {what}"), || answers(ip) == serves);
        }
        for family in Family::ALL {
            let answer = get(&shop.cluster.client, (family.lan(2), PORT), "/");
            let answer =
                answer.unwrap_or_else(|error| panic!("the node's own address, {what}: {error}"));
            assert!(answer.ends_with(&body(1)), "{what}: {answer}");
        }
    };
    until("is served", true);
    daemon.apply("shop.yaml", &(with_health_check(PORT, 2).yaml() + &slices));
    until("is not in the Service any more", false);
    daemon.apply("shop.yaml", &(local(PORT).yaml() + &slices));
    until("is in the Service again", true);
    let change = |change: &str| {
        let lengths = [32, 128].into_iter().zip(ips);
        let lines = lengths.map(|(length, ip)| format!("addr {change} {ip}/{length} dev lo\n"));
        node.namespace.ip(&lines.collect::<String>());
    };
    change("del");
    until("is removed from the node", false);
    change("add");
    until("is added to the node", true);
}

fn health_checks_are_served_at_the_node_port_addresses() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    shop.manifests
        .write("shop.yaml", &(local(PORT).yaml() + &slices));
    let other = Family::ALL.map(super::Cluster::secondary_ip);
    let [v4, v6] = other;
    let ranges = format!("{v4}/32,{v6}/128");
    let daemon = Daemon::start_with(
        &shop.cluster,
        &shop.manifests,
        &["--nodeport-addresses", &ranges],
    );
    let answers = |ip| get_briefly(&shop.cluster.client, (ip, PORT), "/").is_ok();
    for ip in other {
        wait_until("the health check is served", || answers(ip));
    }
    for family in Family::ALL {
        assert!(!answers(family.lan(2)), "{family}");
    }
    drop(daemon);
    let flags = ["--nodeport-addresses", "all"];
    let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    for ip in other
        .into_iter()
        .chain(Family::ALL.map(|family| family.lan(2)))
    {
        wait_until("the health check is served", || answers(ip));
    }
}
