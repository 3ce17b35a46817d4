//! Tables of other programs on the node.

use libtest_mimic::Trial;

use super::shop::{Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Family, Probe, everywhere, names, servers};
use crate::lab::{Outcome, nft};

pub(super) fn tests() -> Vec<Trial> {
    use super::foreign_tables;
    crate::trials!(foreign_tables:
        tables_of_other_programs_stay_unchanged,
        rules_of_other_programs_stay_effective,
        cleanup_removes_only_the_tables_of_kube_dnat,
    )
}

/// The tables of a firewall and of another program with NAT. Some names equal kube-dnat's names.
const FOREIGN: &str = "
table inet firewall {
    set blocked { type ipv4_addr; flags interval; elements = { 192.168.77.101 comment \"a client\" }; }
    set blocked6 { type ipv6_addr; elements = { fd00:77::65 }; }
    chain forward {
        type filter hook forward priority filter + 10; policy accept;
        ip saddr @blocked counter drop
        ip6 saddr @blocked6 counter drop
    }
}
table ip nat {
    map services { type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = { 192.0.2.1 . 80 : 10.244.1.9 . 8080 }; }
    chain prerouting { type nat hook prerouting priority dstnat - 1; dnat ip to ip daddr . tcp dport map @services; }
}
table ip6 kube-proxy {
    chain services { }
}
";

/// Returns the listing of every table that is not kube-dnat's.
fn foreign(cluster: &Cluster) -> String {
    let listing = nft::list(&cluster.node.namespace);
    let tables = listing
        .split_inclusive("\n}\n")
        .filter(|table| !table.contains(" kube-dnat {"));
    nft::normalise(&tables.collect::<String>())
}

fn tables_of_other_programs_stay_unchanged() {
    let shop = Shop::new();
    nft::load(&shop.cluster.node.namespace, FOREIGN);
    let before = foreign(&shop.cluster);
    let manifests = cart_on_every_frontend().yaml() + &cart_slices(&shop.cluster.pods).yaml();
    let daemon = shop.start(&manifests);
    assert_eq!(foreign(&shop.cluster), before, "after a start");
    daemon.remove("shop.yaml");
    daemon.apply("shop.yaml", &manifests);
    assert_eq!(foreign(&shop.cluster), before, "after changes");
    daemon.terminate();
    let _again = shop.start(&manifests);
    assert_eq!(foreign(&shop.cluster), before, "after a restart");
}

fn rules_of_other_programs_stay_effective() {
    let shop = Shop::new();
    nft::load(&shop.cluster.node.namespace, FOREIGN);
    let _daemon =
        shop.start(&(cart_on_every_frontend().yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()));
    for (family, protocol) in everywhere() {
        let client = &shop.cluster.client;
        for (frontend, to) in frontends(family) {
            let probe = client.probe(protocol, to);
            assert_eq!(
                servers(&probe),
                names(["pod-1:8080"]),
                "{frontend}: {probe}"
            );
        }
        let blocked: Vec<_> = frontends(family)
            .map(|(_, to)| {
                client
                    .probe(protocol, to)
                    .source_ip(Cluster::second_client_ip(family))
                    .briefly()
            })
            .into();
        for (probe, outcome) in blocked.iter().zip(Probe::send_all(&blocked)) {
            assert_eq!(outcome, Outcome::TimedOut, "{probe}");
        }
    }
}

fn cleanup_removes_only_the_tables_of_kube_dnat() {
    let shop = Shop::new();
    let node = &shop.cluster.node.namespace;
    nft::load(node, FOREIGN);
    let before = foreign(&shop.cluster);
    shop.start(&(cart_on_every_frontend().yaml() + &cart_slices(&shop.cluster.pods).yaml()))
        .terminate();
    for _ in 0..2 {
        // A cleanup without tables succeeds too.
        node.command(env!("CARGO_BIN_EXE_kube-dnat"), &["cleanup"]);
        assert_eq!(nft::normalise(&nft::list(node)), before);
    }
    for family in Family::ALL {
        let probe = shop
            .cluster
            .client
            .probe(crate::lab::Protocol::Tcp, (family.cluster_ip(1), 80));
        assert_eq!(servers(&probe), names(["gateway"]), "{probe}");
    }
}
