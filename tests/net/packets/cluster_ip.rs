//! `ClusterIPs`: every ready endpoint is drawn, with equal probability.

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{Shop, cart, cart_slices};
use super::{Family, Host, Protocol, everywhere, names, servers};
use crate::lab::{Service, Slices, chi, manifest};

pub(super) fn tests() -> Vec<Trial> {
    use super::cluster_ip;
    crate::trials!(cluster_ip:
        a_pod_draws_local_and_remote_endpoints_with_equal_probability,
        the_node_itself_draws_endpoints_with_equal_probability,
        a_client_outside_draws_endpoints_with_equal_probability,
        a_named_port_leads_to_the_port_number_of_each_slice,
        tcp_and_udp_ports_with_one_number_are_distinct,
        an_endpoint_that_is_not_ready_is_never_drawn,
        services_with_one_port_number_are_distinct,
        an_endpoint_in_two_slices_is_drawn_as_often_as_the_others,
        endpoints_written_by_hand_may_be_outside_the_cluster,
    )
}

fn a_pod_draws_local_and_remote_endpoints_with_equal_probability() {
    let shop = Shop::new();
    draws_uniformly(&shop, shop.cluster.pod("pod-3"));
}

fn the_node_itself_draws_endpoints_with_equal_probability() {
    let shop = Shop::new();
    draws_uniformly(&shop, &shop.cluster.node);
}

fn a_client_outside_draws_endpoints_with_equal_probability() {
    let shop = Shop::new();
    draws_uniformly(&shop, &shop.cluster.client);
}

fn draws_uniformly(shop: &Shop, source: &Host) {
    let endpoints = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let _daemon = shop.start(&(cart().yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        let probe = source.probe(protocol, (family.cluster_ip(1), 80));
        let tally = probe.send_times(2_000);
        chi::assert_uniform(
            &tally,
            &["pod-1:8080", "pod-2:8080", "remote-1:8080"],
            &probe.to_string(),
        );
    }
}

fn a_named_port_leads_to_the_port_number_of_each_slice() {
    let shop = Shop::new();
    let [old, new] = shop.pods(["pod-1", "remote-1"]);
    let _more = [old.serve(8443), new.serve(9080), new.serve(9443)];
    let slices = |name: &str| Slices::of("shop/cart").named(name);
    let _daemon = shop.start(
        &(cart().both("https", 443).yaml()
            + &slices("old")
                .both("http", 8080)
                .both("https", 8443)
                .ready([old])
                .yaml()
            + &slices("new")
                .both("https", 9443)
                .both("http", 9080)
                .ready([new])
                .yaml()),
    );
    for (family, protocol) in everywhere() {
        let probe = |port| {
            shop.cluster
                .pod("pod-3")
                .probe(protocol, (family.cluster_ip(1), port))
        };
        assert_eq!(
            servers(&probe(80)),
            names(["pod-1:8080", "remote-1:9080"]),
            "{}",
            probe(80)
        );
        assert_eq!(
            servers(&probe(443)),
            names(["pod-1:8443", "remote-1:9443"]),
            "{}",
            probe(443)
        );
    }
}

fn tcp_and_udp_ports_with_one_number_are_distinct() {
    let shop = Shop::new();
    let pod = shop.cluster.pod("pod-1");
    let _more = [pod.serve(5353), pod.serve(5300)];
    let dns = |service: Service| {
        service
            .port("dns", Protocol::Udp, 53)
            .port("dns-tcp", Protocol::Tcp, 53)
    };
    let slices = Slices::of("kube-system/dns")
        .port("dns", Protocol::Udp, 5300)
        .port("dns-tcp", Protocol::Tcp, 5353);
    let _daemon = shop
        .start(&(dns(Service::new("kube-system/dns", 10)).yaml() + &slices.ready([pod]).yaml()));
    for family in Family::ALL {
        let probe = |protocol| {
            shop.cluster
                .pod("pod-3")
                .probe(protocol, (family.cluster_ip(10), 53))
        };
        assert_eq!(
            servers(&probe(Protocol::Tcp)),
            names(["pod-1:5353"]),
            "{family}"
        );
        assert_eq!(
            servers(&probe(Protocol::Udp)),
            names(["pod-1:5300"]),
            "{family}"
        );
    }
}

fn an_endpoint_that_is_not_ready_is_never_drawn() {
    let shop = Shop::new();
    let [ready, unready, unsaid] = shop.pods(["pod-1", "pod-2", "remote-1"]);
    let slices = cart_slices([ready])
        .with([unready], &json!({ "ready": false }))
        .with([unsaid], &json!({}));
    let _daemon = shop.start(&(cart().yaml() + &slices.yaml()));
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .pod("pod-3")
            .probe(protocol, (family.cluster_ip(1), 80));
        assert_eq!(
            servers(&probe),
            names(["pod-1:8080", "remote-1:8080"]),
            "{probe}"
        );
    }
}

fn services_with_one_port_number_are_distinct() {
    let shop = Shop::new();
    let [first, second] = shop.pods(["pod-1", "pod-2"]);
    let other = Service::new("shop/list", 2).both("http", 80);
    let other_slices = Slices::of("shop/list").both("http", 8080).ready([second]);
    let _daemon = shop.start(
        &(cart().yaml() + &cart_slices([first]).yaml() + &other.yaml() + &other_slices.yaml()),
    );
    for (family, protocol) in everywhere() {
        let probe = |n| {
            shop.cluster
                .pod("pod-3")
                .probe(protocol, (family.cluster_ip(n), 80))
        };
        assert_eq!(servers(&probe(1)), names(["pod-1:8080"]), "{}", probe(1));
        assert_eq!(servers(&probe(2)), names(["pod-2:8080"]), "{}", probe(2));
    }
}

fn an_endpoint_in_two_slices_is_drawn_as_often_as_the_others() {
    let shop = Shop::new();
    let [twice, once] = shop.pods(["pod-1", "pod-2"]);
    let slices = cart_slices([twice, once]).yaml() + &cart_slices([twice]).named("moved").yaml();
    let _daemon = shop.start(&(cart().yaml() + &slices));
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .pod("pod-3")
            .probe(protocol, (family.cluster_ip(1), 80));
        chi::assert_uniform(
            &probe.send_times(500),
            &["pod-1:8080", "pod-2:8080"],
            &probe.to_string(),
        );
    }
}

fn endpoints_written_by_hand_may_be_outside_the_cluster() {
    let shop = Shop::new();
    let host = &shop.cluster.other_node;
    let _database = host.serve(5432);
    let endpoints = manifest::endpoints(
        "shop/cart",
        &Family::ALL.map(|family| host.ip(family)),
        5432,
    );
    let _daemon = shop.start(&(cart().yaml() + &endpoints));
    for (family, protocol) in everywhere() {
        for source in [
            shop.cluster.pod("pod-3"),
            &shop.cluster.node,
            &shop.cluster.client,
        ] {
            let probe = source.probe(protocol, (family.cluster_ip(1), 80));
            assert_eq!(servers(&probe), names(["node-2:5432"]), "{probe}");
        }
    }
}
