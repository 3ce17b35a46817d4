//! The data path beside other rules: established connections, firewalls and NAT of other programs.

use std::net::IpAddr;

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{NODE_PORT, Shop, cart, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Family, Host, Probe, Protocol, Server, everywhere, names, servers};
use crate::lab::{Flow, Outcome, Service, Slices, manifest, nft};

pub(super) fn tests() -> Vec<Trial> {
    use super::data_path;
    crate::trials!(data_path:
        an_established_connection_survives_new_source_ranges,
        a_node_that_holds_a_cluster_ip_serves_ports_that_the_service_lacks,
        rejects_pass_a_firewall_that_drops_new_connections,
        a_client_is_pinned_although_another_program_translates_its_source,
        an_endpoint_is_not_used_while_it_is_a_cluster_ip,
        an_endpoint_in_a_service_cidr_is_not_used,
        another_proxy_serves_its_cluster_ip,
    )
}

/// Returns a local Pod, a remote Pod, the node and an outside client.
fn sources(cluster: &Cluster) -> [&Host; 4] {
    [
        cluster.pod("pod-3"),
        cluster.pod("remote-2"),
        &cluster.node,
        &cluster.client,
    ]
}

fn an_established_connection_survives_new_source_ranges() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    let daemon = shop.start(&(cart_on_every_frontend().yaml() + &slices));
    let mut flows = Vec::new();
    for (family, protocol) in everywhere() {
        for source in sources(&shop.cluster) {
            let probe = source.probe(protocol, (family.load_balancer_ip(1), 80));
            let mut flow =
                Flow::open(&probe).unwrap_or_else(|outcome| panic!("{probe}: {outcome:?}"));
            let greeting = flow.greeting().answer();
            flows.push((probe.briefly(), flow, greeting));
        }
    }
    let ranges = json!(["192.0.2.0/24", "2001:db8:9::/64"]);
    let restricted = cart_on_every_frontend().spec("loadBalancerSourceRanges", ranges);
    daemon.apply("shop.yaml", &(restricted.yaml() + &slices));
    for (probe, flow, greeting) in &mut flows {
        assert_eq!(probe.send(), Outcome::TimedOut, "a new one: {probe}");
        for _ in 0..3 {
            assert_eq!(flow.ask(), Outcome::Answered(greeting.clone()), "{probe}");
        }
    }
}

/// `NodeLocal DNSCache` answers health checks at the `ClusterIP` of the DNS Service, on a port that
/// the Service does not have. The kernel tracks these connections.
fn a_node_that_holds_a_cluster_ip_serves_ports_that_the_service_lacks() {
    let shop = Shop::new();
    let held = Family::ALL.map(|family| family.cluster_ip(1));
    shop.cluster.node.hold(&held);
    let addresses = held.map(|ip| (ip, 8080).into());
    let _cache = Server::start(&shop.cluster.node.namespace, "cache", &addresses);
    let daemon = shop.start(&cart().yaml());
    let assert_reached = |when: &str| {
        for (family, protocol) in everywhere() {
            for source in sources(&shop.cluster) {
                let probe = source.probe(protocol, (family.cluster_ip(1), 8080));
                assert_eq!(servers(&probe), names(["cache"]), "{probe} {when}");
            }
        }
    };
    assert_reached("without endpoints");
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    daemon.apply(
        "shop.yaml",
        &(cart().yaml() + &cart_slices(endpoints).yaml()),
    );
    assert_reached("with endpoints");
    for (family, protocol) in everywhere() {
        // The Service's own port still leads to its endpoints.
        let probe = shop
            .cluster
            .pod("pod-3")
            .probe(protocol, (family.cluster_ip(1), 80));
        let expected = names(["pod-1:8080", "remote-1:8080"]);
        assert_eq!(servers(&probe), expected, "{probe}");
    }
}

/// A firewall that drops every new connection. It accepts neighbour discovery, which IPv6 needs.
const FIREWALL: &str = "
table inet firewall {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
    }
}
";

fn rejects_pass_a_firewall_that_drops_new_connections() {
    let shop = Shop::new();
    let served = Service::new("shop/served", 2).both("http", 80);
    let slices = Slices::of("shop/served")
        .both("http", 8080)
        .ready(shop.pods(["pod-1"]));
    let _daemon = shop.start(&(cart_on_every_frontend().yaml() + &served.yaml() + &slices.yaml()));
    nft::load(&shop.cluster.node.namespace, FIREWALL);
    let (mut refused, mut dropped) = (Vec::new(), Vec::new());
    for (family, protocol) in everywhere() {
        let unknown_port = [(family.cluster_ip(1), 81)];
        for to in frontends(family)
            .map(|(_, to)| to)
            .into_iter()
            .chain(unknown_port)
        {
            refused.extend(sources(&shop.cluster).map(|source| source.probe(protocol, to)));
        }
        // The firewall drops a new connection to a served Service.
        let to = (family.cluster_ip(2), 80);
        dropped.push(shop.cluster.client.probe(protocol, to).briefly());
    }
    for (probe, outcome) in refused.iter().zip(Probe::send_all(&refused)) {
        assert!(outcome.is_refused_at_once(), "{probe}: {outcome:?}");
    }
    for (probe, outcome) in dropped.iter().zip(Probe::send_all(&dropped)) {
        assert_eq!(outcome, Outcome::TimedOut, "{probe}");
    }
}

/// A CNI plugin that masquerades the packets of Pods, at the standard priority.
const PLUGIN: &str = "
table inet plugin {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr V4_PODS masquerade
        ip6 saddr V6_PODS masquerade
    }
}
";

fn a_client_is_pinned_although_another_program_translates_its_source() {
    let shop = Shop::new();
    let [v4, v6] = Family::ALL.map(Family::cluster_cidr);
    let rules = PLUGIN.replace("V4_PODS", v4).replace("V6_PODS", v6);
    nft::load(&shop.cluster.node.namespace, &rules);
    let sticky = cart()
        .node_port(NODE_PORT)
        .spec("sessionAffinity", json!("ClientIP"));
    let endpoints = shop.pods(["pod-1", "pod-2", "remote-1", "remote-2"]);
    let _daemon = shop.start(&(sticky.yaml() + &cart_slices(endpoints).yaml()));
    let pod = shop.cluster.pod("pod-3");
    for (family, protocol) in everywhere() {
        for to in [(family.cluster_ip(1), 80), (family.lan(2), NODE_PORT)] {
            let probe = pod.probe(protocol, to);
            let first = probe.send().answer();
            // Only the plugin masquerades a connection of a Pod to a ClusterIP.
            assert!(Cluster::is_node(first.seen_from.ip()), "{probe}: {first:?}");
            for _ in 0..10 {
                assert_eq!(probe.send().answer().server, first.server, "{probe}");
            }
            let map = format!("affinity-{}", protocol.to_string().to_lowercase());
            let client = format!("{} . {} . {}", pod.ip(family), to.0, to.1);
            assert!(
                nft::has_element(&shop.cluster.node.namespace, family.table(), &map, &client),
                "{map} has no element {client}"
            );
        }
        // No Service has this address, so only the plugin translates the packet.
        let probe = pod.probe(protocol, (family.external_ip(9), 80));
        let answer = probe.send().answer();
        assert_eq!(answer.server, "gateway", "{probe}");
        assert!(
            Cluster::is_node(answer.seen_from.ip()),
            "{probe}: {answer:?}"
        );
    }
}

/// Returns the cart with one odd endpoint and these Pods as endpoints.
fn cart_endpoints(shop: &Shop, odd: impl Fn(Family) -> IpAddr, pods: &[&str]) -> String {
    let pods = pods.iter().map(|name| shop.cluster.pod(name));
    let ips: Vec<_> = pods
        .flat_map(|pod| Family::ALL.map(|family| pod.ip(family)))
        .chain(Family::ALL.map(odd))
        .collect();
    cart().yaml() + &manifest::endpoints("shop/cart", &ips, 8080)
}

/// Returns probes of the cart's `ClusterIPs` from all sources except remote Pods, to which the
/// gateway answers without passing node-1.
fn of_cart(shop: &Shop) -> Vec<Probe<'_>> {
    let [local, _, node, outside] = sources(&shop.cluster);
    everywhere()
        .flat_map(|(family, protocol)| {
            let to = (family.cluster_ip(1), 80);
            [local, node, outside].map(|source| source.probe(protocol, to))
        })
        .collect()
}

fn assert_served<const N: usize>(shop: &Shop, by: [&str; N], when: &str) {
    for probe in of_cart(shop) {
        assert_eq!(servers(&probe), names(by), "{probe} {when}");
    }
}

fn assert_refused(shop: &Shop, when: &str) {
    let probes = of_cart(shop);
    for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
        assert!(outcome.is_refused_at_once(), "{probe} {when}: {outcome:?}");
    }
}

fn an_endpoint_is_not_used_while_it_is_a_cluster_ip() {
    let shop = Shop::new();
    // The address is in no ServiceCIDR. It leads to the gateway when no Service has it.
    let taken = |family: Family| family.external_ip(9);
    let list = Service::new("shop/list", 2)
        .both("http", 8080)
        .spec("clusterIP", json!(taken(Family::V4)))
        .spec("clusterIPs", json!(Family::ALL.map(taken)))
        .yaml()
        + &Slices::of("shop/list")
            .both("http", 8080)
            .ready(shop.pods(["pod-2"]))
            .yaml();
    shop.manifests.write("list.yaml", &list);
    let daemon = shop.start(&cart_endpoints(&shop, taken, &["pod-1"]));
    assert_served(&shop, ["pod-1:8080"], "beside a Pod");
    daemon.apply("shop.yaml", &cart_endpoints(&shop, taken, &[]));
    assert_refused(&shop, "alone");
    daemon.remove("list.yaml");
    assert_served(&shop, ["gateway"], "when no Service has it");
    daemon.apply("list.yaml", &list);
    assert_refused(&shop, "when a Service has it again");
    daemon.apply("shop.yaml", &cart_endpoints(&shop, taken, &["pod-1"]));
    assert_served(&shop, ["pod-1:8080"], "beside a Pod again");
    daemon.remove("list.yaml");
    assert_served(
        &shop,
        ["gateway", "pod-1:8080"],
        "beside a Pod, when no Service has it",
    );
}

fn an_endpoint_in_a_service_cidr_is_not_used() {
    let shop = Shop::new();
    let unallocated = |family: Family| family.cluster_ip(200);
    let daemon = shop.start(&cart_endpoints(&shop, unallocated, &["pod-1"]));
    assert_served(&shop, ["pod-1:8080"], "beside a Pod");
    daemon.apply("shop.yaml", &cart_endpoints(&shop, unallocated, &[]));
    assert_refused(&shop, "alone");
    // Without the range the endpoint is valid.
    daemon.remove("service-cidr.yaml");
    assert_served(&shop, ["gateway"], "when no ServiceCIDR has it");
}

/// Another proxy serves the Services with the label `service.kubernetes.io/service-proxy-name`.
/// Its DNAT has the standard priority, so its chain runs after kube-dnat's.
fn another_proxy_serves_its_cluster_ip() {
    let shop = Shop::new();
    let _daemon = shop.start(&(cart().yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()));
    let mut rules = Vec::new();
    for family in Family::ALL {
        let ([table, _], foreign) = (family.table(), family.cluster_ip(201));
        let pod = match shop.cluster.pod("pod-2").ip(family) {
            IpAddr::V4(ip) => format!("{ip}:8080"),
            IpAddr::V6(ip) => format!("[{ip}]:8080"),
        };
        for hook in ["prerouting", "output"] {
            rules.push(format!(
                "table {table} other {{ chain {hook} {{\n\
                 type nat hook {hook} priority -100\n\
                 {table} daddr {foreign} tcp dport 80 dnat to {pod}\n}}\n}}\n"
            ));
        }
    }
    let pod = shop.cluster.pod("pod-3");
    for family in Family::ALL {
        // The address is inside a ServiceCIDR and belongs to no Service, so packets are dropped.
        let probe = pod
            .probe(Protocol::Tcp, (family.cluster_ip(201), 80))
            .briefly();
        assert_eq!(probe.send(), Outcome::TimedOut, "{probe}");
    }
    nft::load(&shop.cluster.node.namespace, &rules.concat());
    for family in Family::ALL {
        for source in [pod, &shop.cluster.node] {
            let probe = source.probe(Protocol::Tcp, (family.cluster_ip(201), 80));
            assert_eq!(probe.send().answer().server, "pod-2:8080", "{probe}");
        }
    }
}
