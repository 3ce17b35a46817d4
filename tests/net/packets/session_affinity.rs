//! Session affinity `ClientIP`: who keeps which endpoint, and until when.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use kube_dnat::diff::{Op, Operation};
use kube_dnat::netlink::{Kernel, Part};
use kube_dnat::ruleset::{AFFINITY_SIZE, Element, Key, SetName, Value};
use libtest_mimic::Trial;
use serde_json::json;

use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Daemon, Family, IpAddr, everywhere, servers};
use crate::lab::{Probe, Protocol, Service, nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::session_affinity;
    crate::trials!(session_affinity:
        a_client_keeps_its_endpoint_on_each_frontend,
        clients_are_told_apart_and_spread,
        a_client_keeps_its_endpoint_through_other_changes_and_loses_it_with_it,
        a_client_keeps_its_endpoint_through_a_restart_but_not_a_dead_one,
        without_affinity_a_client_draws_anew,
        policy_local_and_affinity_go_together,
        a_full_map_is_told_of_and_its_clients_are_served,
        nothing_waits_for_clients_that_expire_while_they_are_forgotten,
    )
}

fn sticky() -> Service {
    cart_on_every_frontend().spec("sessionAffinity", json!("ClientIP"))
}

/// The one server that answers them all.
#[track_caller]
fn only(probe: &Probe<'_>) -> String {
    let mut servers = servers(probe);
    assert_eq!(servers.len(), 1, "{probe}: {servers:?}");
    servers.pop_first().expect("one")
}

fn a_client_keeps_its_endpoint_on_each_frontend() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "pod-2", "remote-1", "remote-2"]);
    let _daemon = shop.start(&(sticky().yaml() + &cart_slices(endpoints).yaml()));
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family) {
            for source in [
                &shop.cluster.client,
                &shop.cluster.node,
                shop.cluster.pod("pod-3"),
            ] {
                only(&source.probe(protocol, to));
            }
        }
    }
}

fn clients_are_told_apart_and_spread() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "pod-2"]);
    let _daemon = shop.start(&(sticky().yaml() + &cart_slices(endpoints).yaml()));
    for family in Family::ALL {
        // Two addresses of a client and two Pods, each with its own memory, on four frontends:
        // that all sixteen drew the same one happens once in 2^15.
        let mut drawn = BTreeSet::new();
        for (_, to) in frontends(family) {
            let client = shop.cluster.client.probe(Protocol::Tcp, to);
            let second = shop.cluster.client.probe(Protocol::Tcp, to);
            let second = second.source_ip(Cluster::second_client_ip(family));
            drawn.extend([only(&client), only(&second)]);
            for pod in ["pod-3", "remote-1"] {
                drawn.insert(only(&shop.cluster.pod(pod).probe(Protocol::Tcp, to)));
            }
        }
        assert_eq!(drawn.len(), 2, "{family:?}");
    }
}

fn a_client_keeps_its_endpoint_through_other_changes_and_loses_it_with_it() {
    let shop = Shop::new();
    let all = ["pod-1", "pod-2", "remote-1", "remote-2"];
    let daemon = shop.start(&(sticky().yaml() + &cart_slices(shop.pods(all)).yaml()));
    for (family, protocol) in everywhere() {
        for to in [(family.cluster_ip(1), 80), (family.lan(2), NODE_PORT)] {
            let probe = shop.cluster.client.probe(protocol, to);
            let had = only(&probe);
            // Another endpoint goes: it stays.
            let other = all
                .iter()
                .find(|pod| !had.starts_with(**pod))
                .expect("another");
            let left = |gone: &str| {
                all.iter()
                    .filter(|pod| **pod != gone)
                    .map(|pod| shop.cluster.pod(pod))
                    .collect::<Vec<_>>()
            };
            daemon.apply(
                "shop.yaml",
                &(sticky().yaml() + &cart_slices(left(other)).yaml()),
            );
            assert_eq!(only(&probe), had);
            // Its own goes: it gets another, and keeps that.
            let own = had
                .strip_suffix(":8080")
                .expect("server names end in their port");
            daemon.apply(
                "shop.yaml",
                &(sticky().yaml() + &cart_slices(left(own)).yaml()),
            );
            assert_ne!(only(&probe), had);
            daemon.apply(
                "shop.yaml",
                &(sticky().yaml() + &cart_slices(shop.pods(all)).yaml()),
            );
        }
    }
}

fn a_client_keeps_its_endpoint_through_a_restart_but_not_a_dead_one() {
    let shop = Shop::new();
    let all = ["pod-1", "pod-2", "remote-1", "remote-2"];
    let daemon = shop.start(&(sticky().yaml() + &cart_slices(shop.pods(all)).yaml()));
    for family in Family::ALL {
        let probe = shop
            .cluster
            .client
            .probe(Protocol::Tcp, (family.cluster_ip(1), 80));
        only(&probe);
    }
    let probe = shop
        .cluster
        .client
        .probe(Protocol::Tcp, (Family::V4.cluster_ip(1), 80));
    let had = only(&probe);
    drop(daemon);
    let daemon = Daemon::start(&shop.cluster, &shop.manifests);
    assert_eq!(only(&probe), had);
    drop(daemon);
    // It goes while nobody looks.
    let left = all.iter().filter(|pod| !had.starts_with(**pod));
    let left: Vec<_> = left.map(|pod| shop.cluster.pod(pod)).collect();
    shop.manifests
        .write("shop.yaml", &(sticky().yaml() + &cart_slices(left).yaml()));
    let _daemon = Daemon::start(&shop.cluster, &shop.manifests);
    assert_ne!(only(&probe), had);
}

fn without_affinity_a_client_draws_anew() {
    let shop = Shop::new();
    let endpoints = cart_slices(shop.pods(["pod-1", "pod-2"])).yaml();
    let daemon = shop.start(&(sticky().yaml() + &endpoints));
    let probe = shop
        .cluster
        .client
        .probe(Protocol::Tcp, (Family::V4.cluster_ip(1), 80));
    only(&probe);
    daemon.apply("shop.yaml", &(cart_on_every_frontend().yaml() + &endpoints));
    assert_eq!(servers(&probe).len(), 2);
    daemon.apply("shop.yaml", &(sticky().yaml() + &endpoints));
    only(&probe);
}

fn policy_local_and_affinity_go_together() {
    let shop = Shop::new();
    let endpoints = cart_slices(shop.pods(["pod-1", "pod-2", "remote-1"])).yaml();
    let local = sticky().spec("externalTrafficPolicy", json!("Local"));
    let _daemon = shop.start(&(local.yaml() + &endpoints));
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family).into_iter().skip(1) {
            let client = only(&shop.cluster.client.probe(protocol, to));
            assert!(client.starts_with("pod-"), "{client} is not on this node");
            only(&shop.cluster.pod("pod-3").probe(protocol, to));
        }
    }
}

fn a_full_map_is_told_of_and_its_clients_are_served() {
    let shop = Shop::new();
    let ready = cart_slices(shop.pods(["pod-1"])).yaml();
    let daemon = shop.start_without_owner(&(sticky().yaml() + &ready));
    shop.cluster
        .node
        .namespace
        .run(|| remember(AFFINITY_SIZE - 2, shop.cluster.pod("pod-1").ip(Family::V4)));
    for source in ["pod-2", "pod-3", "remote-1", "remote-2"] {
        let to = (Family::V4.cluster_ip(1), 80);
        let probe = shop.cluster.pod(source).probe(Protocol::Tcp, to);
        assert_eq!(probe.send().server(), Some("pod-1:8080"), "{probe}");
    }
    let told = || daemon.log_lines("session affinity is full");
    // It looks at a change, at most once a second. (nft is not asked: it would list the map.)
    let mut marks =
        (0..).map(|mark| Service::new(&format!("shop/mark-{mark}"), 9).both("http", 80));
    wait_until("the full map is told of", Duration::from_secs(90), || {
        let mark = marks.next().expect("another");
        daemon.manifests.write("mark.yaml", &mark.yaml());
        thread::sleep(Duration::from_millis(100));
        !told().is_empty()
    });
    let told = told();
    assert!(told[0].contains("protocol=tcp connections=2"), "{told:?}");
}

/// As many as expire while they are looked for and forgotten.
fn nothing_waits_for_clients_that_expire_while_they_are_forgotten() {
    let shop = Shop::new();
    let with = |pod| sticky().yaml() + &cart_slices(shop.pods([pod])).yaml();
    let daemon = shop.start_without_owner(&with("pod-1"));
    let (at, endpoint) = (
        Family::V4.cluster_ip(1),
        shop.cluster.pod("pod-1").ip(Family::V4),
    );
    let client = |number: u32| {
        let client = Ipv4Addr::from(0x0a00_0000 + number);
        let timeout = 2000 + number % 8192;
        format!("{client} . {at} . 80 timeout {timeout}ms : {endpoint} . 8080")
    };
    let clients: Vec<_> = (1..150_000).map(client).collect();
    for clients in clients.chunks(10_000) {
        let remember = format!(
            "add element ip kube-dnat affinity-tcp {{ {} }}",
            clients.join(", ")
        );
        nft::load(&shop.cluster.node.namespace, &remember);
    }
    // What nft did may have been too much to hear.
    daemon.synchronise();
    let adopted = || daemon.log_lines("adopting the table").len();
    let before = adopted();
    shop.manifests.write("shop.yaml", &with("pod-2"));
    let forgetting = || daemon.log_lines("forgetting the clients");
    wait_until("they are being forgotten", Duration::from_secs(30), || {
        !forgetting().is_empty()
    });
    // Another Service is programmed meanwhile.
    daemon.synchronise();
    // Nobody takes our own deletions for what others do.
    assert_eq!(adopted(), before);
}

/// Puts clients of the cart's `ClusterIP`, who have this endpoint, into the map of TCP over IPv4.
fn remember(count: u32, endpoint: IpAddr) {
    let mut kernel = Kernel::open().expect("nf_tables");
    let [IpAddr::V4(cluster_ip), IpAddr::V4(endpoint)] = [Family::V4.cluster_ip(1), endpoint]
    else {
        panic!("the family is IPv4");
    };
    let clients: Vec<_> = (0..count).map(Ipv4Addr::from).collect();
    for clients in clients.chunks(1 << 16) {
        let mut part = Part::<Ipv4Addr>::default();
        part.transaction.operations = clients
            .iter()
            .map(|client| Operation {
                op: Op::Add(Element {
                    set: SetName::Affinity(kube_dnat::model::Protocol::Tcp),
                    key: Key::Client(*client, cluster_ip, 80),
                    value: Value::Endpoint(endpoint, 8080),
                    comment: None,
                }),
                service: None,
            })
            .collect();
        kernel.commit(&part.into()).expect("room for a client");
    }
}
