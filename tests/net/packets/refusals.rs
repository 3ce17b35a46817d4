//! Rejects and drops: a frontend without endpoints is rejected at once, and an unallocated address
//! is dropped.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{NODE_PORT, Shop, cart, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Family, Host, Probe, Protocol, Server, everywhere, names, servers};
use crate::lab::{Flow, Outcome, Ping, Service, nft, ping};

pub(super) fn tests() -> Vec<Trial> {
    use super::refusals;
    crate::trials!(refusals:
        without_endpoints_every_frontend_rejects_every_source_at_once,
        endpoints_that_are_not_ready_count_as_none,
        a_rejecting_service_serves_as_soon_as_it_has_an_endpoint,
        a_node_port_without_endpoints_is_rejected_on_the_primary_address_only,
        a_wrong_port_or_protocol_of_a_cluster_ip_is_rejected_at_once,
        an_unallocated_address_of_a_service_cidr_is_dropped,
        a_ping_of_a_cluster_ip_is_rejected_and_of_an_unallocated_address_dropped,
        only_new_connections_are_rejected,
        the_node_serves_an_untracked_cluster_ip_that_it_holds,
    )
}

/// Returns all sources: a local Pod, a remote Pod, the node and an outside client.
fn sources(cluster: &Cluster) -> [&Host; 4] {
    [
        cluster.pod("pod-3"),
        cluster.pod("remote-2"),
        &cluster.node,
        &cluster.client,
    ]
}

fn assert_refused(probes: &[Probe<'_>]) {
    for (probe, outcome) in probes.iter().zip(Probe::send_all(probes)) {
        assert!(outcome.is_refused_at_once(), "{probe}: {outcome:?}");
    }
}

/// Returns probes from every source to these addresses of each family.
fn probes(
    cluster: &Cluster,
    to: impl Fn(Family) -> Vec<(std::net::IpAddr, u16)>,
) -> Vec<Probe<'_>> {
    let mut probes = Vec::new();
    for (family, protocol) in everywhere() {
        for address in to(family) {
            probes.extend(sources(cluster).map(|source| source.probe(protocol, address)));
        }
    }
    probes
}

fn without_endpoints_every_frontend_rejects_every_source_at_once() {
    let shop = Shop::new();
    let _daemon = shop.start(&cart_on_every_frontend().yaml());
    assert_refused(&probes(&shop.cluster, |family| {
        frontends(family).map(|(_, to)| to).to_vec()
    }));
}

fn endpoints_that_are_not_ready_count_as_none() {
    let shop = Shop::new();
    let slices = cart_slices([]).with(
        &shop.cluster.pods,
        &json!({ "ready": false, "serving": false }),
    );
    let _daemon = shop.start(&(cart_on_every_frontend().yaml() + &slices.yaml()));
    assert_refused(&probes(&shop.cluster, |family| {
        frontends(family).map(|(_, to)| to).to_vec()
    }));
}

fn a_rejecting_service_serves_as_soon_as_it_has_an_endpoint() {
    let shop = Shop::new();
    let daemon = shop.start(&cart_on_every_frontend().yaml());
    let probes = probes(&shop.cluster, |family| {
        frontends(family).map(|(_, to)| to).to_vec()
    });
    assert_refused(&probes);
    let endpoints = shop.pods(["pod-1"]);
    daemon.apply(
        "shop.yaml",
        &(cart_on_every_frontend().yaml() + &cart_slices(endpoints).yaml()),
    );
    for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
        assert_eq!(outcome.server(), Some("pod-1:8080"), "{probe}: {outcome:?}");
    }
    daemon.apply("shop.yaml", &cart_on_every_frontend().yaml());
    assert_refused(&probes);
}

fn a_node_port_without_endpoints_is_rejected_on_the_primary_address_only() {
    let shop = Shop::new();
    let everywhere_on_the_node =
        Family::ALL.map(|family| [family.lan(2), Cluster::secondary_ip(family)]);
    let addresses: Vec<_> = everywhere_on_the_node
        .concat()
        .iter()
        .map(|ip| (*ip, NODE_PORT).into())
        .collect();
    let _host_server = Server::start(&shop.cluster.node.namespace, "host", &addresses);
    let _daemon = shop.start(&cart().node_port(NODE_PORT).yaml());
    for (family, protocol) in everywhere() {
        for source in sources(&shop.cluster) {
            assert_refused(&[source.probe(protocol, (family.lan(2), NODE_PORT))]);
            let probe = source.probe(protocol, (Cluster::secondary_ip(family), NODE_PORT));
            assert_eq!(servers(&probe), names(["host"]), "{probe}");
        }
    }
}

fn a_wrong_port_or_protocol_of_a_cluster_ip_is_rejected_at_once() {
    let shop = Shop::new();
    let [pod] = shop.pods(["pod-1"]);
    let tcp = Service::new("shop/tcp", 2).port("http", Protocol::Tcp, 80);
    let _daemon = shop.start(&(cart().yaml() + &cart_slices([pod]).yaml() + &tcp.yaml()));
    assert_refused(&probes(&shop.cluster, |family| {
        vec![(family.cluster_ip(1), 81), (family.cluster_ip(2), 81)]
    }));
    for (family, source) in Family::ALL
        .into_iter()
        .flat_map(|family| sources(&shop.cluster).map(|source| (family, source)))
    {
        assert_refused(&[source.probe(Protocol::Udp, (family.cluster_ip(2), 80))]);
    }
}

fn an_unallocated_address_of_a_service_cidr_is_dropped() {
    let shop = Shop::new();
    let _daemon = shop.start(&(cart().yaml() + &cart_slices(&shop.cluster.pods).yaml()));
    let probes: Vec<_> = probes(&shop.cluster, |family| vec![(family.cluster_ip(200), 80)]);
    let probes: Vec<_> = probes.into_iter().map(Probe::briefly).collect();
    for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
        assert_eq!(outcome, Outcome::TimedOut, "{probe}");
    }
}

fn a_ping_of_a_cluster_ip_is_rejected_and_of_an_unallocated_address_dropped() {
    let shop = Shop::new();
    let _daemon = shop.start(&(cart().yaml() + &cart_slices(&shop.cluster.pods).yaml()));
    let briefly = Duration::from_millis(300);
    for (family, source) in Family::ALL
        .into_iter()
        .flat_map(|family| sources(&shop.cluster).map(|source| (family, source)))
    {
        let refused = ping(&source.namespace, family.cluster_ip(1), briefly);
        assert!(
            matches!(refused, Ping::Failed(Outcome::Refused(_))),
            "{family} from {}: {refused:?}",
            source.name()
        );
        let dropped = ping(&source.namespace, family.cluster_ip(200), briefly);
        assert_eq!(
            dropped,
            Ping::Failed(Outcome::TimedOut),
            "{family} from {}",
            source.name()
        );
    }
}

fn only_new_connections_are_rejected() {
    let shop = Shop::new();
    let addresses = Family::ALL.map(|family| (family.lan(2), NODE_PORT).into());
    let _host_server = Server::start(&shop.cluster.node.namespace, "host", &addresses);
    let daemon = shop.start("");
    let mut flows = Vec::new();
    for family in Family::ALL {
        let client = &shop.cluster.client;
        for probe in [
            client.probe(Protocol::Tcp, (family.lan(2), NODE_PORT)),
            shop.cluster
                .pod("pod-3")
                .probe(Protocol::Tcp, (family.external_ip(1), 80)),
            shop.cluster
                .node
                .probe(Protocol::Tcp, (family.external_ip(1), 80)),
        ] {
            let mut flow =
                Flow::open(&probe).unwrap_or_else(|outcome| panic!("{probe}: {outcome:?}"));
            let greeting = flow.greeting();
            flows.push((probe, flow, greeting));
        }
    }
    daemon.apply("shop.yaml", &cart_on_every_frontend().yaml());
    for (probe, flow, greeting) in &mut flows {
        assert_refused(std::slice::from_ref(probe));
        assert_eq!(flow.ask(), *greeting, "{probe}");
    }
}

/// The server acts like `NodeLocal DNSCache`, which binds the `ClusterIP` of the DNS Service on the
/// node, and excludes its packets from connection tracking.
fn the_node_serves_an_untracked_cluster_ip_that_it_holds() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    let [v4, v6] = Family::ALL.map(|family| family.cluster_ip(1));
    shop.cluster.node.hold(&[v4, v6]);
    let rules = "th dport 80 notrack\nth sport 80 notrack\n";
    nft::load(
        node,
        &format!(
            "table inet nodelocaldns {{\n\
             chain prerouting {{ type filter hook prerouting priority raw;\n{rules} }}\n\
             chain output {{ type filter hook output priority raw;\n{rules} }}\n\
             }}\n"
        ),
    );
    let _cache = Server::start(node, "cache", &[(v4, 80).into(), (v6, 80).into()]);
    let daemon = shop.start(&cart().yaml());
    let assert_left_to_it = |when: &str| {
        for (family, protocol) in everywhere() {
            for source in [shop.cluster.pod("pod-3"), &shop.cluster.node] {
                let probe = source.probe(protocol, (family.cluster_ip(1), 80));
                assert_eq!(servers(&probe), names(["cache"]), "{probe} {when}");
            }
        }
    };
    assert_left_to_it("without endpoints");
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    daemon.apply(
        "shop.yaml",
        &(cart().yaml() + &cart_slices(endpoints).yaml()),
    );
    assert_left_to_it("with endpoints");
}
