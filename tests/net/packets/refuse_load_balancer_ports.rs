//! Ports of load-balancer IPs that no Service has (`--refuse-unserved-load-balancer-ports`).

use std::net::SocketAddr;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;

use super::explain::agrees;
use super::shop::{Shop, cart, cart_slices};
use super::{Cluster, Daemon, Family, Host, Probe, Server, everywhere, names, servers};
use crate::lab::manifest::node;
use crate::lab::{Flow, Outcome, Ping, Service, nft, ping};

pub(super) fn tests() -> Vec<Trial> {
    use super::refuse_load_balancer_ports;
    crate::trials!(refuse_load_balancer_ports:
        a_wrong_port_is_refused_at_the_first_pass,
        addresses_of_machines_serve_other_ports,
        another_program_may_serve_a_port,
        a_restart_with_the_flag_refuses_and_one_without_leaves_alone,
        a_port_that_a_service_loses_is_refused_and_open_connections_continue,
        source_ranges_still_drop,
    )
}

fn start<'a>(shop: &'a Shop, manifests: &str) -> Daemon<'a> {
    shop.manifests.write("shop.yaml", manifests);
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flag = "--refuse-unserved-load-balancer-ports";
    Daemon::start_with(
        &shop.cluster,
        &shop.manifests,
        &["--cluster-cidr", &cidrs, flag],
    )
}

/// Returns `shop/cart` at load-balancer IP 1, external IP 1 and, with `ipMode: Proxy`, IP 2.
fn manifests(shop: &Shop) -> String {
    let service = cart()
        .external_ip(1)
        .load_balancer_ip(1)
        .load_balancer_ip_with_mode(2, "Proxy");
    service.yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()
}

fn sources(cluster: &Cluster) -> [&Host; 4] {
    [
        cluster.pod("pod-3"),
        cluster.pod("remote-2"),
        &cluster.node,
        &cluster.client,
    ]
}

/// Returns probes of load-balancer IP 1 from every source at this port.
fn probes(shop: &Shop, port: u16) -> Vec<Probe<'_>> {
    everywhere()
        .flat_map(|(family, protocol)| {
            let to = (family.load_balancer_ip(1), port);
            sources(&shop.cluster).map(|source| source.probe(protocol, to))
        })
        .collect()
}

fn assert_refused(probes: &[Probe<'_>]) {
    for (probe, outcome) in probes.iter().zip(Probe::send_all(probes)) {
        assert!(outcome.is_refused_at_once(), "{probe}: {outcome:?}");
    }
}

fn a_wrong_port_is_refused_at_the_first_pass() {
    let shop = Shop::new();
    let _daemon = start(&shop, &manifests(&shop));
    assert_refused(&probes(&shop, 81));
    for probe in probes(&shop, 80) {
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
    for source in sources(&shop.cluster) {
        for family in Family::ALL {
            let briefly = Duration::from_millis(300);
            let refused = ping(&source.namespace, family.load_balancer_ip(1), briefly);
            assert!(
                matches!(refused, Ping::Failed(Outcome::Refused(_))),
                "{family} from {}: {refused:?}",
                source.name()
            );
        }
        for (family, protocol) in everywhere() {
            agrees(&shop, source, protocol, (family.load_balancer_ip(1), 81));
            // The gateway answers what leaves the node.
            for to in [
                (family.external_ip(1), 81),
                (family.load_balancer_ip(2), 80),
                (family.load_balancer_ip(3), 80),
            ] {
                let probe = source.probe(protocol, to);
                assert_eq!(servers(&probe), names(["gateway"]), "{probe}");
            }
        }
    }
}

/// The node has load-balancer IP 1. The Service `shop/nodes` reports the addresses of both nodes, as
/// the load balancer of k3s does.
fn addresses_of_machines_serve_other_ports() {
    let shop = Shop::new();
    let cluster = &shop.cluster;
    let held = Family::ALL.map(|family| family.load_balancer_ip(1));
    cluster.node.hold(&held);
    let addresses = held.map(|ip| (ip, 81).into());
    let _own = Server::start(&cluster.node.namespace, "own", &addresses);
    let others = Family::ALL.map(|family| (cluster.other_node.ip(family), 81).into());
    let _other = Server::start(&cluster.other_node.namespace, "other", &others);
    let nodes: Vec<_> = Family::ALL
        .into_iter()
        .flat_map(|family| [&cluster.node, &cluster.other_node].map(|node| node.ip(family)))
        .map(|ip| json!({ "ip": ip }))
        .collect();
    let service = Service::new("shop/nodes", 2)
        .both("http", 82)
        .ingress(nodes);
    let object = node(&Family::ALL.map(|family| family.lan(2)));
    let _daemon = start(&shop, &(manifests(&shop) + &service.yaml() + &object));
    for (family, protocol) in everywhere() {
        for source in [cluster.pod("pod-3"), &cluster.client] {
            let probe = source.probe(protocol, (family.load_balancer_ip(1), 81));
            assert_eq!(servers(&probe), names(["own"]), "{probe}");
        }
        for source in [cluster.pod("pod-3"), &cluster.node] {
            let probe = source.probe(protocol, (cluster.other_node.ip(family), 81));
            assert_eq!(servers(&probe), names(["other"]), "{probe}");
        }
    }
}

/// A Service of another proxy may have the same address, with other ports.
fn another_program_may_serve_a_port() {
    let shop = Shop::new();
    let pod = shop.cluster.pod("pod-2");
    for family in Family::ALL {
        let [layer, _] = family.table();
        let ip = family.load_balancer_ip(1);
        let to = SocketAddr::new(pod.ip(family), 8080);
        let rules = format!(
            "table {layer} other {{\n\
             chain prerouting {{ type nat hook prerouting priority dstnat;\n\
             {layer} daddr {ip} meta l4proto {{ tcp, udp }} th dport 81 dnat to {to}\n }}\n }}\n"
        );
        nft::load(&shop.cluster.node.namespace, &rules);
    }
    let _daemon = start(&shop, &manifests(&shop));
    for (family, protocol) in everywhere() {
        let to = (family.load_balancer_ip(1), 81);
        let probe = shop.cluster.client.probe(protocol, to);
        assert_eq!(servers(&probe), names(["pod-2:8080"]), "{probe}");
    }
}

fn a_restart_with_the_flag_refuses_and_one_without_leaves_alone() {
    let shop = Shop::new();
    let manifests = manifests(&shop);
    let probes = probes(&shop, 81);
    let assert_left_alone = || {
        let _daemon = shop.start(&manifests);
        for probe in &probes {
            assert_eq!(servers(probe), names(["gateway"]), "{probe}");
        }
    };
    assert_left_alone();
    {
        let _daemon = start(&shop, &manifests);
        assert_refused(&probes);
    }
    assert_left_alone();
}

fn a_port_that_a_service_loses_is_refused_and_open_connections_continue() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).both("more", 8080).yaml();
    let both = cart().both("more", 81).load_balancer_ip(1).yaml();
    let daemon = start(&shop, &(both + &slices));
    let probes: Vec<_> = probes(&shop, 80)
        .into_iter()
        .filter(|probe| !probe.is_udp())
        .collect();
    let mut flows: Vec<_> = probes
        .iter()
        .map(|probe| {
            let mut flow =
                Flow::open(probe).unwrap_or_else(|outcome| panic!("{probe}: {outcome:?}"));
            let greeting = flow.greeting().answer();
            (flow, greeting)
        })
        .collect();
    let other_port = Service::new("shop/cart", 1)
        .both("more", 81)
        .load_balancer_ip(1);
    daemon.apply("shop.yaml", &(other_port.yaml() + &slices));
    assert_refused(&probes);
    for (flow, greeting) in &mut flows {
        assert_eq!(flow.ask(), Outcome::Answered(greeting.clone()));
    }
    // The last Service with the address is gone: nothing is refused.
    daemon.remove("shop.yaml");
    for probe in &probes {
        assert_eq!(servers(probe), names(["gateway"]), "{probe}");
    }
}

fn source_ranges_still_drop() {
    let shop = Shop::new();
    let ranged = cart().load_balancer_ip(1).spec(
        "loadBalancerSourceRanges",
        json!(["203.0.113.0/24", "2001:db8:203::/64"]),
    );
    let _daemon = start(
        &shop,
        &(ranged.yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()),
    );
    let dropped: Vec<_> = probes(&shop, 80).into_iter().map(Probe::briefly).collect();
    for (probe, outcome) in dropped.iter().zip(Probe::send_all(&dropped)) {
        assert!(matches!(outcome, Outcome::TimedOut), "{probe}: {outcome:?}");
    }
    assert_refused(&probes(&shop, 81));
}
