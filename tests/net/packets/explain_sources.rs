//! `kube-dnat explain` agrees with the packets in every mode of local detection and from every
//! source.

use libtest_mimic::Trial;
use serde_json::json;

use super::explain::{agrees, agrees_from, run, sources};
use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Daemon, Family, Protocol, everywhere};
use crate::lab::{Service, Slices, manifest};

pub(super) fn tests() -> Vec<Trial> {
    use super::explain_sources;
    crate::trials!(explain_sources:
        explain_agrees_in_every_mode_of_local_detection,
        explain_agrees_with_local_detection_by_interface,
        explain_agrees_from_every_address_of_the_node,
        explain_agrees_from_the_loopback,
        an_endpoint_that_is_the_node_itself,
        a_pod_that_is_its_own_only_endpoint,
        explain_agrees_on_every_node_port_address,
        internal_policy_local_and_several_ports,
        affinity_with_policy_local,
        ranges_of_sources_that_overlap,
    )
}

fn start<'a>(shop: &'a Shop, manifests: &str, flags: &[&str]) -> Daemon<'a> {
    shop.manifests.write("shop.yaml", manifests);
    Daemon::start_with(&shop.cluster, &shop.manifests, flags)
}

fn cart_with(shop: &Shop, endpoints: [&str; 2], fields: &[(&str, serde_json::Value)]) -> String {
    let cart = fields
        .iter()
        .fold(cart_on_every_frontend(), |cart, (field, value)| {
            cart.spec(field, value.clone())
        });
    cart.yaml() + &cart_slices(shop.pods(endpoints)).yaml()
}

fn cluster_cidrs() -> String {
    Family::ALL.map(Family::cluster_cidr).join(",")
}

fn agrees_everywhere(shop: &Shop) {
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family) {
            for source in sources(shop) {
                agrees(shop, source, protocol, to);
            }
        }
    }
}

fn explain_agrees_in_every_mode_of_local_detection() {
    for flags in [
        &["--cluster-cidr", &cluster_cidrs(), "--masquerade-all"][..],
        &["--masquerade-all"],
        &[],
        &["--detect-local-mode", "NodeCIDR"],
    ] {
        for policy in ["Cluster", "Local"] {
            let shop = Shop::new();
            let addresses = Family::ALL.map(|family| family.lan(2));
            let cidrs = Family::ALL.map(|family| family.pod_cidr(1));
            let node = manifest::node_with_pod_cidrs(&addresses, &cidrs);
            shop.manifests.write("node.yaml", &node);
            let manifests = cart_with(
                &shop,
                ["pod-1", "pod-2"],
                &[("externalTrafficPolicy", json!(policy))],
            );
            let _daemon = start(&shop, &manifests, flags);
            agrees_everywhere(&shop);
        }
    }
}

fn explain_agrees_with_local_detection_by_interface() {
    let shop = Shop::new();
    let flags = [
        "--detect-local-mode=InterfaceNamePrefix",
        "--pod-interface-name-prefix=pod-",
    ];
    let manifests = cart_with(
        &shop,
        ["pod-1", "remote-1"],
        &[("externalTrafficPolicy", json!("Local"))],
    );
    let _daemon = start(&shop, &manifests, &flags);
    let [client, pod, node, itself] = sources(&shop);
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family) {
            for (source, kind) in [
                (client, "elsewhere"),
                (pod, "pod"),
                (node, "node"),
                (itself, "pod"),
            ] {
                let from = (source, source.ip(family), Some(kind));
                agrees_from(&shop, from, protocol, to);
            }
        }
    }
}

fn explain_agrees_from_every_address_of_the_node() {
    for policy in ["Cluster", "Local"] {
        let shop = Shop::new();
        let manifests = cart_with(
            &shop,
            ["pod-1", "remote-1"],
            &[("externalTrafficPolicy", json!(policy))],
        );
        let _daemon = start(&shop, &manifests, &["--cluster-cidr", &cluster_cidrs()]);
        let node = &shop.cluster.node;
        for (family, protocol) in everywhere() {
            for (_, to) in frontends(family) {
                // The last address is in the range of Pods.
                for from in [
                    family.lan(2),
                    Cluster::secondary_ip(family),
                    family.pod(1, 1),
                ] {
                    agrees_from(&shop, (node, from, None), protocol, to);
                }
            }
        }
    }
}

fn an_endpoint_that_is_the_node_itself() {
    let shop = Shop::new();
    let node = &shop.cluster.node;
    let _server = node.serve(8080);
    for policy in ["Cluster", "Local"] {
        let service = cart_on_every_frontend().spec("externalTrafficPolicy", json!(policy));
        let slices = cart_slices([node, shop.cluster.pod("remote-1")]);
        let manifests = service.yaml() + &slices.yaml();
        let daemon = start(&shop, &manifests, &["--cluster-cidr", &cluster_cidrs()]);
        agrees_everywhere(&shop);
        // With one endpoint, the test also compares the source that the endpoint sees.
        let manifests = service.yaml() + &cart_slices([node]).yaml();
        daemon.apply("shop.yaml", &manifests);
        agrees_everywhere(&shop);
    }
}

fn a_pod_that_is_its_own_only_endpoint() {
    let shop = Shop::new();
    let manifests = cart_on_every_frontend().yaml() + &cart_slices(shop.pods(["pod-1"])).yaml();
    let _daemon = start(&shop, &manifests, &["--cluster-cidr", &cluster_cidrs()]);
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family) {
            agrees(&shop, shop.cluster.pod("pod-1"), protocol, to);
        }
    }
}

fn explain_agrees_on_every_node_port_address() {
    for ranges in [
        "192.168.77.0/24,fd00:77::/64",
        "10.244.0.0/16,fd00:10:244::/48",
        "primary",
    ] {
        let shop = Shop::new();
        let manifests = cart_with(&shop, ["pod-1", "remote-1"], &[]);
        let flags = [
            "--cluster-cidr",
            &cluster_cidrs(),
            "--nodeport-addresses",
            ranges,
        ];
        let _daemon = start(&shop, &manifests, &flags);
        for family in Family::ALL {
            for address in [family.lan(2), family.lan(3), family.pod(1, 1)] {
                // The outside client has no route to the node's address in the Pod CIDR.
                let outside = usize::from(address == family.pod(1, 1));
                for source in sources(&shop).into_iter().skip(outside) {
                    agrees(&shop, source, Protocol::Tcp, (address, NODE_PORT));
                }
            }
        }
    }
}

fn internal_policy_local_and_several_ports() {
    let shop = Shop::new();
    let _other_ports =
        [shop.cluster.pod("pod-2"), shop.cluster.pod("remote-2")].map(|pod| pod.serve(9090));
    let local = json!("Local");
    let here = Service::new("shop/here", 2)
        .port("http", Protocol::Tcp, 80)
        .port("admin", Protocol::Tcp, 90)
        .spec("internalTrafficPolicy", local.clone());
    let away = Service::new("shop/away", 3)
        .port("http", Protocol::Tcp, 80)
        .spec("internalTrafficPolicy", local);
    let slices = |name: &str| Slices::of(name).port("http", Protocol::Tcp, 8080);
    let manifests = here.yaml()
        + &away.yaml()
        + &slices("shop/here")
            .port("admin", Protocol::Tcp, 9090)
            .ready(shop.pods(["pod-2", "remote-2"]))
            .yaml()
        + &slices("shop/away").ready(shop.pods(["remote-1"])).yaml();
    let _daemon = start(&shop, &manifests, &["--cluster-cidr", &cluster_cidrs()]);
    for family in Family::ALL {
        for source in sources(&shop) {
            for (service, port) in [(2, 80), (2, 90), (2, 91), (3, 80)] {
                agrees(
                    &shop,
                    source,
                    Protocol::Tcp,
                    (family.cluster_ip(service), port),
                );
            }
        }
    }
}

fn affinity_with_policy_local() {
    let shop = Shop::new();
    let fields = [
        ("externalTrafficPolicy", json!("Local")),
        ("sessionAffinity", json!("ClientIP")),
    ];
    let _daemon = start(
        &shop,
        &cart_with(&shop, ["pod-1", "remote-1"], &fields),
        &["--cluster-cidr", &cluster_cidrs()],
    );
    let client = &shop.cluster.client;
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family).into_iter().skip(1) {
            agrees(&shop, client, protocol, to);
            agrees(&shop, client, protocol, to);
        }
    }
}

fn ranges_of_sources_that_overlap() {
    let shop = Shop::new();
    let ranges = [
        "192.168.77.0/24",
        "192.168.77.100/32",
        "192.168.0.0/16",
        "10.244.1.11/32",
        "fd00:77::/64",
        "fd00:77::64/128",
        "fd00:10:244:1::b/128",
    ];
    let manifests = cart_with(
        &shop,
        ["pod-1", "remote-1"],
        &[("loadBalancerSourceRanges", json!(ranges))],
    );
    let _daemon = start(&shop, &manifests, &["--cluster-cidr", &cluster_cidrs()]);
    agrees_everywhere(&shop);
}

fn explain_agrees_from_the_loopback() {
    let shop = Shop::new();
    let manifests = cart_with(&shop, ["pod-1", "remote-1"], &[]);
    let _daemon = start(&shop, &manifests, &["--cluster-cidr", &cluster_cidrs()]);
    for (family, from) in Family::ALL.into_iter().zip(["127.0.0.1", "::1"]) {
        let to = (family.cluster_ip(1), 80);
        let ip = from.parse().expect("an address");
        let probe = shop.cluster.node.probe(Protocol::Tcp, to).source_ip(ip);
        assert_eq!(probe.clone().briefly().send().server(), None, "{probe}");
        let (code, _, error) = run(&shop, &["explain", "shop/cart", "--from", from]);
        assert_eq!(code, 1, "{error}");
        assert!(error.contains("is a loopback address"), "{error}");
    }
}
