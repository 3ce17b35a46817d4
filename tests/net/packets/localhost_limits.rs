//! The relay of node ports at localhost with other programs, broken endpoints, many clients and much data.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::thread;
use std::time::Instant;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use serde_json::json;

use super::admin::{on_loopback, value};
use super::commands::json;
use super::localhost::{probe, start};
use super::node_port_addresses::loopback;
use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::{Family, Protocol, everywhere, names, servers};
use crate::lab::{Host, Outcome, Service, Slices, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::localhost_limits;
    crate::trials!(localhost_limits:
        a_port_in_use_at_localhost_costs_only_itself,
        an_endpoint_that_rejects_is_passed_over,
        a_connection_above_the_limit_is_reset_and_the_next_is_served,
        a_udp_flow_above_the_limit_ends_the_idlest,
        without_file_descriptors_clients_wait,
        much_data_arrives_whole_and_each_end_sees_the_end_of_the_other,
        a_node_port_passes_to_another_service,
    )
}

/// The value of a metric of the relay.
fn metric(shop: &Shop, name: &str) -> Option<f64> {
    let metrics = on_loopback(shop, "/metrics").1;
    value(&metrics, name)
}

fn manifests(shop: &Shop) -> String {
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    cart().node_port(NODE_PORT).yaml() + &slices
}

/// Waits until localhost serves the node port.
fn await_served(shop: &Shop) {
    for (family, protocol) in everywhere() {
        let probe = probe(shop, family, protocol, NODE_PORT);
        wait_until(&format!("{probe} is served"), || {
            probe.send().server().is_some()
        });
    }
}

fn a_port_in_use_at_localhost_costs_only_itself() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    // One program has the port at one address, another one at all addresses.
    let (tcp, udp) = node.run(|| {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, NODE_PORT)).expect("free");
        let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, NODE_PORT)).expect("free");
        (tcp, udp)
    });
    let mail = Service::new("shop/mail", 2).both("http", 80);
    let slices = Slices::of("shop/mail").both("http", 8080);
    let mail = mail.node_port(NODE_PORT + 1).yaml() + &slices.ready(shop.pods(["pod-2"])).yaml();
    let daemon = start(&shop, &(manifests(&shop) + &mail));
    let failed = || daemon.logged(LogEvent::LocalhostPortListenFailed);
    // UDP at all IPv6 addresses includes IPv4.
    wait_until("the ports in use are logged", || failed().len() == 3);
    assert!(failed().iter().all(|line| line.contains("shop/cart")));
    for (family, protocol) in everywhere() {
        let probe = probe(&shop, family, protocol, NODE_PORT + 1);
        wait_until("the other Service is served", || {
            probe.send().server() == Some("pod-2:8080")
        });
    }
    let served = probe(&shop, Family::V6, Protocol::Tcp, NODE_PORT);
    assert_eq!(servers(&served), names(["pod-1:8080"]));
    // The ports are served at the node's address in any case.
    for (family, protocol) in everywhere() {
        let client = &shop.cluster.client;
        let probe = client.probe(protocol, (family.lan(2), NODE_PORT));
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
    let problems = || json(&shop, &["status"]).1["daemon"]["problems"].clone();
    let problem = problems()["Service shop/cart"].to_string();
    assert!(
        problem.contains("cannot be served at 127.0.0.1:30080/tcp"),
        "{problem}"
    );
    let listeners = "kubeproxy_nftables_localhost_nodeport_listeners";
    assert_eq!(
        metric(&shop, &format!("{listeners}{{ip_family=\"IPv4\"}}")),
        Some(2.0)
    );
    let failures = "kubeproxy_nftables_localhost_nodeport_listener_creation_failures_total";
    assert_eq!(
        metric(&shop, &format!("{failures}{{ip_family=\"IPv6\"}}")),
        Some(1.0)
    );
    drop((tcp, udp));
    await_served(&shop);
    wait_until("the problems are gone", || problems() == json!({}));
    assert_eq!(failed().len(), 3, "{:?}", failed());
    assert_eq!(daemon.logged(LogEvent::LocalhostPortListening).len(), 3);
    assert_eq!(
        metric(&shop, &format!("{listeners}{{ip_family=\"IPv4\"}}")),
        Some(4.0)
    );
}

fn an_endpoint_that_rejects_is_passed_over() {
    let shop = Shop::new();
    let service = Service::new("shop/cart", 1).port("http", Protocol::Tcp, 80);
    let service = service.node_port(NODE_PORT).yaml();
    let [good, other] = shop.pods(["pod-1", "pod-2"]);
    let slices = |port| Slices::of("shop/cart").port("http", Protocol::Tcp, port);
    let broken = slices(9999).named("broken").ready([other]).yaml();
    let ready = slices(8080).ready([good]).yaml();
    let daemon = start(&shop, &(service.clone() + &ready + &broken));
    for family in Family::ALL {
        let probe = probe(&shop, family, Protocol::Tcp, NODE_PORT);
        wait_until("localhost answers", || probe.send().server().is_some());
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
    let refused =
        "kube_dnat_localhost_connections_refused_total{protocol=\"tcp\",reason=\"endpoint\"}";
    assert_eq!(metric(&shop, refused), Some(0.0));
    daemon.apply("shop.yaml", &(service + &broken));
    for family in Family::ALL {
        let probe = probe(&shop, family, Protocol::Tcp, NODE_PORT);
        let reset = Outcome::Broken(ErrorKind::ConnectionReset);
        wait_until("the connection is reset", || probe.send() == reset);
    }
    assert!(metric(&shop, refused) >= Some(2.0));
}

/// Opens a connection to localhost, and waits for the greeting of the server.
fn greeted(shop: &Shop, family: Family) -> std::io::Result<TcpStream> {
    let at = SocketAddr::new(loopback(family), NODE_PORT);
    shop.cluster.node.namespace.run(|| {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(crate::lab::DEADLINE))?;
        stream.read_exact(&mut [0; 8])?;
        Ok(stream)
    })
}

fn a_connection_above_the_limit_is_reset_and_the_next_is_served() {
    const LIMIT: usize = 1024;
    let shop = Shop::new();
    let _daemon = start(&shop, &manifests(&shop));
    await_served(&shop);
    let active = "kube_dnat_localhost_connections_active{protocol=\"tcp\"}";
    wait_until("no connection is open", || {
        metric(&shop, active) == Some(0.0)
    });
    let families = Family::ALL.into_iter().cycle();
    let mut open: Vec<_> = families
        .take(LIMIT)
        .map(|family| greeted(&shop, family).expect("a connection below the limit"))
        .collect();
    assert_eq!(metric(&shop, active), Some(1024.0));
    let error = greeted(&shop, Family::V4).expect_err("above the limit");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let refused =
        "kube_dnat_localhost_connections_refused_total{protocol=\"tcp\",reason=\"limit\"}";
    assert_eq!(metric(&shop, refused), Some(1.0));
    drop(open.pop());
    wait_until("a connection that ended frees its place", || {
        greeted(&shop, Family::V6).is_ok()
    });
}

fn a_udp_flow_above_the_limit_ends_the_idlest() {
    let shop = Shop::new();
    let _daemon = start(&shop, &manifests(&shop));
    await_served(&shop);
    let tally = probe(&shop, Family::V4, Protocol::Udp, NODE_PORT).send_times(1100);
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    let active = "kube_dnat_localhost_connections_active{protocol=\"udp\"}";
    assert_eq!(metric(&shop, active), Some(1024.0));
    let ended = "kube_dnat_localhost_connections_refused_total{protocol=\"udp\",reason=\"limit\"}";
    assert!(metric(&shop, ended) >= Some(76.0));
}

fn without_file_descriptors_clients_wait() {
    let shop = Shop::new();
    let daemon = start(&shop, &manifests(&shop));
    await_served(&shop);
    let process = daemon.process_id().to_string();
    let limit = |files: &str| {
        let flag = format!("--nofile={files}:");
        let arguments = ["--pid", &process, &flag];
        shop.cluster.node.namespace.command("prlimit", &arguments);
    };
    // No new descriptor is below the limit.
    limit("3");
    let at = SocketAddr::new(loopback(Family::V4), NODE_PORT);
    let waiting =
        (shop.cluster.node.namespace).run(|| TcpStream::connect(at).expect("a place in the queue"));
    let logged = || daemon.logged(LogEvent::LocalhostSocketFailed);
    wait_until("the failure is logged", || !logged().is_empty());
    let udp = probe(&shop, Family::V4, Protocol::Udp, NODE_PORT).briefly();
    assert_eq!(udp.send().server(), None);
    limit("1024");
    let mut waiting = waiting;
    waiting
        .read_exact(&mut [0; 8])
        .expect("the client is served");
    await_served(&shop);
    let failures = "kube_dnat_localhost_socket_failures_total";
    for protocol in ["tcp", "udp"] {
        let failures = format!("{failures}{{protocol=\"{protocol}\"}}");
        assert!(metric(&shop, &failures) >= Some(1.0), "{failures}");
    }
    assert_eq!(logged().len(), 1, "{:?}", logged());
}

/// The bytes that the test sends in each direction.
const BYTES: usize = 256 << 20;

/// Receives everything, then sends as much, and closes.
fn serve_bulk(pod: &Host, family: Family) -> thread::JoinHandle<usize> {
    let at = SocketAddr::new(pod.ip(family), 8081);
    let listener = pod.namespace.run(|| TcpListener::bind(at).expect("free"));
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let received = read_pattern(&mut stream);
        write_pattern(&mut stream);
        received
    })
}

/// The data: blocks that differ, so that a lost or repeated one is found.
fn block(number: usize) -> Vec<u8> {
    let mut block = vec![7; 1 << 16];
    block[..8].copy_from_slice(&number.to_le_bytes());
    block
}

fn write_pattern(stream: &mut TcpStream) {
    for number in 0..BYTES >> 16 {
        stream.write_all(&block(number)).expect("write");
    }
}

fn read_pattern(stream: &mut TcpStream) -> usize {
    let mut buffer = vec![0; 1 << 16];
    let mut number = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match stream.read(&mut buffer[filled..]).expect("read") {
                0 => return (number << 16) + filled,
                length => filled += length,
            }
        }
        assert!(buffer == block(number), "block {number}");
        number += 1;
    }
}

fn much_data_arrives_whole_and_each_end_sees_the_end_of_the_other() {
    let shop = Shop::new();
    let service = Service::new("shop/cart", 1).port("bulk", Protocol::Tcp, 80);
    let slices = Slices::of("shop/cart").port("bulk", Protocol::Tcp, 8081);
    let [pod] = shop.pods(["pod-1"]);
    let manifests = service.node_port(NODE_PORT).yaml() + &slices.ready([pod]).yaml();
    let _daemon = start(&shop, &manifests);
    let listeners = "kubeproxy_nftables_localhost_nodeport_listeners{ip_family=\"IPv6\"}";
    wait_until("localhost listens", || {
        metric(&shop, listeners) == Some(1.0)
    });
    // The node's own address needs no relay: the rate to compare with.
    for (family, place) in Family::ALL.map(|family| (family, family.lan(2))) {
        transfer(&shop, family, place);
        transfer(&shop, family, loopback(family));
    }
}

/// Sends data to the node port at an address and back, and prints the rate.
fn transfer(shop: &Shop, family: Family, to: IpAddr) {
    let server = serve_bulk(shop.cluster.pod("pod-1"), family);
    let node = &shop.cluster.node.namespace;
    let mut stream = node.run(|| TcpStream::connect((to, NODE_PORT)).expect("a connection"));
    let started = Instant::now();
    write_pattern(&mut stream);
    // The server answers only once it has seen this.
    stream.shutdown(Shutdown::Write).expect("the end");
    assert_eq!(read_pattern(&mut stream), BYTES);
    let mebibytes = u32::try_from(2 * (BYTES >> 20)).expect("small");
    let rate = f64::from(mebibytes) / started.elapsed().as_secs_f64();
    eprintln!("{to}: {rate:.0} MiB/s");
    assert_eq!(server.join().expect("the server"), BYTES);
}

fn a_node_port_passes_to_another_service() {
    let shop = Shop::new();
    let of = |name: &str, pod: &str| {
        let service = Service::new(name, 1).both("http", 80).node_port(NODE_PORT);
        let slices = Slices::of(name).both("http", 8080);
        service.yaml() + &slices.ready(shop.pods([pod])).yaml()
    };
    let first = of("shop/a", "pod-1");
    let second = of("shop/b", "pod-2");
    let daemon = start(&shop, &first);
    for (manifests, server) in [
        (&first, "pod-1:8080"),
        (&second, "pod-2:8080"),
        (&first, "pod-1:8080"),
    ] {
        daemon.apply("shop.yaml", manifests);
        for (family, protocol) in everywhere() {
            let probe = probe(&shop, family, protocol, NODE_PORT);
            wait_until(&format!("{probe} reaches {server}"), || {
                probe.send().server() == Some(server)
            });
        }
    }
    // No listener found its port in use by the one before it.
    let failures = "kubeproxy_nftables_localhost_nodeport_listener_creation_failures_total";
    for family in ["IPv4", "IPv6"] {
        let failures = format!("{failures}{{ip_family=\"{family}\"}}");
        assert_eq!(metric(&shop, &failures), Some(0.0));
    }
}
