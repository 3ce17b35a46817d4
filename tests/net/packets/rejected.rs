//! Services that the kernel rejects: kube-dnat skips such a Service, serves the others, and retries
//! until the kernel accepts it. The tests damage the daemon's netlink messages, so that the real
//! kernel rejects them.

use std::collections::BTreeSet;

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;
use serde_json::json;

use super::admin::{await_sync, health};
use super::health_check;
use super::shop::{NODE_PORT, Shop, cart, cart_on_every_frontend, cart_slices, frontends};
use super::silence::objects_not_served;
use super::{Daemon, Family, Host, IpAddr, Protocol, names, servers};
use crate::lab::{Reject, Service, Slices, nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::rejected;
    crate::trials!(rejected:
        other_services_change_and_the_rejected_one_keeps_its_state,
        frontends_that_a_rejected_service_loses_serve_another,
        shared_elements_stay_while_a_rejected_service_has_them,
        a_rejected_service_is_deleted_completely,
        a_rejected_service_is_served_once_the_kernel_accepts_it,
        a_start_with_a_rejected_service_serves_the_others,
    )
}

const CHECK: u16 = 32_100;

/// Another Service, which outside clients reach at local endpoints only.
fn web() -> Service {
    Service::new("shop/web", 2)
        .both("http", 80)
        .load_balancer_ip(2)
        .spec("externalTrafficPolicy", json!("Local"))
        .spec("healthCheckNodePort", json!(CHECK))
}

fn web_slices(shop: &Shop, pods: &[&str]) -> String {
    let pods = pods.iter().map(|name| shop.cluster.pod(name));
    Slices::of("shop/web").both("http", 8080).ready(pods).yaml()
}

fn with_cart(shop: &Shop, pods: &[&str]) -> String {
    let pods = pods.iter().map(|name| shop.cluster.pod(name));
    cart_on_every_frontend().yaml() + &cart_slices(pods).yaml()
}

fn start<'a>(shop: &'a Shop, reject: &Reject, cart: &str) -> Daemon<'a> {
    shop.manifests.write("shop.yaml", cart);
    let web = web().yaml() + &web_slices(shop, &["pod-2"]);
    shop.manifests.write("web.yaml", &web);
    Daemon::start_in(&shop.cluster, &shop.manifests, &reject.environment())
}

/// Asserts that these Pods answer at an address, in both families and protocols.
#[track_caller]
fn assert_served(from: &Host, at: impl Fn(Family) -> (IpAddr, u16), by: &[&str]) {
    let wanted: BTreeSet<_> = by.iter().map(|pod| format!("{pod}:8080")).collect();
    for (family, protocol) in super::everywhere() {
        let probe = from.probe(protocol, at(family));
        assert_eq!(servers(&probe), wanted, "{probe}");
    }
}

#[track_caller]
fn assert_cart_served(shop: &Shop, by: &[&str]) {
    for number in 0..4 {
        assert_served(
            &shop.cluster.client,
            |family| frontends(family)[number].1,
            by,
        );
    }
}

/// Returns how often the daemon logged that it skips the cart.
fn skipped(daemon: &Daemon<'_>) -> usize {
    let lines = daemon.logged(LogEvent::ServiceSkipped);
    assert_eq!(
        daemon.diagnostics("Service shop/cart", "RejectedByKernel"),
        lines
    );
    lines.len()
}

/// Asserts that one Service is skipped, that the daemon logged it once, and that the daemon is
/// healthy.
#[track_caller]
fn assert_known(shop: &Shop, daemon: &Daemon<'_>) {
    wait_until("the rejected Service is counted", || {
        await_sync(shop);
        (objects_not_served(shop, "RejectedByKernel") - 1.0).abs() < f64::EPSILON
    });
    assert_eq!(skipped(daemon), 1, "{:?}", daemon.warnings());
    let warnings = daemon.warnings().into_iter();
    let about_cart: Vec<_> = warnings.filter(|line| line.contains("shop/cart")).collect();
    assert_eq!(about_cart.len(), 1, "{about_cart:?}");
    for path in ["/livez", "/healthz", "/readyz"] {
        assert_eq!(health(shop, path).0, 200, "{path}");
    }
}

/// Waits for this number of retries. Each retry reads both tables twice: before and after the
/// kernel rejects the Service.
fn await_retries(daemon: &Daemon<'_>, times: usize) {
    let reads = || daemon.logged(LogEvent::TableRead).len();
    let before = reads();
    wait_until("the daemon retries", || reads() >= before + 4 * times);
}

fn other_services_change_and_the_rejected_one_keeps_its_state() {
    let shop = Shop::new();
    let reject = Reject::new();
    let daemon = start(&shop, &reject, &with_cart(&shop, &["pod-1"]));
    assert_cart_served(&shop, &["pod-1"]);
    reject.reject("shop/cart");
    daemon.apply("shop.yaml", &with_cart(&shop, &["pod-1", "pod-3"]));
    // Another Service changes together with the rejected one, and after it.
    let changes = [
        &["pod-2", "remote-1"][..],
        &["pod-2", "pod-3"],
        &["remote-1"],
    ];
    for (pods, local) in changes.into_iter().zip([1, 2, 0]) {
        daemon.apply("web.yaml", &(web().yaml() + &web_slices(&shop, pods)));
        assert_served(
            &shop.cluster.client,
            |family| (family.cluster_ip(2), 80),
            pods,
        );
        assert_cart_served(&shop, &["pod-1"]);
        let status = if local == 0 { "503" } else { "200" };
        for family in Family::ALL {
            let answer = health_check::answer(&shop, family, CHECK, status);
            let count = format!("\"localEndpoints\": {local},");
            assert!(answer.contains(&count), "{answer}");
            assert!(answer.contains("\"serviceProxyHealthy\": true"), "{answer}");
        }
        assert_known(&shop, &daemon);
    }
    let mail = Service::new("shop/mail", 3).both("smtp", 25);
    let slices = Slices::of("shop/mail")
        .both("smtp", 8080)
        .ready(shop.pods(["pod-2"]));
    daemon.apply("mail.yaml", &(mail.yaml() + &slices.yaml()));
    assert_served(
        &shop.cluster.client,
        |family| (family.cluster_ip(3), 25),
        &["pod-2"],
    );
    await_retries(&daemon, 2);
    assert_cart_served(&shop, &["pod-1"]);
    assert_known(&shop, &daemon);
}

fn frontends_that_a_rejected_service_loses_serve_another() {
    let shop = Shop::new();
    let reject = Reject::new();
    let daemon = start(&shop, &reject, &with_cart(&shop, &["pod-1"]));
    reject.reject("shop/cart");
    // The Service keeps its node port only.
    let less = cart().node_port(NODE_PORT).yaml();
    let slices = cart_slices(shop.pods(["pod-1", "pod-3"])).yaml();
    daemon.apply("shop.yaml", &(less + &slices));
    assert_known(&shop, &daemon);
    let other = Service::new("shop/other", 4)
        .both("http", 80)
        .external_ip(1);
    let others = Slices::of("shop/other")
        .both("http", 8080)
        .ready(shop.pods(["pod-2"]));
    daemon.apply("other.yaml", &(other.yaml() + &others.yaml()));
    for family in Family::ALL {
        let [cluster_ip, node_port, external_ip, load_balancer_ip] = frontends(family);
        let client = &shop.cluster.client;
        for protocol in Protocol::ALL {
            let probe = |(_, to)| client.probe(protocol, to);
            assert_eq!(servers(&probe(cluster_ip)), names(["pod-1:8080"]));
            assert_eq!(servers(&probe(node_port)), names(["pod-1:8080"]));
            assert_eq!(servers(&probe(external_ip)), names(["pod-2:8080"]));
            let past = probe(load_balancer_ip).send();
            assert_eq!(past.server(), Some("gateway"), "{past:?}");
        }
    }
    assert_known(&shop, &daemon);
}

/// A rejected Service shares its `ClusterIPs` and its endpoint, which reaches itself, with another
/// Service. The test removes the other Service.
fn shared_elements_stay_while_a_rejected_service_has_them() {
    let shop = Shop::new();
    let reject = Reject::new();
    let daemon = start(&shop, &reject, &with_cart(&shop, &["pod-1"]));
    let mail = Service::new("shop/mail", 1).both("smtp", 25);
    let slices = Slices::of("shop/mail")
        .both("smtp", 8080)
        .ready(shop.pods(["pod-1"]));
    daemon.apply("mail.yaml", &(mail.yaml() + &slices.yaml()));
    reject.reject("shop/cart");
    daemon.apply("shop.yaml", &with_cart(&shop, &["pod-1", "pod-3"]));
    assert_known(&shop, &daemon);
    daemon.remove("mail.yaml");
    let endpoint = shop.cluster.pod("pod-1");
    assert_served(endpoint, |family| (family.cluster_ip(1), 80), &["pod-1"]);
    for (family, protocol) in super::everywhere() {
        let probe = endpoint.probe(protocol, (family.cluster_ip(1), 25));
        assert!(probe.send().is_refused_at_once(), "{probe}");
    }
    daemon.remove("shop.yaml");
    assert_no_cluster_ip(&shop);
}

/// Asserts that the ClusterIP of the rejected Service is in no set.
fn assert_no_cluster_ip(shop: &Shop) {
    let node = &shop.cluster.node.namespace;
    for family in Family::ALL {
        let address = family.cluster_ip(1).to_string();
        let is_there = nft::has_element(node, family.table(), "cluster-ips", &address);
        assert!(!is_there, "{address}");
    }
}

fn a_rejected_service_is_deleted_completely() {
    let shop = Shop::new();
    let reject = Reject::new();
    let daemon = start(&shop, &reject, &with_cart(&shop, &["pod-1"]));
    reject.reject("shop/cart");
    daemon.apply("shop.yaml", &with_cart(&shop, &["pod-1", "pod-3"]));
    assert_known(&shop, &daemon);
    await_retries(&daemon, 1);
    daemon.remove("shop.yaml");
    await_sync(&shop);
    let node = &shop.cluster.node.namespace;
    let listing = nft::list(node);
    assert!(!listing.contains("shop/cart"), "{listing}");
    assert_no_cluster_ip(&shop);
    for family in Family::ALL {
        // No other Service has this endpoint.
        let address = shop.cluster.pod("pod-1").ip(family).to_string();
        assert!(!listing.contains(&address), "{address} in {listing}");
    }
    assert!(objects_not_served(&shop, "RejectedByKernel").abs() < f64::EPSILON);
    // The Service returns and is rejected again, so the daemon logs it again.
    daemon.apply("shop.yaml", &with_cart(&shop, &["pod-1"]));
    wait_until("the rejection is logged again", || skipped(&daemon) == 2);
    assert!(!nft::list(node).contains("shop/cart"));
}

fn a_rejected_service_is_served_once_the_kernel_accepts_it() {
    let shop = Shop::new();
    let reject = Reject::new();
    let daemon = start(&shop, &reject, "");
    reject.reject("shop/cart");
    daemon.apply("shop.yaml", &with_cart(&shop, &["pod-1", "pod-3"]));
    assert_known(&shop, &daemon);
    assert!(!nft::list(&shop.cluster.node.namespace).contains("shop/cart"));
    await_retries(&daemon, 1);
    reject.accept();
    wait_until("the kernel accepts the Service", || {
        daemon.logged(LogEvent::ServiceProgrammed).len() == 1
    });
    await_sync(&shop);
    assert_cart_served(&shop, &["pod-1", "pod-3"]);
    assert!(objects_not_served(&shop, "RejectedByKernel").abs() < f64::EPSILON);
    // The next change of the Service is programmed as usual.
    daemon.apply("shop.yaml", &with_cart(&shop, &["pod-3"]));
    assert_cart_served(&shop, &["pod-3"]);
    assert_eq!(skipped(&daemon), 1);
}

fn a_start_with_a_rejected_service_serves_the_others() {
    let shop = Shop::new();
    let reject = Reject::new();
    reject.reject("shop/cart");
    let daemon = start(&shop, &reject, &with_cart(&shop, &["pod-1"]));
    assert_known(&shop, &daemon);
    assert_served(
        &shop.cluster.client,
        |family| (family.cluster_ip(2), 80),
        &["pod-2"],
    );
    // A rejected Service that an earlier process programmed stays unchanged.
    reject.accept();
    wait_until("the kernel accepts the Service", || {
        objects_not_served(&shop, "RejectedByKernel").abs() < f64::EPSILON
    });
    assert_cart_served(&shop, &["pod-1"]);
    daemon.kill();
    reject.reject("shop/cart");
    let daemon = start(&shop, &reject, &with_cart(&shop, &["pod-3"]));
    assert_known(&shop, &daemon);
    assert_cart_served(&shop, &["pod-1"]);
}
