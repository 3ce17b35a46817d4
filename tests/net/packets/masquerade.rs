//! Masquerade: the source that an endpoint sees, as in kube-proxy with traffic policy Cluster.

use libtest_mimic::Trial;

use super::shop::{Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Daemon, Family, Probe, Protocol, everywhere};
use crate::lab::Answer;

pub(super) fn tests() -> Vec<Trial> {
    use super::masquerade;
    crate::trials!(masquerade:
        with_a_cluster_cidr_only_pods_on_cluster_ips_keep_their_source,
        without_a_cluster_cidr_every_source_is_kept_on_cluster_ips,
    )
}

/// A source of connections: its name, and a function that returns a probe from it.
type Source = (
    &'static str,
    fn(&Cluster, Family, Protocol, (std::net::IpAddr, u16)) -> Probe<'_>,
);

/// The sources of connections. The node uses its second address, because masquerade changes the
/// address to the first one, which the server sees.
const SOURCES: [Source; 4] = [
    ("a Pod of this node", |cluster, _, protocol, to| {
        cluster.pod("pod-3").probe(protocol, to)
    }),
    ("a Pod of another node", |cluster, _, protocol, to| {
        cluster.pod("remote-2").probe(protocol, to)
    }),
    ("the node itself", |cluster, family, protocol, to| {
        cluster
            .node
            .probe(protocol, to)
            .source_ip(Cluster::secondary_ip(family))
    }),
    ("a client outside", |cluster, _, protocol, to| {
        cluster.client.probe(protocol, to)
    }),
];

fn with_a_cluster_cidr_only_pods_on_cluster_ips_keep_their_source() {
    let shop = Shop::new();
    for endpoint in ["pod-1", "remote-1"] {
        let _daemon = shop
            .start(&(cart_on_every_frontend().yaml() + &cart_slices(shop.pods([endpoint])).yaml()));
        for ((family, protocol), (source, probe)) in
            everywhere().flat_map(|each| SOURCES.map(|source| (each, source)))
        {
            for (frontend, to) in frontends(family) {
                let is_pod = source.starts_with("a Pod");
                if source == "a Pod of another node"
                    && frontend == "ClusterIP"
                    && endpoint == "remote-1"
                {
                    // The answer does not pass node-1, because both Pods are on node-2.
                    continue;
                }
                let answer = probe(&shop.cluster, family, protocol, to).send().answer();
                let context = format!("{protocol} from {source} to a {family} {frontend}");
                assert_eq!(answer.server, format!("{endpoint}:8080"), "{context}");
                assert_source(&answer, is_pod && frontend == "ClusterIP", &context);
            }
        }
    }
}

fn without_a_cluster_cidr_every_source_is_kept_on_cluster_ips() {
    let shop = Shop::new();
    shop.manifests.write(
        "shop.yaml",
        &(cart_on_every_frontend().yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()),
    );
    let _daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &[]);
    for ((family, protocol), (source, probe)) in
        everywhere().flat_map(|each| SOURCES.map(|source| (each, source)))
    {
        for (frontend, to) in frontends(family) {
            let answer = probe(&shop.cluster, family, protocol, to).send().answer();
            let context = format!(
                "{protocol} from {source} to a {family} {frontend}, without a cluster CIDR"
            );
            assert_source(&answer, frontend == "ClusterIP", &context);
        }
    }
}

fn assert_source(answer: &Answer, kept: bool, context: &str) {
    if kept {
        assert!(
            answer.keeps_source(),
            "{context} should keep its source: {answer:?}"
        );
    } else {
        assert!(
            Cluster::is_node(answer.seen_from.ip()),
            "{context} should be masqueraded: {answer:?}"
        );
    }
}
