//! Invalid objects affect no other objects; the older of two Services keeps a contested frontend.

use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{NODE_PORT, Shop, cart, cart_slices};
use super::{Daemon, Protocol, everywhere, names, servers};
use crate::lab::{Service, Slices};

pub(super) fn tests() -> Vec<Trial> {
    use super::bad_input;
    crate::trials!(bad_input:
        a_malformed_service_is_reported_once_and_affects_no_other,
        an_endpoint_with_an_invalid_address_affects_no_other,
        slices_without_a_service_affect_no_other,
        a_file_that_does_not_parse_keeps_its_last_good_content,
        a_file_without_objects_is_valid,
        the_older_service_keeps_a_contested_node_port_until_it_is_deleted,
        the_older_service_keeps_a_contested_external_ip_until_it_is_deleted,
        between_services_of_one_age_the_first_name_keeps_a_contested_node_port,
    )
}

/// Returns the warnings and errors that contain a name.
fn diagnostics(daemon: &Daemon<'_>, name: &str) -> Vec<String> {
    let warnings = daemon.warnings().into_iter();
    warnings.filter(|line| line.contains(name)).collect()
}

/// Asserts that `shop/cart` is served by `pod-1` to a Pod and through its node port.
fn assert_cart_is_served(shop: &Shop) {
    for (family, protocol) in everywhere() {
        let inside = shop
            .cluster
            .pod("pod-3")
            .probe(protocol, (family.cluster_ip(1), 80));
        let outside = shop
            .cluster
            .client
            .probe(protocol, (family.lan(2), NODE_PORT));
        for probe in [inside, outside] {
            assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
        }
    }
}

fn good_cart(shop: &Shop) -> String {
    cart().node_port(NODE_PORT).yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()
}

fn a_malformed_service_is_reported_once_and_affects_no_other() {
    let shop = Shop::new();
    let broken = [
        Service::new("shop/zero", 2).port("http", Protocol::Tcp, 0),
        Service::new("shop/no-address", 3)
            .both("http", 80)
            .spec("clusterIPs", json!(["10.96.0.300"]))
            .spec("clusterIP", json!("10.96.0.300")),
        Service::new("shop/no-protocol", 4).port("http", "QUIC", 80),
        Service::new("shop/no-number", 5)
            .spec("ports", json!([{ "name": "http", "port": "eighty" }])),
    ];
    let daemon =
        shop.start(&(broken.iter().map(Service::yaml).collect::<String>() + &good_cart(&shop)));
    assert_cart_is_served(&shop);
    daemon.apply(
        "more.yaml",
        &Service::new("shop/list", 9).both("http", 80).yaml(),
    );
    for name in [
        "shop/zero",
        "shop/no-address",
        "shop/no-protocol",
        "shop/no-number",
    ] {
        let diagnostics = diagnostics(&daemon, name);
        assert_eq!(diagnostics.len(), 1, "{name}: {diagnostics:#?}");
    }
}

fn an_endpoint_with_an_invalid_address_affects_no_other() {
    let shop = Shop::new();
    let [good] = shop.pods(["pod-1"]);
    let slice = |name: &str, kind: &str, address: &str| {
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "namespace": "shop", "name": name, "labels": { "kubernetes.io/service-name": "cart" } },
            "addressType": kind,
            "ports": [{ "name": "http-tcp", "port": 8080 }, { "name": "http-udp", "port": 8080, "protocol": "UDP" }],
            "endpoints": [{ "addresses": [address] }],
        });
        format!("---\n{object}\n")
    };
    let broken = slice("cart-unparsable", "IPv4", "10.244.1")
        + &slice("cart-of-another-family", "IPv4", "fd00:10:244:1::9");
    let service = cart().node_port(NODE_PORT).yaml();
    let _daemon = shop.start(&(service + &broken + &cart_slices([good]).yaml()));
    assert_cart_is_served(&shop);
}

fn slices_without_a_service_affect_no_other() {
    let shop = Shop::new();
    let [good, other] = shop.pods(["pod-1", "pod-2"]);
    let orphan = Slices::of("shop/missing")
        .both("http", 8080)
        .ready([other])
        .yaml();
    let unlabelled = orphan
        .replace("kubernetes.io/service-name", "example.com/none")
        .replace("missing-", "none-");
    let service = cart().node_port(NODE_PORT).yaml();
    let daemon = shop.start(&(orphan + &unlabelled + &service + &cart_slices([good]).yaml()));
    assert_cart_is_served(&shop);
    // A Service can arrive after its slices.
    daemon.apply(
        "late.yaml",
        &Service::new("shop/missing", 7).both("http", 80).yaml(),
    );
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .pod("pod-3")
            .probe(protocol, (family.cluster_ip(7), 80));
        assert_eq!(servers(&probe), names(["pod-2:8080"]), "{probe}");
    }
}

fn a_file_that_does_not_parse_keeps_its_last_good_content() {
    let shop = Shop::new();
    let daemon = shop.start(&good_cart(&shop));
    daemon.apply(
        "shop.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: { name: [cart\n",
    );
    assert_cart_is_served(&shop);
    let diagnostics = diagnostics(&daemon, "shop.yaml");
    assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
    for place in ["line=", "column="] {
        assert!(
            diagnostics.iter().any(|line| line.contains(place)),
            "{diagnostics:?}"
        );
    }
}

fn a_file_without_objects_is_valid() {
    let shop = Shop::new();
    for empty in ["", "# nothing yet\n", "---\n---\n"] {
        let daemon = shop.start(&good_cart(&shop));
        assert_cart_is_served(&shop);
        daemon.apply("shop.yaml", empty);
        assert_eq!(
            diagnostics(&daemon, "shop.yaml"),
            Vec::<String>::new(),
            "{empty:?}"
        );
        for (family, protocol) in everywhere() {
            let client = &shop.cluster.client;
            let probe = client.probe(protocol, (family.lan(2), NODE_PORT)).briefly();
            assert!(probe.send().is_refused_at_once(), "{probe} after {empty:?}");
        }
    }
}

/// Builds two Services that claim the same frontend, the older first, each with its own endpoint.
fn contest(shop: &Shop, claim: impl Fn(Service) -> Service) -> [String; 2] {
    let [first, second] = shop.pods(["pod-1", "pod-2"]);
    let older =
        claim(Service::new("shop/older", 2).both("http", 80)).created("2024-01-01T00:00:00Z");
    // By its name this Service would be the first.
    let younger =
        claim(Service::new("shop/a-younger", 3).both("http", 80)).created("2024-01-01T00:00:01Z");
    let slices = |name: &str, pod| Slices::of(name).both("http", 8080).ready([pod]).yaml();
    [
        older.yaml() + &slices("shop/older", first),
        younger.yaml() + &slices("shop/a-younger", second),
    ]
}

/// Asserts that the older Service keeps the contested frontend until it is deleted.
///
/// Each Service is served at its own `ClusterIP` all the time.
fn assert_older_wins(
    shop: &Shop,
    [older, younger]: [String; 2],
    to: impl Fn(crate::lab::Family) -> (std::net::IpAddr, u16),
) {
    let daemon = shop.start("");
    let assert_served = |expected: &str, when: &str| {
        for (family, protocol) in everywhere() {
            let probe = shop.cluster.client.probe(protocol, to(family));
            assert_eq!(servers(&probe), names([expected]), "{probe} {when}");
            let own = shop
                .cluster
                .pod("pod-3")
                .probe(protocol, (family.cluster_ip(3), 80));
            assert_eq!(servers(&own), names(["pod-2:8080"]), "{own} {when}");
        }
    };
    daemon.apply("younger.yaml", &younger);
    assert_served("pod-2:8080", "while it is the only one");
    daemon.apply("older.yaml", &older);
    assert_served("pod-1:8080", "after the older was added");
    let diagnostics = diagnostics(&daemon, "shop/a-younger");
    assert!(
        !diagnostics.is_empty(),
        "the Service that lost a frontend is reported"
    );
    daemon.remove("older.yaml");
    assert_served("pod-2:8080", "after the older was deleted");
}

fn the_older_service_keeps_a_contested_node_port_until_it_is_deleted() {
    let shop = Shop::new();
    let contest = contest(&shop, |service| service.node_port(NODE_PORT));
    assert_older_wins(&shop, contest, |family| (family.lan(2), NODE_PORT));
}

fn the_older_service_keeps_a_contested_external_ip_until_it_is_deleted() {
    let shop = Shop::new();
    let contest = contest(&shop, |service| service.external_ip(1));
    assert_older_wins(&shop, contest, |family| (family.external_ip(1), 80));
}

fn between_services_of_one_age_the_first_name_keeps_a_contested_node_port() {
    let shop = Shop::new();
    let [first, second] = shop.pods(["pod-1", "pod-2"]);
    let service = |name: &str, n| {
        Service::new(name, n)
            .both("http", 80)
            .node_port(NODE_PORT)
            .yaml()
    };
    let slices = |name: &str, pod| Slices::of(name).both("http", 8080).ready([pod]).yaml();
    let _daemon = shop.start(
        &(service("shop/b", 3)
            + &slices("shop/b", second)
            + &service("shop/a", 2)
            + &slices("shop/a", first)),
    );
    for (family, protocol) in everywhere() {
        let probe = shop
            .cluster
            .client
            .probe(protocol, (family.lan(2), NODE_PORT));
        assert_eq!(servers(&probe), names(["pod-1:8080"]), "{probe}");
    }
}
