//! The counters of connections that are rejected or dropped, and the endpoints' shares.

use std::net::{IpAddr, Ipv4Addr};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::admin::{on_loopback, value};
use super::explain::run;
use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::source_ranges::{ranged, the_client};
use super::{Family, Host, Protocol, everywhere, servers};
use crate::lab::wait_until;

pub(super) fn tests() -> Vec<Trial> {
    use super::denied;
    crate::trials!(denied:
        connections_without_endpoints_are_counted_with_their_reason,
        connections_without_local_endpoints_are_counted_with_their_reason,
        connections_from_outside_the_source_ranges_are_counted,
        the_shares_of_endpoints_are_sampled,
    )
}

/// The value of the metric of denied connections of a port of the cart.
fn denied(shop: &Shop, protocol: Protocol, reason: &str) -> u64 {
    let port = format!("http-{}", protocol.to_string().to_lowercase());
    let labels =
        format!("namespace=\"shop\",service=\"cart\",port_name=\"{port}\",reason=\"{reason}\"");
    let name = format!("kube_dnat_service_connections_denied_total{{{labels}}}");
    let (_, metrics) = on_loopback(shop, "/metrics");
    value(&metrics, &name).map_or(0, |count| {
        format!("{count}").parse().expect("a whole number")
    })
}

/// Sends connections that nothing answers; each is one packet.
fn refuse(from: &Host, to: impl Fn(Family) -> (IpAddr, u16), times: usize) {
    for (family, protocol) in everywhere() {
        let probe = from.probe(protocol, to(family)).briefly();
        for _ in 0..times {
            let outcome = probe.send();
            assert!(outcome.server().is_none(), "{probe}: {outcome:?}");
        }
    }
}

fn connections_without_endpoints_are_counted_with_their_reason() {
    let shop = Shop::new();
    let service = cart().node_port(NODE_PORT).external_ip(1).yaml();
    let daemon = shop.start(&(service.clone() + &cart_slices([]).yaml()));
    let client = &shop.cluster.client;
    refuse(client, |family| (family.cluster_ip(1), 80), 3);
    refuse(client, |family| (family.lan(2), NODE_PORT), 2);
    refuse(client, |family| (family.external_ip(1), 80), 1);
    for protocol in Protocol::ALL {
        // Three frontends in two families.
        assert_eq!(denied(&shop, protocol, "no_endpoints"), 2 * (3 + 2 + 1));
        assert_eq!(denied(&shop, protocol, "no_local_endpoints"), 0);
    }
    // The page and `top` show the same.
    let answer = counted(&shop);
    let expected = json!({"no_endpoints": 12});
    assert_eq!(answer["denied"]["shop/cart:http-tcp"], expected, "{answer}");
    assert_eq!(answer["connections"]["shop/cart:http-tcp"], 12, "{answer}");
    let (_, out, _) = run(&shop, &["top", "--once", "--interval", "0.1"]);
    let row = out
        .lines()
        .find(|line| line.contains("denied: no endpoint "));
    assert!(row.is_some_and(|row| row.ends_with(" 12")), "{out}");
    // Connections to an endpoint are no denied ones, and the counters stay.
    let one = cart_slices(shop.pods(["pod-1"])).yaml();
    daemon.apply("shop.yaml", &(service.clone() + &one));
    for family in Family::ALL {
        servers(&client.probe(Protocol::Tcp, (family.cluster_ip(1), 80)));
    }
    assert_eq!(denied(&shop, Protocol::Tcp, "no_endpoints"), 12);
    daemon.apply("shop.yaml", &(service + &cart_slices([]).yaml()));
    refuse(client, |family| (family.cluster_ip(1), 80), 1);
    assert_eq!(denied(&shop, Protocol::Tcp, "no_endpoints"), 14);
}

fn connections_without_local_endpoints_are_counted_with_their_reason() {
    let shop = Shop::new();
    let service = cart().node_port(NODE_PORT).load_balancer_ip(1);
    let service = service.spec("externalTrafficPolicy", json!("Local"));
    let service = service.spec("internalTrafficPolicy", json!("Local")).yaml();
    let elsewhere = cart_slices(shop.pods(["remote-1"])).yaml();
    let _daemon = shop.start(&(service + &elsewhere));
    let client = &shop.cluster.client;
    refuse(client, |family| (family.cluster_ip(1), 80), 1);
    refuse(client, |family| (family.load_balancer_ip(1), 80), 2);
    refuse(client, |family| (family.lan(2), NODE_PORT), 3);
    // Clients on the node reach the endpoints on other nodes from outside.
    for family in Family::ALL {
        let pod = shop.cluster.pod("pod-1");
        servers(&pod.probe(Protocol::Tcp, (family.load_balancer_ip(1), 80)));
    }
    for protocol in Protocol::ALL {
        assert_eq!(
            denied(&shop, protocol, "no_local_endpoints"),
            2 * (1 + 2 + 3)
        );
        assert_eq!(denied(&shop, protocol, "no_endpoints"), 0);
    }
}

/// Returns the connections that the page reads.
fn counted(shop: &Shop) -> Value {
    let (_, answer) = on_loopback(shop, "/debug/connections");
    serde_json::from_str(&answer).expect("JSON")
}

fn connections_from_outside_the_source_ranges_are_counted() {
    let shop = Shop::new();
    let ranges = the_client();
    let service = ranged(&ranges.each_ref().map(String::as_str)).yaml();
    let endpoints = |pods: &[&Host]| service.clone() + &cart_slices(pods.iter().copied()).yaml();
    let [one, two, pod] = shop.pods(["pod-1", "remote-1", "pod-3"]);
    let daemon = shop.start(&endpoints(&[one]));
    let client = &shop.cluster.client;
    let restricted = |family: Family| (family.load_balancer_ip(1), 80);
    refuse(pod, restricted, 2);
    // Sources in the ranges, and frontends without ranges, are served.
    for (family, protocol) in everywhere() {
        servers(&client.probe(protocol, restricted(family)));
        servers(&pod.probe(protocol, (family.external_ip(1), 80)));
        servers(&pod.probe(protocol, (family.cluster_ip(1), 80)));
        servers(&pod.probe(protocol, (family.lan(2), NODE_PORT)));
    }
    for protocol in Protocol::ALL {
        assert_eq!(denied(&shop, protocol, "source_ranges"), 2 * 2);
        assert_eq!(denied(&shop, protocol, "no_endpoints"), 0);
    }
    let (_, out, _) = run(&shop, &["top", "--once", "--interval", "0.1"]);
    let row = out
        .lines()
        .find(|line| line.contains("denied: source not in the ranges "));
    assert!(row.is_some_and(|row| row.ends_with(" 4")), "{out}");
    // Another endpoint changes the verdict for the others, and the counter stays.
    daemon.apply("shop.yaml", &endpoints(&[one, two]));
    refuse(pod, restricted, 1);
    daemon.apply("shop.yaml", &endpoints(&[]));
    refuse(client, restricted, 1);
    refuse(pod, restricted, 1);
    for protocol in Protocol::ALL {
        assert_eq!(denied(&shop, protocol, "source_ranges"), 2 * (2 + 1 + 1));
        assert_eq!(denied(&shop, protocol, "no_endpoints"), 2);
    }
    let expected = json!({"no_endpoints": 2, "source_ranges": 8});
    wait_until("the page shows the same", || {
        counted(&shop)["denied"]["shop/cart:http-tcp"] == expected
    });
}

fn the_shares_of_endpoints_are_sampled() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    let _daemon = shop.start(&(cart().node_port(NODE_PORT).yaml() + &slices));
    let client = &shop.cluster.client;
    let sampled = || counted(&shop)["sampled"]["shop/cart:http-tcp"].clone();
    // The thread samples while somebody reads.
    wait_until("both endpoints of both families are sampled", || {
        for family in Family::ALL {
            client
                .probe(Protocol::Tcp, (family.cluster_ip(1), 80))
                .send_times(10);
            client
                .probe(Protocol::Tcp, (family.lan(2), NODE_PORT))
                .send_times(10);
        }
        sampled().as_object().is_some_and(|of| of.len() == 4)
    });
    for family in Family::ALL {
        for pod in shop.pods(["pod-1", "remote-1"]) {
            let endpoint = std::net::SocketAddr::new(pod.ip(family), 8080);
            assert!(
                sampled()[endpoint.to_string()].as_u64() > Some(0),
                "{endpoint}"
            );
            let labels = format!(
                "namespace=\"shop\",service=\"cart\",port_name=\"http-tcp\",endpoint=\"{endpoint}\""
            );
            let name = format!("kube_dnat_endpoint_connections_sampled_total{{{labels}}}");
            let (_, metrics) = on_loopback(&shop, "/metrics");
            assert!(value(&metrics, &name) > Some(0.0), "{metrics}");
        }
    }
    // Only endpoints of Services.
    assert!(
        sampled()
            .get(format!("{}:8080", Ipv4Addr::LOCALHOST))
            .is_none()
    );
}
