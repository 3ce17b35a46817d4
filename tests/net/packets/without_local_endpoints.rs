//! Outside clients of external policy Local while no endpoint is on the node
//! (`--external-local-without-endpoints`).

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::explain::agrees;
use super::health_check::answer;
use super::services::rows;
use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Daemon, Family, Probe, everywhere, names, servers};
use crate::lab::{Outcome, Service};

pub(super) fn tests() -> Vec<Trial> {
    use super::without_local_endpoints;
    crate::trials!(without_local_endpoints:
        outside_clients_are_refused_at_once_and_others_served,
        a_restart_with_the_flag_changes_the_answer,
        the_annotation_decides_for_its_service,
    )
}

const HEALTH_CHECK: u16 = 32_000;

fn local() -> Service {
    cart_on_every_frontend()
        .spec("externalTrafficPolicy", json!("Local"))
        .spec("healthCheckNodePort", json!(HEALTH_CHECK))
}

/// Starts kube-dnat with the flag.
fn start<'a>(shop: &'a Shop, answer: &str) -> Daemon<'a> {
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flag = format!("--external-local-without-endpoints={answer}");
    Daemon::start_with(
        &shop.cluster,
        &shop.manifests,
        &["--cluster-cidr", &cidrs, &flag],
    )
}

/// Returns probes of outside clients to the frontends with the external policy.
fn outside(shop: &Shop) -> Vec<Probe<'_>> {
    let sources = [&shop.cluster.client, shop.cluster.pod("remote-2")];
    everywhere()
        .flat_map(|(family, protocol)| {
            let [_, external @ ..] = frontends(family);
            external.map(|(_, to)| sources.map(|source| source.probe(protocol, to)))
        })
        .flatten()
        .collect()
}

/// Returns the results of the external frontends in `services`.
fn results(shop: &Shop) -> Vec<String> {
    let rows = rows(shop, &[]);
    let external = rows.values().filter(|row| row["kind"] != "ClusterIP");
    let result = |row: &Value| row["result"].as_str().unwrap_or_default().to_owned();
    external.map(result).collect()
}

fn outside_clients_are_refused_at_once_and_others_served() {
    let shop = Shop::new();
    let elsewhere = cart_slices(shop.pods(["remote-1"]));
    shop.manifests
        .write("shop.yaml", &(local().yaml() + &elsewhere.yaml()));
    let daemon = start(&shop, "reject");
    let probes = outside(&shop);
    for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
        assert!(outcome.is_refused_at_once(), "{probe}: {outcome:?}");
    }
    for (family, protocol) in everywhere() {
        let to = (family.lan(2), NODE_PORT);
        for source in [shop.cluster.pod("pod-3"), &shop.cluster.node] {
            assert_eq!(
                servers(&source.probe(protocol, to)),
                names(["remote-1:8080"])
            );
            agrees(&shop, source, protocol, to);
        }
        agrees(&shop, &shop.cluster.client, protocol, to);
        // The load balancer still learns that this node has no endpoint.
        answer(&shop, family, HEALTH_CHECK, "503");
    }
    let rejected = results(&shop);
    assert!(
        rejected
            .iter()
            .all(|result| result == "rejectedFromOutside"),
        "{rejected:?}"
    );
    let here = cart_slices(shop.pods(["pod-1", "remote-1"]));
    daemon.apply("shop.yaml", &(local().yaml() + &here.yaml()));
    for probe in &probes {
        assert_eq!(servers(probe), names(["pod-1:8080"]), "{probe}");
    }
}

fn a_restart_with_the_flag_changes_the_answer() {
    let shop = Shop::new();
    let elsewhere = cart_slices(shop.pods(["remote-1"]));
    shop.manifests
        .write("shop.yaml", &(local().yaml() + &elsewhere.yaml()));
    let probes: Vec<_> = outside(&shop).into_iter().map(Probe::briefly).collect();
    for answer in ["drop", "reject", "drop"] {
        let _daemon = start(&shop, answer);
        for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
            let is_expected = match answer {
                "drop" => matches!(outcome, Outcome::TimedOut),
                _ => outcome.is_refused_at_once(),
            };
            assert!(is_expected, "{answer}: {probe}: {outcome:?}");
        }
    }
}

fn the_annotation_decides_for_its_service() {
    let shop = Shop::new();
    let elsewhere = cart_slices(shop.pods(["remote-1"]));
    let manifests = |value: &str| {
        let annotated = local().annotation("external-local-without-endpoints", value);
        annotated.yaml() + &elsewhere.yaml()
    };
    let probes: Vec<_> = outside(&shop).into_iter().map(Probe::briefly).collect();
    let dropped = |value: &str| {
        for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
            assert!(
                matches!(outcome, Outcome::TimedOut),
                "{value}: {probe}: {outcome:?}"
            );
        }
    };
    let daemon = shop.start(&manifests("drop"));
    dropped("drop");
    daemon.apply("shop.yaml", &manifests("reject"));
    for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
        assert!(outcome.is_refused_at_once(), "{probe}: {outcome:?}");
    }
    daemon.apply("shop.yaml", &manifests("refuse"));
    dropped("a bad value");
    let diagnostics = || daemon.diagnostics("Service shop/cart", "InvalidAnnotation");
    assert_eq!(diagnostics().len(), 1, "{:?}", diagnostics());
    // With external policy Cluster, the annotation contradicts the Service.
    let cluster = cart_on_every_frontend().annotation("external-local-without-endpoints", "reject");
    daemon.apply("shop.yaml", &(cluster.yaml() + &elsewhere.yaml()));
    for (probe, outcome) in probes.iter().zip(Probe::send_all(&probes)) {
        assert_eq!(outcome.server(), Some("remote-1:8080"), "{probe}");
    }
    let diagnostics = diagnostics();
    assert_eq!(diagnostics.len(), 2, "{diagnostics:?}");
    let problem = "externalTrafficPolicy Local does not apply to the Service";
    assert!(diagnostics[1].contains(problem), "{diagnostics:?}");
}
