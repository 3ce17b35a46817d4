//! Traffic policy Local, terminating endpoints, and topology hints.

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Family, Host, IpAddr, everywhere, names, servers};
use crate::lab::{Probe, Protocol, Service, Slices};

pub(super) fn tests() -> Vec<Trial> {
    use super::policies;
    crate::trials!(policies:
        outside_traffic_of_policy_local_stays_on_the_node_and_keeps_its_source,
        pods_and_the_node_reach_every_endpoint_of_policy_local,
        policy_local_without_a_local_endpoint_drops_outside_clients,
        internal_policy_local_uses_local_endpoints_or_drops,
        without_endpoints_every_policy_rejects,
        terminating_endpoints_serve_if_none_is_ready,
        hints_keep_traffic_in_the_zone_of_the_node,
        masquerade_all_hides_pods_from_cluster_ips,
    )
}

fn external_local() -> Service {
    cart_on_every_frontend().spec("externalTrafficPolicy", json!("Local"))
}

fn internal_local() -> Service {
    cart_on_every_frontend().spec("internalTrafficPolicy", json!("Local"))
}

/// Returns the frontends to which the external traffic policy applies.
fn external(family: Family) -> impl Iterator<Item = (IpAddr, u16)> {
    let all = frontends(family).into_iter();
    all.filter(|(name, _)| *name != "ClusterIP")
        .map(|(_, to)| to)
}

/// Asserts whether the server sees the source address of every probe.
fn assert_source(probe: &Probe<'_>, kept: bool) {
    for _ in 0..10 {
        let answer = probe.send().answer();
        assert_eq!(answer.keeps_source(), kept, "{probe}: {answer:?}");
    }
}

fn outside_traffic_of_policy_local_stays_on_the_node_and_keeps_its_source() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let _daemon = shop.start(&(external_local().yaml() + &cart_slices(endpoints).yaml()));
    let here = names(["pod-1:8080", "pod-2:8080"]);
    for (family, protocol) in everywhere() {
        for to in external(family) {
            let probe = shop.cluster.client.probe(protocol, to);
            assert_eq!(servers(&probe), here, "{probe}");
            assert_source(&probe, true);
        }
        // The external traffic policy does not apply to the ClusterIP.
        let probe = shop
            .cluster
            .client
            .probe(protocol, (family.cluster_ip(1), 80));
        assert_eq!(servers(&probe).len(), 3, "{probe}");
        assert_source(&probe, false);
    }
}

fn pods_and_the_node_reach_every_endpoint_of_policy_local() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    let _daemon = shop.start(&(external_local().yaml() + &cart_slices(endpoints).yaml()));
    let all = names(["pod-1:8080", "remote-1:8080"]);
    for (family, protocol) in everywhere() {
        for to in external(family) {
            let pod = shop.cluster.pod("pod-3").probe(protocol, to);
            assert_eq!(servers(&pod), all, "{pod}");
            assert_source(&pod, true);
            let node = shop.cluster.node.probe(protocol, to);
            assert_eq!(servers(&node), all, "{node}");
        }
    }
}

fn policy_local_without_a_local_endpoint_drops_outside_clients() {
    let shop = Shop::new();
    let endpoints = shop.pods(["remote-1", "remote-2"]);
    let daemon = shop.start(&(external_local().yaml() + &cart_slices(endpoints).yaml()));
    let elsewhere = names(["remote-1:8080", "remote-2:8080"]);
    for family in Family::ALL {
        let probes: Vec<_> = external(family)
            .flat_map(|to| Protocol::ALL.map(|protocol| (protocol, to)))
            .map(|(protocol, to)| shop.cluster.client.probe(protocol, to).briefly())
            .collect();
        for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
            assert!(
                matches!(outcome, crate::lab::Outcome::TimedOut),
                "{probe}: {outcome:?}"
            );
        }
        let pod = shop.cluster.pod("pod-3");
        let probe = pod.probe(Protocol::Tcp, (family.lan(2), NODE_PORT));
        assert_eq!(servers(&probe), elsewhere, "{probe}");
    }
    // A new local endpoint serves at once.
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    daemon.apply(
        "shop.yaml",
        &(external_local().yaml() + &cart_slices(endpoints).yaml()),
    );
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .client
            .probe(protocol, (family.lan(2), NODE_PORT));
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
}

fn internal_policy_local_uses_local_endpoints_or_drops() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    let daemon = shop.start(&(internal_local().yaml() + &cart_slices(endpoints).yaml()));
    let sources = [
        shop.cluster.pod("pod-3"),
        &shop.cluster.node,
        &shop.cluster.client,
    ];
    for (family, protocol) in everywhere() {
        for source in sources {
            let probe = source.probe(protocol, (family.cluster_ip(1), 80));
            assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
            let probe = source.probe(protocol, (family.external_ip(1), 80));
            assert_eq!(servers(&probe).len(), 2, "{probe}");
        }
    }
    let endpoints = shop.pods(["remote-1"]);
    daemon.apply(
        "shop.yaml",
        &(internal_local().yaml() + &cart_slices(endpoints).yaml()),
    );
    let probes: Vec<_> = everywhere()
        .flat_map(|(family, protocol)| sources.map(|source| (family, protocol, source)))
        .map(|(family, protocol, source)| {
            source.probe(protocol, (family.cluster_ip(1), 80)).briefly()
        })
        .collect();
    for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
        assert!(
            matches!(outcome, crate::lab::Outcome::TimedOut),
            "{probe}: {outcome:?}"
        );
    }
}

fn without_endpoints_every_policy_rejects() {
    let shop = Shop::new();
    let both = internal_local().spec("externalTrafficPolicy", json!("Local"));
    let _daemon = shop.start(&(both.yaml() + &cart_slices([]).yaml()));
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family) {
            let probe = shop.cluster.client.probe(protocol, to);
            let outcome = probe.send();
            assert!(outcome.is_refused_at_once(), "{probe}: {outcome:?}");
        }
    }
}

fn condition(serving: bool) -> Value {
    json!({"ready": false, "serving": serving, "terminating": true})
}

/// Returns `shop/cart` with policy Local and terminating endpoints: some serve, and some do not.
fn terminating<'a>(
    serving: impl IntoIterator<Item = &'a Host>,
    silent: impl IntoIterator<Item = &'a Host>,
) -> Slices {
    let slices = Slices::of("shop/cart").both("http", 8080);
    let slices = slices.with(serving, &condition(true));
    slices.with(silent, &condition(false))
}

fn terminating_endpoints_serve_if_none_is_ready() {
    let shop = Shop::new();
    let here = terminating(shop.pods(["pod-1"]), shop.pods(["pod-2"]));
    let mixed = here.ready(shop.pods(["remote-1"]));
    let daemon = shop.start(&(external_local().yaml() + &mixed.yaml()));
    for (family, protocol) in everywhere() {
        let inside = shop
            .cluster
            .pod("pod-3")
            .probe(protocol, (family.cluster_ip(1), 80));
        assert_eq!(servers(&inside), names(["remote-1:8080"]), "{inside}");
        let outside = shop
            .cluster
            .client
            .probe(protocol, (family.load_balancer_ip(1), 80));
        assert_eq!(servers(&outside), names(["pod-1:8080"]), "{outside}");
    }
    let only = terminating(shop.pods(["pod-1", "remote-1"]), shop.pods(["pod-2"]));
    daemon.apply("shop.yaml", &(external_local().yaml() + &only.yaml()));
    for (family, protocol) in everywhere() {
        let inside = shop
            .cluster
            .pod("pod-3")
            .probe(protocol, (family.cluster_ip(1), 80));
        assert_eq!(
            servers(&inside),
            names(["pod-1:8080", "remote-1:8080"]),
            "{inside}"
        );
        let outside = shop
            .cluster
            .client
            .probe(protocol, (family.load_balancer_ip(1), 80));
        assert_eq!(servers(&outside), names(["pod-1:8080"]), "{outside}");
    }
    let none = terminating([], shop.pods(["pod-1", "remote-1"]));
    daemon.apply("shop.yaml", &(external_local().yaml() + &none.yaml()));
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family) {
            let probe = shop.cluster.client.probe(protocol, to);
            assert!(probe.send().is_refused_at_once(), "{probe}");
        }
    }
}

fn hints_keep_traffic_in_the_zone_of_the_node() {
    let shop = Shop::new();
    let zone = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: node-1\n  labels: \
             {{topology.kubernetes.io/zone: {name}}}\nstatus:\n  addresses:\n  - {{type: \
             InternalIP, address: {}}}\n",
            Family::V4.lan(2)
        )
    };
    let slice = |number: u8, pod: &str, zone: &str| {
        let address = shop.cluster.pod(pod).ip(Family::V4);
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: \
             cart-{number}, namespace: shop, labels: {{kubernetes.io/service-name: cart}}}}\n\
             addressType: IPv4\nports: [{{name: http-tcp, port: 8080}}, {{name: http, port: 8080}}]\n\
             endpoints: [{{addresses: [{address}]{zone}}}]\n"
        )
    };
    let service = Service::new("shop/cart", 1).port("http", Protocol::Tcp, 80);
    let hint = |zone: &str| format!(", hints: {{forZones: [{{name: {zone}}}]}}");
    let hinted = slice(1, "pod-1", &hint("a")) + &slice(2, "remote-1", &hint("b"));
    let cluster_ip = (Family::V4.cluster_ip(1), 80);
    let probe = shop.cluster.pod("pod-3").probe(Protocol::Tcp, cluster_ip);
    let daemon = shop.start(&(service.yaml() + &hinted));
    // The Node object has no zone yet.
    assert_eq!(servers(&probe).len(), 2);
    daemon.apply("00-node.yaml", &zone("b"));
    assert_eq!(servers(&probe), names(["remote-1:8080"]));
    daemon.apply("00-node.yaml", &zone("a"));
    assert_eq!(servers(&probe), names(["pod-1:8080"]));
    daemon.apply("00-node.yaml", &zone("c"));
    assert_eq!(
        servers(&probe).len(),
        2,
        "no endpoint is meant for this zone"
    );
    daemon.apply("00-node.yaml", &zone("a"));
    let unhinted = hinted.clone() + &slice(3, "pod-2", "");
    daemon.apply("shop.yaml", &(service.yaml() + &unhinted));
    assert_eq!(servers(&probe).len(), 3, "one endpoint has no hint");
}

fn masquerade_all_hides_pods_from_cluster_ips() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "remote-1"]);
    shop.manifests.write(
        "shop.yaml",
        &(cart_on_every_frontend().yaml() + &cart_slices(endpoints).yaml()),
    );
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--cluster-cidr", &cidrs, "--masquerade-all"];
    let _daemon = super::Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .pod("pod-3")
            .probe(protocol, (family.cluster_ip(1), 80));
        assert_source(&probe, false);
        assert!(
            Cluster::is_node(probe.send().answer().seen_from.ip()),
            "{probe}"
        );
    }
}
