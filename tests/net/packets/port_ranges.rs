//! Ranges of ports that lead to the same port of one endpoint (`kube-dnat.io/port-ranges`).

use std::collections::BTreeSet;
use std::io::ErrorKind;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::close_removed::await_forgotten;
use super::explain::{agrees, agrees_from, run};
use super::restart::handles;
use super::services::rows;
use super::shop::{Shop, cart_on_every_frontend, cart_slices};
use super::udp_stale::{open, refused, send_until};
use super::{Daemon, Family, Host, IpAddr, Probe, Protocol, Server, everywhere, names, servers};
use crate::lab::{Flow, Outcome, Service, Slices};

pub(super) fn tests() -> Vec<Trial> {
    use super::port_ranges;
    crate::trials!(port_ranges:
        every_port_of_a_client_leads_to_the_same_port_of_one_endpoint,
        clients_spread_over_the_endpoints,
        the_ports_of_the_service_take_precedence,
        a_control_connection_and_its_data_reach_one_endpoint,
        sources_are_kept_and_masqueraded_as_at_a_port,
        policy_local_keeps_clients_at_endpoints_on_the_node,
        without_endpoints_a_range_is_refused,
        a_port_of_another_service_ends_the_range_at_its_address,
        restricted_and_own_addresses_serve_no_range,
        udp_clients_follow_endpoints_and_ranges,
        tcp_connections_to_a_removed_endpoint_end_with_close_removed,
        a_restart_takes_ranges_over,
        services_and_explain_show_ranges,
    )
}

/// The ranges of the tests: two ports at which every Pod serves, and others.
const RANGES: &str = "8080-8089/udp, 8080-8089/tcp";

/// The second port of the range at which every Pod serves, as an RTP session has two.
const SECOND: u16 = 8081;

/// A shop whose Pods serve both ports.
struct Studio {
    shop: Shop,
    _servers: Vec<Server>,
}

impl Studio {
    fn new() -> Self {
        let shop = Shop::new();
        let pods = shop.cluster.pods.iter().chain(&shop.cluster.remote_pods);
        let servers = pods.map(|pod| pod.serve(SECOND)).collect();
        Self {
            shop,
            _servers: servers,
        }
    }

    /// Returns `shop/cart` with ranges and these endpoints.
    fn manifests(&self, service: &Service, pods: &[&str]) -> String {
        let pods = pods.iter().map(|name| self.shop.cluster.pod(name));
        service.yaml() + &cart_slices(pods).yaml()
    }

    /// Starts kube-dnat with ranges at every address of `shop/cart`, and these endpoints.
    fn start(&self, pods: &[&str]) -> Daemon<'_> {
        self.shop.start(&self.manifests(&ranged(), pods))
    }

    /// Returns each source with the addresses that it can use.
    fn clients(&self, family: Family) -> Vec<(&Host, IpAddr)> {
        let cluster = &self.shop.cluster;
        let [_, external @ ..] = addresses(family);
        let outside = external.map(|ip| (&cluster.client, ip));
        let inside = [cluster.pod("pod-3"), &cluster.node]
            .into_iter()
            .flat_map(|source| addresses(family).map(|ip| (source, ip)));
        inside.chain(outside).collect()
    }
}

/// Returns `shop/cart` on every frontend, with ranges.
fn ranged() -> Service {
    cart_on_every_frontend().annotation("port-ranges", RANGES)
}

/// Returns the addresses of [`ranged`]: its `ClusterIP`, external IP and load-balancer IP.
fn addresses(family: Family) -> [IpAddr; 3] {
    [
        family.cluster_ip(1),
        family.external_ip(1),
        family.load_balancer_ip(1),
    ]
}

/// Returns the Pod whose server answered at this port, the only one.
#[track_caller]
fn only_pod(probe: &Probe<'_>, port: u16) -> String {
    let tally = probe.send_times(8);
    assert!(tally.failures.is_empty(), "{probe}: {:?}", tally.failures);
    let [server] = &tally.servers.keys().collect::<Vec<_>>()[..] else {
        panic!("{probe}: {:?}", tally.servers)
    };
    let pod = server.strip_suffix(&format!(":{port}"));
    pod.unwrap_or_else(|| panic!("{probe}: {server}"))
        .to_owned()
}

fn every_port_of_a_client_leads_to_the_same_port_of_one_endpoint() {
    let studio = Studio::new();
    let _daemon = studio.start(&["pod-1", "pod-2", "remote-1"]);
    for family in Family::ALL {
        for (source, ip) in studio.clients(family) {
            // The node has several addresses, and chooses one by the protocol's socket.
            let own = source.ip(family);
            let pods: BTreeSet<_> = [8080, SECOND]
                .into_iter()
                .flat_map(|port| Protocol::ALL.map(|protocol| (port, protocol)))
                .map(|(port, protocol)| {
                    let probe = source.probe(protocol, (ip, port)).source_ip(own);
                    only_pod(&probe, port)
                })
                .collect();
            assert_eq!(pods.len(), 1, "{} to {ip}: {pods:?}", source.name());
        }
    }
}

/// Adds addresses of the lab's network to the outside client, and returns them.
fn many_clients(client: &Host, family: Family) -> Vec<IpAddr> {
    let ips: Vec<_> = (150..190).map(|n| family.lan(n)).collect();
    let length = if family == Family::V4 { 24 } else { 64 };
    let lines = ips
        .iter()
        .map(|ip| format!("addr add {ip}/{length} dev eth0\n"));
    client.namespace.ip(&lines.collect::<String>());
    client.namespace.await_addresses();
    ips
}

fn clients_spread_over_the_endpoints() {
    let studio = Studio::new();
    let _daemon = studio.start(&["pod-1", "pod-2", "remote-1"]);
    let client = &studio.shop.cluster.client;
    for family in Family::ALL {
        let clients = many_clients(client, family);
        let to = family.load_balancer_ip(1);
        let pods: BTreeSet<_> = (clients.iter())
            .map(|ip| {
                let probe = client.probe(Protocol::Udp, (to, SECOND)).source_ip(*ip);
                only_pod(&probe, SECOND)
            })
            .collect();
        assert_eq!(pods, names(["pod-1", "pod-2", "remote-1"]), "{family}");
        for ip in &clients[..3] {
            let from = (client, *ip, None);
            agrees_from(&studio.shop, from, Protocol::Tcp, (to, 8080));
        }
    }
}

fn the_ports_of_the_service_take_precedence() {
    let studio = Studio::new();
    let service = cart_on_every_frontend().annotation("port-ranges", "70-90/tcp,70-90/udp");
    let _daemon = studio
        .shop
        .start(&studio.manifests(&service, &["pod-1", "remote-1"]));
    for (family, protocol) in everywhere() {
        for (source, ip) in studio.clients(family) {
            // Port 80 of the Service leads to port 8080 of the Pods, at random.
            let at_port = source.probe(protocol, (ip, 80));
            assert_eq!(servers(&at_port), names(["pod-1:8080", "remote-1:8080"]));
            // Nobody serves the other ports of the range: the Pod refuses.
            let outcome = source.probe(protocol, (ip, 81)).send();
            assert!(refused(&outcome), "{source:?} {ip}: {outcome:?}");
        }
    }
}

fn a_control_connection_and_its_data_reach_one_endpoint() {
    let studio = Studio::new();
    let service = ranged().annotation("balance", "source");
    let pods = ["pod-1", "pod-2", "remote-1", "remote-2"];
    let _daemon = studio.shop.start(&studio.manifests(&service, &pods));
    let client = &studio.shop.cluster.client;
    for family in Family::ALL {
        for from in &many_clients(client, family)[..10] {
            let to = family.external_ip(1);
            // As with passive FTP: port 80 of the Service is port 8080 of the Pod.
            let control = client.probe(Protocol::Tcp, (to, 80)).source_ip(*from);
            let data = client.probe(Protocol::Tcp, (to, SECOND)).source_ip(*from);
            assert_eq!(only_pod(&control, 8080), only_pod(&data, SECOND), "{from}");
        }
    }
}

fn sources_are_kept_and_masqueraded_as_at_a_port() {
    let studio = Studio::new();
    let daemon = studio.start(&["pod-1", "remote-1"]);
    let local = ranged().spec("externalTrafficPolicy", json!("Local"));
    for service in [ranged(), local] {
        let manifests = studio.manifests(&service, &["pod-1", "remote-1"]);
        daemon.apply("shop.yaml", &manifests);
        for (family, protocol) in everywhere() {
            for (source, ip) in studio.clients(family) {
                agrees(&studio.shop, source, protocol, (ip, SECOND));
            }
        }
        // A Pod that its own connections lead to.
        daemon.apply("shop.yaml", &studio.manifests(&service, &["pod-1"]));
        for (family, protocol) in everywhere() {
            let pod = studio.shop.cluster.pod("pod-1");
            for ip in addresses(family) {
                let probe = pod.probe(protocol, (ip, SECOND));
                assert_eq!(servers(&probe), names(["pod-1:8081"]), "{probe}");
            }
        }
    }
}

fn policy_local_keeps_clients_at_endpoints_on_the_node() {
    let studio = Studio::new();
    let local = ranged()
        .spec("externalTrafficPolicy", json!("Local"))
        .spec("internalTrafficPolicy", json!("Local"));
    let here = studio.manifests(&local, &["pod-1", "remote-1"]);
    let daemon = studio.shop.start(&here);
    let cluster = &studio.shop.cluster;
    for (family, protocol) in everywhere() {
        let [cluster_ip, external @ ..] = addresses(family);
        let inside = cluster.pod("pod-3").probe(protocol, (cluster_ip, SECOND));
        assert_eq!(only_pod(&inside, SECOND), "pod-1");
        for ip in external {
            let outside = cluster.client.probe(protocol, (ip, SECOND));
            assert_eq!(only_pod(&outside, SECOND), "pod-1");
        }
    }
    for answer in ["drop", "reject"] {
        let service = local
            .clone()
            .annotation("external-local-without-endpoints", answer);
        daemon.apply("shop.yaml", &studio.manifests(&service, &["remote-1"]));
        for (family, protocol) in everywhere() {
            let [cluster_ip, external @ ..] = addresses(family);
            let inside = cluster.pod("pod-3").probe(protocol, (cluster_ip, SECOND));
            assert_eq!(inside.briefly().send(), Outcome::TimedOut);
            for ip in external {
                let outside = cluster.client.probe(protocol, (ip, SECOND)).briefly();
                let outcome = outside.send();
                let is_expected = match answer {
                    "drop" => outcome == Outcome::TimedOut,
                    _ => outcome.is_refused_at_once(),
                };
                assert!(is_expected, "{answer}: {outside}: {outcome:?}");
                let pod = cluster.pod("pod-3").probe(protocol, (ip, SECOND));
                assert_eq!(only_pod(&pod, SECOND), "remote-1");
            }
        }
    }
}

fn without_endpoints_a_range_is_refused() {
    let studio = Studio::new();
    let daemon = studio.start(&[]);
    for (family, protocol) in everywhere() {
        for (source, ip) in studio.clients(family) {
            let probe = source.probe(protocol, (ip, SECOND));
            let outcome = probe.send();
            assert!(outcome.is_refused_at_once(), "{probe}: {outcome:?}");
            // Other ports of the addresses are as without ranges.
            let other = source.probe(protocol, (ip, 8090)).briefly().send();
            let is_cluster_ip = ip == family.cluster_ip(1);
            assert_eq!(refused(&other), is_cluster_ip, "{ip}: {other:?}");
        }
    }
    daemon.apply("shop.yaml", &studio.manifests(&ranged(), &["pod-2"]));
    for (family, protocol) in everywhere() {
        for (source, ip) in studio.clients(family) {
            let probe = source.probe(protocol, (ip, SECOND));
            assert_eq!(only_pod(&probe, SECOND), "pod-2");
        }
    }
}

/// Returns another Service with this port at the external IPs of [`ranged`], and its endpoint.
fn other(studio: &Studio, port: u16) -> String {
    let service = Service::new("shop/other", 2)
        .both("http", port)
        .external_ip(1)
        .created("2025-01-01T00:00:00Z");
    let slices = Slices::of("shop/other").both("http", 8080);
    let pod = studio.shop.cluster.pod("pod-2");
    service.yaml() + &slices.ready([pod]).yaml()
}

fn a_port_of_another_service_ends_the_range_at_its_address() {
    let studio = Studio::new();
    let daemon = studio.start(&["pod-1"]);
    let client = &studio.shop.cluster.client;
    let reached = |expected: [&str; 2]| {
        for (family, protocol) in everywhere() {
            let [_, external, load_balancer] = addresses(family);
            let at_range = client.probe(protocol, (external, SECOND)).send();
            assert_eq!(at_range.server(), Some(expected[0]), "{at_range:?}");
            let at_port = client.probe(protocol, (external, 8085)).send();
            let server = at_port.server().unwrap_or("refused");
            assert_eq!(server, expected[1], "{at_port:?}");
            // The other addresses serve the range in any case.
            let elsewhere = client.probe(protocol, (load_balancer, SECOND));
            assert_eq!(only_pod(&elsewhere, SECOND), "pod-1");
        }
    };
    reached(["pod-1:8081", "refused"]);
    let diagnostics = || daemon.diagnostics("Service shop/cart", "InvalidAnnotation");
    for _ in 0..2 {
        daemon.apply("other.yaml", &other(&studio, 8085));
        reached(["gateway", "pod-2:8080"]);
        // A port outside the range does not matter.
        daemon.apply("other.yaml", &other(&studio, 8090));
        reached(["pod-1:8081", "refused"]);
    }
    daemon.apply("other.yaml", &other(&studio, 8085));
    daemon.remove("other.yaml");
    reached(["pod-1:8081", "refused"]);
    // One line for each protocol and family.
    let reported = diagnostics();
    let distinct: BTreeSet<_> = reported.iter().collect();
    assert!(!distinct.is_empty(), "no report");
    for family in Family::ALL {
        let text = format!(
            "annotation kube-dnat.io/port-ranges has no effect for udp at {}: 8085/udp is a port of \
             the Service shop/other there",
            family.external_ip(1)
        );
        assert!(
            reported.iter().any(|line| line.contains(&text)),
            "{reported:?}"
        );
    }
}

fn restricted_and_own_addresses_serve_no_range() {
    let studio = Studio::new();
    let own = Family::ALL.map(|family| family.lan(2));
    let ranges = Family::ALL
        .map(|family| format!("{}/32", family.lan(100)).replace("::100/32", "::100/128"));
    let service = ranged()
        .spec("externalIPs", json!(own))
        .spec("loadBalancerSourceRanges", json!(ranges));
    let daemon = studio.shop.start(&studio.manifests(&service, &["pod-1"]));
    let cluster = &studio.shop.cluster;
    for (family, protocol) in everywhere() {
        let inside = cluster.pod("pod-3");
        let probe = inside.probe(protocol, (family.cluster_ip(1), SECOND));
        assert_eq!(only_pod(&probe, SECOND), "pod-1");
        // Nothing on the node listens at the port.
        let at_node = cluster.client.probe(protocol, (family.lan(2), SECOND));
        assert!(refused(&at_node.send()), "{at_node}");
        let restricted = cluster
            .client
            .probe(protocol, (family.load_balancer_ip(1), SECOND));
        assert_eq!(restricted.send().server(), Some("gateway"), "{restricted}");
    }
    let reported = daemon.diagnostics("Service shop/cart", "InvalidAnnotation");
    for reason in [
        "it is an address of this node",
        "loadBalancerSourceRanges restrict it",
    ] {
        let of_reason = reported.iter().filter(|line| line.contains(reason));
        assert_eq!(of_reason.count(), 4, "{reported:?}");
    }
}

fn udp_clients_follow_endpoints_and_ranges() {
    let studio = Studio::new();
    let daemon = studio.shop.start("");
    let cluster = &studio.shop.cluster;
    let mut clients = Vec::new();
    for family in Family::ALL {
        for (source, ip) in [
            (&cluster.client, family.external_ip(1)),
            (&cluster.client, family.load_balancer_ip(1)),
            (&cluster.node, family.external_ip(1)),
        ] {
            let probe = source.probe(Protocol::Udp, (ip, SECOND));
            let flow: Flow = open(&probe.clone().briefly());
            clients.push((probe, flow));
        }
    }
    let mut reach = |server: &str| {
        for (probe, flow) in &mut clients {
            let reached = send_until(flow, |outcome| outcome.server() == Some(server));
            reached.unwrap_or_else(|last| panic!("{probe}: not {server}: {last:?}"));
        }
    };
    let apply = |service: &Service, pods: &[&str]| {
        let manifests = studio.manifests(service, pods);
        daemon.manifests.write("shop.yaml", &manifests);
    };
    reach("gateway");
    // The flows are older than the range.
    apply(&ranged(), &["pod-1"]);
    reach("pod-1:8081");
    for pod in ["pod-2", "remote-1", "pod-1"] {
        apply(&ranged(), &[pod]);
        reach(&format!("{pod}:8081"));
    }
    // A port of the Service takes the flows over, and gives them back.
    let with_port = ranged().both("second", SECOND);
    let slices = cart_slices(studio.shop.pods(["pod-1"])).both("second", 8080);
    let manifests = with_port.yaml() + &slices.yaml();
    daemon.manifests.write("shop.yaml", &manifests);
    reach("pod-1:8080");
    apply(&ranged(), &["pod-1"]);
    reach("pod-1:8081");
    // The range shrinks, and ends.
    let smaller = cart_on_every_frontend().annotation("port-ranges", "8080/udp");
    apply(&smaller, &["pod-1"]);
    reach("gateway");
    apply(&ranged(), &["pod-2"]);
    reach("pod-2:8081");
    apply(&cart_on_every_frontend(), &["pod-2"]);
    reach("gateway");
}

fn tcp_connections_to_a_removed_endpoint_end_with_close_removed() {
    let studio = Studio::new();
    let service = ranged().annotation("close-removed", "true");
    let daemon = studio.shop.start(&studio.manifests(&service, &["pod-1"]));
    let mut flows = Vec::new();
    for family in Family::ALL {
        for (source, ip) in studio.clients(family) {
            let probe = source.probe(Protocol::Tcp, (ip, SECOND));
            let mut flow = open(&probe);
            assert_eq!(flow.greeting().server(), Some("pod-1:8081"), "{probe}");
            flows.push((probe, flow));
        }
    }
    // Another endpoint changes nothing, whatever its slots.
    daemon.apply(
        "shop.yaml",
        &studio.manifests(&service, &["pod-1", "pod-2"]),
    );
    for (probe, flow) in &mut flows {
        assert_eq!(flow.ask().server(), Some("pod-1:8081"), "{probe}");
    }
    daemon.apply("shop.yaml", &studio.manifests(&service, &["pod-2"]));
    await_forgotten(&studio.shop, "pod-1");
    for (probe, flow) in &mut flows {
        // The other endpoint does not know the connection.
        let outcome = flow.ask();
        let reset = Outcome::Broken(ErrorKind::ConnectionReset);
        assert_eq!(outcome, reset, "{probe}");
    }
}

fn a_restart_takes_ranges_over() {
    let studio = Studio::new();
    let pods = ["pod-1", "pod-2", "remote-1"];
    let daemon = studio.start(&pods);
    let client = &studio.shop.cluster.client;
    let reached = || -> Vec<_> {
        let probes = everywhere().flat_map(|(family, protocol)| {
            let [_, external @ ..] = addresses(family);
            external.map(|ip| client.probe(protocol, (ip, SECOND)))
        });
        probes.map(|probe| only_pod(&probe, SECOND)).collect()
    };
    let counted = || {
        let rows = rows(&studio.shop, &["-n", "shop"]).into_values();
        let ranges = rows.filter(|row| row["portName"] == "*");
        let counts = ranges.filter_map(|row| row["connections"].as_u64());
        counts.sum::<u64>()
    };
    let (before, chains) = (
        reached(),
        Family::ALL.map(|family| handles(&studio.shop, family)),
    );
    let connections = counted();
    assert!(connections > 0);
    daemon.terminate();
    assert_eq!(reached(), before);
    let daemon = Daemon::start(&studio.shop.cluster, &studio.shop.manifests);
    assert_eq!(daemon.logged(LogEvent::TableReplaced), [""; 0]);
    let now = Family::ALL.map(|family| handles(&studio.shop, family));
    assert_eq!(chains, now);
    assert_eq!(reached(), before);
    // An element that is written again counts from zero.
    assert!(counted() > connections);
    daemon.terminate();
    // A range that was removed while the daemon was not running.
    let gone = studio.manifests(&cart_on_every_frontend(), &pods);
    let _daemon = studio.shop.start(&gone);
    for (family, protocol) in everywhere() {
        let probe = client.probe(protocol, (family.external_ip(1), SECOND));
        assert_eq!(probe.send().server(), Some("gateway"), "{probe}");
    }
    assert_eq!(counted(), 0);
}

fn services_and_explain_show_ranges() {
    let studio = Studio::new();
    let service = cart_on_every_frontend().annotation("port-ranges", "5060/udp,30000-30999/udp");
    let _daemon = studio
        .shop
        .start(&studio.manifests(&service, &["pod-1", "remote-1"]));
    let rows = rows(&studio.shop, &["-n", "shop"]);
    let of_ranges = |row: &&Value| row["portName"] == "*";
    let rows: Vec<_> = rows.values().filter(of_ranges).collect();
    assert_eq!(rows.len(), 6, "{rows:?}");
    let address = format!("udp://{}:5060,30000-30999", Family::V4.cluster_ip(1));
    let row = rows.iter().find(|row| row["address"] == *address);
    let row = row.unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!(
        (&row["port"], &row["balance"]),
        (&json!(5060), &json!("source"))
    );
    assert_eq!(
        (&row["slots"], &row["result"]),
        (&json!(251), &json!("served"))
    );
    assert_eq!(
        row["endpointCounts"],
        json!({"ready": 2, "local": 1, "total": 2})
    );
    let cluster_ip = Family::V4.cluster_ip(1);
    let client = studio.shop.cluster.pod("pod-3").ip(Family::V4).to_string();
    let to = format!("{cluster_ip}:30042/udp");
    let (code, out, _) = run(&studio.shop, &["explain", &to, "--from", &client]);
    assert_eq!(code, 0, "{out}");
    for text in [
        "shop/cart:*",
        "@port-ranges: ",
        "by a hash of the source address",
        "100.0 %",
        ":30042",
    ] {
        assert!(out.contains(text), "{text}: {out}");
    }
    let (code, out, _) = run(&studio.shop, &["explain", "shop/cart"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains(&format!("{cluster_ip}:5060/udp")), "{out}");
    let unserved = format!("{cluster_ip}:31000/udp");
    let (code, out, _) = run(&studio.shop, &["explain", &unserved]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("its Service has no such port"), "{out}");
}
