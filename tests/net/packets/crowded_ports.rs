//! The ports of the daemon while other hosts hold as many connections to them as they can.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::admin::await_sync;
use super::shop::{Shop, cart, cart_slices};
use super::{Daemon, Family, Host};
use crate::lab::http::ask;
use crate::lab::{DEADLINE, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::crowded_ports;
    crate::trials!(crowded_ports:
        requests_of_the_node_are_answered_beside_held_connections,
        the_node_has_an_accept_queue_of_its_own,
        requests_of_the_node_are_answered_during_a_flood,
        a_request_that_does_not_arrive_is_closed,
    )
}

const HEALTH: u16 = 10_256;
const METRICS: u16 = 10_249;
const CHECK: u16 = 32_000;
/// The number of connections that a crowd holds to one port.
const CROWD: usize = 400;

/// The number of connections that a crowd opens at a time.
///
/// The test is about held connections, not about a flood that takes the whole machine.
const ARRIVALS: usize = 20;
/// The pause between two groups of connections.
const PACE: Duration = Duration::from_millis(200);

/// Connections to one port, half of them idle and half sending a byte now and then.
///
/// A closed connection is opened again, until the crowd is dropped.
struct Crowd {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    fn gather(from: &Host, to: SocketAddr) -> Self {
        Self::start(from, move |stop, opened| {
            let mut members = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                for _ in members.len()..CROWD.min(members.len() + ARRIVALS) {
                    members.push(connect(to));
                    opened.fetch_add(1, Ordering::Relaxed);
                }
                let mut number = 0;
                members.retain_mut(|member| {
                    number += 1;
                    is_open(member, number % 2 == 0)
                });
                thread::sleep(PACE);
            }
        })
    }

    /// Opens and closes connections to a port as fast as possible.
    fn flood(from: &Host, to: SocketAddr) -> Self {
        Self::start(from, move |stop, opened| {
            let mut members = VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                members.push_back(connect(to));
                opened.fetch_add(1, Ordering::Relaxed);
                if members.len() > CROWD {
                    members.pop_front();
                }
            }
        })
    }

    /// Starts a thread on a host. `connecting` runs until its first argument is true, and counts the
    /// connections that it opens in its second.
    fn start(
        from: &Host,
        connecting: impl FnOnce(&AtomicBool, &AtomicUsize) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let opened = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&opened));
        // A thread inherits the namespace of the thread that starts it.
        let thread = from
            .namespace
            .run(|| thread::spawn(move || connecting(&stopped, &counted)));
        Self {
            stop,
            opened,
            thread: Some(thread),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Starts to connect without waiting.
fn connect(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("not blocking");
    // The connection is in progress, or failed; the next read shows which.
    let _in_progress = socket.connect(&to.into());
    socket.into()
}

/// Returns whether the connection is open; a slow one also sends a byte of an endless request.
fn is_open(member: &mut TcpStream, slow: bool) -> bool {
    let not_yet = |error: &std::io::Error| {
        matches!(
            error.kind(),
            ErrorKind::WouldBlock | ErrorKind::NotConnected
        )
    };
    if slow && member.write_all(b"G").is_err_and(|error| !not_yet(&error)) {
        return false;
    }
    match member.read(&mut [0; 64]) {
        Ok(read) => read > 0,
        Err(error) => not_yet(&error),
    }
}

fn start(shop: &Shop) -> Daemon<'_> {
    let local = cart()
        .node_port(30_080)
        .load_balancer_ip(1)
        .spec("externalTrafficPolicy", json!("Local"))
        .spec("healthCheckNodePort", json!(CHECK));
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    shop.manifests.write("shop.yaml", &(local.yaml() + &slices));
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let metrics = format!("--metrics-bind-address=0.0.0.0:{METRICS}");
    let flags = ["--cluster-cidr", &cidrs, &metrics];
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    await_sync(shop);
    let to = (Family::V4.lan(2), CHECK);
    wait_until("the health check is served", || {
        ask(&shop.cluster.node, to, "GET /", "").is_ok()
    });
    daemon
}

fn requests_of_the_node_are_answered_beside_held_connections() {
    let shop = Shop::new();
    let _daemon = start(&shop);
    let crowds = [HEALTH, METRICS, CHECK]
        .map(|port| Crowd::gather(&shop.cluster.client, (Family::V4.lan(2), port).into()));
    for crowd in &crowds {
        wait_until("the crowd is connected", || {
            crowd.opened.load(Ordering::Relaxed) >= CROWD
        });
    }
    let (loopback, own) = (IpAddr::V4(Ipv4Addr::LOCALHOST), Family::V4.lan(2));
    let requests = [
        ((own, HEALTH), "GET /healthz"),
        ((loopback, HEALTH), "GET /livez"),
        ((own, METRICS), "GET /metrics"),
        ((loopback, METRICS), "GET /healthz"),
        ((own, CHECK), "GET /"),
    ];
    // If each waited for the connections of the crowd, they would take several minutes.
    all_are_answered(&shop, &requests, 10);
    // An outside load balancer shares the slots with the crowd, and is answered too.
    for port in [HEALTH, CHECK] {
        wait_until("the load balancer is answered", || {
            let answer = ask(&shop.cluster.client, (own, port), "GET /healthz", "");
            answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        });
    }
    drop(crowds);
}

/// Sends each request from the node so many times, one after another, and waits for the answers.
fn all_are_answered(shop: &Shop, requests: &[((IpAddr, u16), &str)], times: usize) {
    let all = || {
        for (to, what) in requests.iter().cycle().take(times * requests.len()) {
            let answer = ask(&shop.cluster.node, *to, what, "");
            let answer = answer.unwrap_or_else(|error| panic!("{what} at {to:?}: {error}"));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        }
    };
    thread::scope(|scope| {
        let asking = scope.spawn(all);
        wait_until("all requests are answered", || asking.is_finished());
        asking.join().expect("every answer is 200");
    });
}

/// The requests that the kubelet and operators send on the node.
fn own_requests() -> impl Iterator<Item = ((IpAddr, u16), &'static str)> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let own = Family::V4.lan(2);
    [
        ((own, HEALTH), "GET /healthz"),
        ((loopback, HEALTH), "GET /livez"),
        ((Family::V6.lan(2), HEALTH), "GET /livez"),
        ((IpAddr::V6(Ipv6Addr::LOCALHOST), HEALTH), "GET /livez"),
        ((own, METRICS), "GET /healthz"),
        ((loopback, METRICS), "GET /healthz"),
        ((own, CHECK), "GET /"),
        ((Family::V6.lan(2), CHECK), "GET /"),
    ]
    .into_iter()
}

/// The lengths of the accept queues of a port.
fn waiting(shop: &Shop, port: u16) -> Vec<usize> {
    let filter = format!("sport = :{port}");
    let listing = shop
        .cluster
        .node
        .namespace
        .command("ss", &["-Hltn", &filter]);
    let waiting = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
    let waiting = listing.lines().map(waiting);
    waiting
        .collect::<Option<_>>()
        .unwrap_or_else(|| panic!("{listing}"))
}

/// The stopped daemon accepts nothing, and other hosts fill their queue until the kernel drops
/// packets.
fn the_node_has_an_accept_queue_of_its_own() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    node.sysctls(&[
        ("net/core/somaxconn", "16"),
        ("net/ipv4/tcp_syncookies", "0"),
    ]);
    let daemon = start(&shop);
    daemon.signal(Signal::SIGSTOP);
    let others: Vec<TcpStream> = shop.cluster.client.namespace.run(|| {
        let ports = [HEALTH, METRICS, CHECK].into_iter();
        let to = ports.flat_map(|port| Family::ALL.map(|family| (family.lan(2), port)));
        let to = to.flat_map(|to| [to; 64]);
        to.map(|to| connect(to.into())).collect()
    });
    for port in [HEALTH, METRICS, CHECK] {
        wait_until("the queue of other hosts is full", || {
            waiting(&shop, port).iter().any(|waiting| *waiting > 16)
        });
    }
    let mut asking: Vec<_> = own_requests()
        .map(|(to, what)| {
            let stream = node.run(|| TcpStream::connect_timeout(&to.into(), DEADLINE));
            let mut stream = stream.unwrap_or_else(|error| panic!("{what} at {to:?}: {error}"));
            write!(stream, "{what} HTTP/1.1\r\nHost: node\r\n\r\n").expect("sent");
            (stream, what)
        })
        .collect();
    for port in [HEALTH, METRICS, CHECK] {
        let waiting = waiting(&shop, port);
        assert!(
            waiting.iter().any(|waiting| (1..=4).contains(waiting)),
            "port {port}: {waiting:?}"
        );
    }
    daemon.signal(Signal::SIGCONT);
    for (stream, what) in &mut asking {
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
    }
    drop(others);
}

fn requests_of_the_node_are_answered_during_a_flood() {
    let shop = Shop::new();
    let _daemon = start(&shop);
    let floods = [HEALTH, METRICS, CHECK]
        .map(|port| Crowd::flood(&shop.cluster.client, (Family::V4.lan(2), port).into()));
    for flood in &floods {
        wait_until("the flood has started", || {
            flood.opened.load(Ordering::Relaxed) >= 10 * CROWD
        });
    }
    let requests: Vec<_> = own_requests().collect();
    all_are_answered(&shop, &requests, 20);
    drop(floods);
}

fn a_request_that_does_not_arrive_is_closed() {
    let shop = Shop::new();
    let _daemon = start(&shop);
    for (port, request) in [
        (HEALTH, ""),
        (HEALTH, "GET /healthz HTTP/1.1\r\nHost: "),
        (CHECK, "GET / HTTP/1.1\r\n"),
        (METRICS, ""),
        (
            METRICS,
            "PUT /debug/flags/v HTTP/1.1\r\nHost: node\r\nContent-Length: 9\r\n\r\n1",
        ),
    ] {
        let asked = Instant::now();
        let closed = shop.cluster.node.namespace.run(|| {
            let mut stream = TcpStream::connect((Family::V4.lan(2), port)).expect("a connection");
            stream.write_all(request.as_bytes()).expect("sent");
            stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
            stream.read_to_end(&mut Vec::new())
        });
        // The connection may be reset instead.
        let is_open = closed.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!is_open, "{port} {request:?}");
        // A busy machine only makes it longer.
        let elapsed = asked.elapsed();
        assert!(
            elapsed > Duration::from_millis(1900),
            "{port} {request:?} was closed after {elapsed:?}"
        );
    }
}
