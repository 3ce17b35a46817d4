//! Connections to removed endpoints are closed (`kube-dnat.io/close-removed`).

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::explain::run;
use super::shop::{Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Daemon, Family, Host, Probe, Protocol, names, servers};
use crate::lab::{Flow, Outcome, Service, nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::close_removed;
    crate::trials!(close_removed:
        every_client_of_a_removed_endpoint_is_reset,
        every_client_of_a_removed_endpoint_is_reset_without_pickup,
        outside_clients_of_policy_local_are_reset,
        idle_connections_with_keep_alive_are_reset,
        idle_connections_with_keep_alive_are_reset_without_pickup,
        connections_to_endpoints_that_stay_in_any_state_go_on,
        without_the_annotation_connections_go_on,
        explain_names_frontends_that_are_closed,
        an_endpoint_that_is_removed_while_the_daemon_is_down_is_closed_at_the_start,
    )
}

/// The value of `nf_conntrack_tcp_loose` on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loose {
    Yes,
    No,
}

/// Creates a shop whose node tracks packets of unknown connections in this way.
fn shop(loose: Loose) -> Shop {
    let shop = Shop::new();
    if loose == Loose::No {
        let node = &shop.cluster.node.namespace;
        node.sysctls(&[("net/netfilter/nf_conntrack_tcp_loose", "0")]);
    }
    shop
}

fn closing() -> Service {
    cart_on_every_frontend().annotation("close-removed", "true")
}

fn manifests(shop: &Shop, service: &Service, pods: &[&str]) -> String {
    let pods = pods.iter().map(|name| shop.cluster.pod(name));
    service.yaml() + &cart_slices(pods).yaml()
}

/// Returns a local Pod that may be an endpoint itself, another one, the node and an outside client.
fn sources(cluster: &Cluster) -> [&Host; 4] {
    [
        cluster.pod("pod-1"),
        cluster.pod("pod-3"),
        &cluster.node,
        &cluster.client,
    ]
}

/// An open connection, and the server that it leads to.
struct Connection {
    name: String,
    server: String,
    flow: Flow,
}

impl Connection {
    fn open(probe: &Probe<'_>) -> Self {
        let mut flow = Flow::open(probe).unwrap_or_else(|outcome| panic!("{probe}: {outcome:?}"));
        let server = flow.greeting().answer().server;
        Self {
            name: probe.to_string(),
            server,
            flow,
        }
    }

    /// Opens connections from every source to every frontend.
    fn open_all(shop: &Shop) -> Vec<Self> {
        let mut connections = Vec::new();
        for family in Family::ALL {
            for (_, to) in frontends(family) {
                for source in sources(&shop.cluster) {
                    connections.push(Self::open(&source.probe(Protocol::Tcp, to)));
                }
            }
        }
        connections
    }

    fn assert_goes_on(&mut self) {
        let outcome = self.flow.ask();
        assert_eq!(
            outcome.server(),
            Some(&*self.server),
            "{}: {outcome:?}",
            self.name
        );
    }

    /// Asserts that the next packet of the client is answered by a RST. Returns the time it took.
    fn assert_reset(&mut self) -> Duration {
        let asked = Instant::now();
        let outcome = self.flow.ask();
        let elapsed = asked.elapsed();
        let expected = Outcome::Broken(ErrorKind::ConnectionReset);
        assert_eq!(outcome, expected, "{} to {}", self.name, self.server);
        elapsed
    }
}

/// Asserts that the first packet of each client is answered by a RST: a client that waits sends its
/// packet again after 200 ms (`TCP_RTO_MIN`, also for a tail-loss probe of a single packet).
fn assert_all_reset<'a>(
    cluster: &Cluster,
    connections: impl IntoIterator<Item = &'a mut Connection>,
) {
    let count = || sources(cluster).map(retransmitted_segments);
    let before = count();
    let times: Vec<_> = connections
        .into_iter()
        .map(Connection::assert_reset)
        .collect();
    assert_eq!(count(), before, "segments that the clients sent again");
    let slowest = times.iter().max().expect("a connection");
    eprintln!(
        "{} clients were reset, the slowest after {slowest:?}",
        times.len()
    );
}

/// Returns the number of TCP segments that the host sent again (`Tcp: RetransSegs`).
fn retransmitted_segments(host: &Host) -> u64 {
    // `/proc/net` belongs to the first thread of the process.
    let file = "/proc/thread-self/net/snmp";
    let counters = host.namespace.run(|| fs::read_to_string(file).expect(file));
    let mut lines = counters
        .lines()
        .filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs
        .find(|(name, _)| *name == "RetransSegs")
        .expect("RetransSegs");
    value.parse().expect("a number")
}

/// Waits until the node tracks no connection to this Pod that has an answer.
pub(super) fn await_forgotten(shop: &Shop, pod: &str) {
    let ips = Family::ALL.map(|family| format!("src={} ", shop.cluster.pod(pod).ip(family)));
    wait_until(&format!("no connection to {pod} is tracked"), || {
        let is_left = |family| {
            let arguments = ["-L", "-f", family, "-p", "tcp", "--state", "ESTABLISHED"];
            let listing = shop.cluster.node.namespace.command("conntrack", &arguments);
            // The second source of a line is that of replies.
            listing.lines().any(|line| {
                let reply = line
                    .rsplit_once("src=")
                    .map(|(_, reply)| format!("src={reply}"));
                reply.is_some_and(|reply| ips.iter().any(|ip| reply.starts_with(ip)))
            })
        };
        !["ipv4", "ipv6"].into_iter().any(is_left)
    });
}

fn reset_every_client(loose: Loose) {
    let shop = shop(loose);
    let service = closing();
    let daemon = shop.start(&manifests(&shop, &service, &["pod-1", "remote-1"]));
    let mut connections = Connection::open_all(&shop);
    daemon.apply("shop.yaml", &manifests(&shop, &service, &["remote-1"]));
    await_forgotten(&shop, "pod-1");
    let (gone, stay): (Vec<_>, Vec<_>) =
        (connections.iter_mut()).partition(|connection| connection.server == "pod-1:8080");
    assert!(!gone.is_empty() && !stay.is_empty());
    assert_all_reset(&shop.cluster, gone);
    stay.into_iter().for_each(Connection::assert_goes_on);
    let mut others = Connection::open_all(&shop);
    // With no endpoint left, the next packet is answered, too.
    daemon.apply("shop.yaml", &manifests(&shop, &service, &[]));
    await_forgotten(&shop, "remote-1");
    for connection in &others {
        assert_eq!(connection.server, "remote-1:8080", "{}", connection.name);
    }
    assert_all_reset(&shop.cluster, &mut others);
    daemon.apply("shop.yaml", &manifests(&shop, &service, &["pod-2"]));
    for family in Family::ALL {
        for (_, to) in frontends(family) {
            let probe = shop.cluster.client.probe(Protocol::Tcp, to);
            assert_eq!(servers(&probe), names(["pod-2:8080"]), "{probe}");
        }
    }
}

fn every_client_of_a_removed_endpoint_is_reset() {
    reset_every_client(Loose::Yes);
}

fn every_client_of_a_removed_endpoint_is_reset_without_pickup() {
    reset_every_client(Loose::No);
}

fn outside_clients_of_policy_local_are_reset() {
    for loose in [Loose::Yes, Loose::No] {
        let shop = shop(loose);
        let service = closing().spec("externalTrafficPolicy", json!("Local"));
        let daemon = shop.start(&manifests(&shop, &service, &["pod-1", "remote-1"]));
        let mut connections: Vec<_> = Family::ALL
            .into_iter()
            .flat_map(|family| {
                let [_, external @ ..] = frontends(family);
                external.map(|(_, to)| shop.cluster.client.probe(Protocol::Tcp, to))
            })
            .map(|probe| Connection::open(&probe))
            .collect();
        // No endpoint is left on the node: a new connection from outside is dropped.
        daemon.apply("shop.yaml", &manifests(&shop, &service, &["remote-1"]));
        await_forgotten(&shop, "pod-1");
        assert_all_reset(&shop.cluster, &mut connections);
    }
}

fn reset_idle(loose: Loose) {
    let shop = shop(loose);
    let service = closing();
    let daemon = shop.start(&manifests(&shop, &service, &["pod-1"]));
    let mut connections: Vec<_> = Family::ALL
        .into_iter()
        .flat_map(|family| {
            let to = (family.cluster_ip(1), 80);
            let sources = [
                shop.cluster.pod("pod-3"),
                &shop.cluster.node,
                &shop.cluster.client,
            ];
            sources.map(|source| Connection::open(&source.probe(Protocol::Tcp, to)))
        })
        .collect();
    daemon.apply("shop.yaml", &manifests(&shop, &service, &["remote-1"]));
    await_forgotten(&shop, "pod-1");
    for connection in &mut connections {
        let outcome = connection.flow.keep_alive();
        let expected = Outcome::Broken(ErrorKind::ConnectionReset);
        assert_eq!(outcome, expected, "{}", connection.name);
    }
}

fn idle_connections_with_keep_alive_are_reset() {
    reset_idle(Loose::Yes);
}

fn idle_connections_with_keep_alive_are_reset_without_pickup() {
    reset_idle(Loose::No);
}

fn connections_to_endpoints_that_stay_in_any_state_go_on() {
    let shop = Shop::new();
    let service = closing();
    let with = |conditions: &Value| {
        let slices = cart_slices([shop.cluster.pod("remote-1")]);
        let slices = slices.with([shop.cluster.pod("pod-1")], conditions);
        service.yaml() + &slices.yaml()
    };
    let daemon = shop.start(&manifests(&shop, &service, &["pod-1", "remote-1"]));
    let mut connections = Connection::open_all(&shop);
    for conditions in [
        json!({ "ready": false, "serving": true, "terminating": true }),
        json!({ "ready": false, "serving": false, "terminating": true }),
        json!({ "ready": false, "serving": false, "terminating": false }),
    ] {
        daemon.apply("shop.yaml", &with(&conditions));
        connections.iter_mut().for_each(Connection::assert_goes_on);
    }
    daemon.apply("shop.yaml", &manifests(&shop, &service, &["remote-1"]));
    await_forgotten(&shop, "pod-1");
    let gone = connections.iter_mut();
    let gone = gone.filter(|connection| connection.server == "pod-1:8080");
    assert_all_reset(&shop.cluster, gone);
}

fn without_the_annotation_connections_go_on() {
    let shop = Shop::new();
    let service = cart_on_every_frontend();
    let daemon = shop.start(&manifests(&shop, &service, &["pod-1", "remote-1"]));
    let mut connections = Connection::open_all(&shop);
    // With the annotation, only what is removed from then on is closed.
    daemon.apply("shop.yaml", &manifests(&shop, &service, &["remote-1"]));
    connections.iter_mut().for_each(Connection::assert_goes_on);
    // The base chains exist only while a Service needs them.
    let has_chains = || nft::list(&shop.cluster.node.namespace).contains("-closed {");
    assert!(!has_chains());
    daemon.apply("shop.yaml", &manifests(&shop, &closing(), &["remote-1"]));
    assert!(has_chains());
}

fn an_endpoint_that_is_removed_while_the_daemon_is_down_is_closed_at_the_start() {
    for loose in [Loose::Yes, Loose::No] {
        let shop = shop(loose);
        let service = closing();
        let daemon = shop.start(&manifests(&shop, &service, &["pod-1"]));
        let mut connections = Connection::open_all(&shop);
        daemon.terminate();
        shop.manifests
            .write("shop.yaml", &manifests(&shop, &service, &["remote-1"]));
        let _daemon = Daemon::start(&shop.cluster, &shop.manifests);
        await_forgotten(&shop, "pod-1");
        assert_all_reset(&shop.cluster, &mut connections);
    }
}

fn explain_names_frontends_that_are_closed() {
    for loose in [Loose::Yes, Loose::No] {
        let shop = shop(loose);
        let daemon = shop.start(&manifests(&shop, &closing(), &["pod-1"]));
        let closed = |protocol: &str, (ip, port)| {
            let to = format!("{}/{protocol}", SocketAddr::new(ip, port));
            let (code, out, error) = run(&shop, &["explain", &to]);
            assert_eq!(code, 0, "{out}{error}");
            out.contains("connections to removed endpoints are closed")
        };
        for family in Family::ALL {
            for (what, to) in frontends(family) {
                assert!(closed("tcp", to), "{what} {loose:?}");
                assert!(!closed("udp", to), "{what} {loose:?}");
            }
        }
        daemon.apply(
            "shop.yaml",
            &manifests(&shop, &cart_on_every_frontend(), &["pod-1"]),
        );
        for (what, to) in frontends(Family::V4) {
            assert!(!closed("tcp", to), "{what} {loose:?}");
        }
    }
}
