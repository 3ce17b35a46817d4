//! `healthCheckNodePort`: what load balancers are told of a Service with external policy Local.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{Shop, cart, cart_slices};
use super::{Daemon, Family, Host, Protocol, names, servers};
use crate::lab::{Service, Slices, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::health_check;
    crate::trials!(health_check:
        load_balancers_are_told_how_many_endpoints_are_here,
        it_comes_and_goes_with_the_policy_the_port_and_the_service,
        a_port_that_is_taken_is_told_of_and_tried_again,
        it_is_answered_where_node_ports_are_served,
        its_port_is_the_older_services,
        it_is_answered_at_the_load_balancer_ips_that_the_node_holds,
    )
}

const PORT: u16 = 32_000;
const PATIENCE: Duration = Duration::from_secs(5);

fn local(port: u16) -> Service {
    with_health_check(port, 1)
}

/// With the lab's n-th load-balancer IPs.
fn with_health_check(port: u16, n: u8) -> Service {
    cart()
        .node_port(30_080)
        .load_balancer_ip(n)
        .spec("externalTrafficPolicy", json!("Local"))
        .spec("healthCheckNodePort", json!(port))
}

/// All that an HTTP server sends back; the error if there is none.
fn get(from: &Host, to: (IpAddr, u16), path: &str) -> std::io::Result<String> {
    ask(from, to, &format!("GET {path}"), "")
}

/// The same for any method.
pub(super) fn ask(
    from: &Host,
    to: (IpAddr, u16),
    what: &str,
    body: &str,
) -> std::io::Result<String> {
    from.namespace.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(to), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let len = body.len();
        write!(
            stream,
            "{what} HTTP/1.1\r\nHost: node\r\nContent-Length: {len}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// The answer to a load balancer outside, once its status line is this.
pub(super) fn answer(shop: &Shop, family: Family, port: u16, status: &str) -> String {
    let mut last = String::new();
    wait_until(
        &format!("{family} port {port} answers {status}"),
        PATIENCE,
        || {
            let to = (family.lan(2), port);
            last = get(&shop.cluster.client, to, "/any/path")
                .unwrap_or_else(|error| error.to_string());
            last.starts_with(&format!("HTTP/1.1 {status}"))
        },
    );
    last
}

fn body(count: usize) -> String {
    format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"cart\"\n\t}},\n\
         \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
    )
}

/// Waits until nobody listens there.
fn await_closed(shop: &Shop, port: u16) {
    for family in Family::ALL {
        let to = (family.lan(2), port);
        wait_until(&format!("{family} port {port} is closed"), PATIENCE, || {
            let refused = std::io::ErrorKind::ConnectionRefused;
            get(&shop.cluster.client, to, "/").is_err_and(|error| error.kind() == refused)
        });
    }
}

fn load_balancers_are_told_how_many_endpoints_are_here() {
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
    // One more is drained: it may serve still, and no longer counts.
    let drained = cart_slices([one, remote]).with([two], &terminating);
    daemon.apply("shop.yaml", &(local(PORT).yaml() + &drained.yaml()));
    for family in Family::ALL {
        wait_until("one is left", PATIENCE, || {
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

fn it_comes_and_goes_with_the_policy_the_port_and_the_service() {
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

fn a_port_that_is_taken_is_told_of_and_tried_again() {
    let shop = Shop::new();
    let addresses = Family::ALL.map(|family| SocketAddr::new(family.lan(2), PORT));
    let node = &shop.cluster.node.namespace;
    let taken = node.run(|| addresses.map(|address| TcpListener::bind(address).expect("free")));
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let daemon = shop.start(&(local(PORT).yaml() + &slices));
    let told = || daemon.logged(LogEvent::HealthCheckListenFailed);
    wait_until("the taken port is told of", PATIENCE, || told().len() == 2);
    assert!(
        told().iter().all(|line| line.contains("shop/cart")),
        "{:?}",
        told()
    );
    for family in Family::ALL {
        let probe = shop
            .cluster
            .client
            .probe(Protocol::Tcp, (family.lan(2), 30_080));
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
    let wrong = || super::commands::json(&shop, &["status"]).1["daemon"]["problems"].clone();
    let listed = wrong()["Service shop/cart"].to_string();
    for address in addresses {
        let reason = format!("health check cannot be served at {address}");
        assert!(listed.contains(&reason), "{listed}");
    }
    drop(taken);
    for family in Family::ALL {
        answer(&shop, family, PORT, "200 OK");
    }
    assert_eq!(wrong(), json!({}));
    assert_eq!(told().len(), 2, "said once: {:?}", told());
}

/// A load balancer must never hear another Service's Pods instead of a health check.
fn its_port_is_the_older_services() {
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
    let await_conflict = |daemon: &Daemon<'_>, loser: &str| {
        wait_until("the conflict is logged", PATIENCE, || {
            daemon.diagnostics(loser, "FrontendConflict").len() == 1
        });
    };
    for family in Family::ALL {
        assert!(answer(&shop, family, PORT, "200 OK\r\n").ends_with(&body(1)));
    }
    await_conflict(&daemon, "Service shop/mail");
    // The other is older: it is served there, and the health check is not.
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
    await_conflict(&daemon, "Service shop/cart");
    // It goes: the health check is answered.
    daemon.apply("shop.yaml", &(local(PORT).yaml() + &others));
    for family in Family::ALL {
        assert!(answer(&shop, family, PORT, "200 OK\r\n").ends_with(&body(1)));
    }
}

/// As a cloud's agent has it, which gives the node the load-balancer IP and asks there.
fn it_is_answered_at_the_load_balancer_ips_that_the_node_holds() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let ips = Family::ALL.map(|family| family.load_balancer_ip(1));
    let node = &shop.cluster.node;
    node.hold(&ips);
    let daemon = shop.start(&(local(PORT).yaml() + &slices));
    let answers = |ip| {
        let answer = get(&shop.cluster.client, (ip, PORT), "/");
        answer.is_ok_and(|answer| answer.ends_with(&body(1)))
    };
    let until = |what: &str, serves: bool| {
        for ip in ips {
            wait_until(&format!("{ip} {what}"), PATIENCE, || answers(ip) == serves);
        }
        for family in Family::ALL {
            assert!(answers(family.lan(2)), "the node's own, {what}");
        }
    };
    until("is asked", true);
    daemon.apply("shop.yaml", &(with_health_check(PORT, 2).yaml() + &slices));
    until("is no longer the Service's", false);
    daemon.apply("shop.yaml", &(local(PORT).yaml() + &slices));
    until("is the Service's again", true);
    let change = |change: &str| {
        let lengths = [32, 128].into_iter().zip(ips);
        let lines = lengths.map(|(length, ip)| format!("addr {change} {ip}/{length} dev lo\n"));
        node.namespace.ip(&lines.collect::<String>());
    };
    change("del");
    until("is no longer the node's", false);
    change("add");
    until("is the node's again", true);
}

fn it_is_answered_where_node_ports_are_served() {
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
    let answers = |ip| get(&shop.cluster.client, (ip, PORT), "/").is_ok();
    for ip in other {
        wait_until("it is answered", PATIENCE, || answers(ip));
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
        wait_until("it is answered", PATIENCE, || answers(ip));
    }
}
