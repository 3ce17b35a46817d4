//! Session affinity `ClientIP`: a client keeps its endpoint for the configured time.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use kube_dnat::logging::LogEvent;
use kube_dnat::netlink::{FamilyCommit, Kernel};
use kube_dnat::planner::diff::{Op, Operation};
use kube_dnat::planner::ruleset::{
    AFFINITY_SIZE, DynamicChain, Element, FrontendKind, Key, SetName, SlotRange, Value, Verdict,
};
use libtest_mimic::Trial;
use serde_json::json;

use super::drift::assert_no_drift;
use super::shop::{NODE_PORT, Shop, cart_on_every_frontend, cart_slices, frontends};
use super::{Cluster, Daemon, Family, IpAddr, everywhere, servers};
use crate::lab::{Probe, Protocol, Service, nft, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::session_affinity;
    crate::trials!(session_affinity:
        a_client_keeps_its_endpoint_on_each_frontend,
        clients_draw_independently,
        a_client_keeps_its_endpoint_until_the_endpoint_is_removed,
        a_client_keeps_its_endpoint_through_a_restart_unless_it_is_removed,
        a_removed_endpoint_gets_no_connection_during_the_cleanup,
        a_client_keeps_its_endpoint_for_the_remaining_time,
        without_affinity_a_client_draws_for_each_connection,
        policy_local_and_affinity_work_together,
        a_change_to_policy_local_keeps_allowed_endpoints,
        a_full_map_is_logged_and_its_clients_are_served,
        clients_that_expire_during_the_cleanup_cause_no_drift,
    )
}

fn sticky() -> Service {
    cart_on_every_frontend().spec("sessionAffinity", json!("ClientIP"))
}

/// Asserts that one server answers all probes, and returns its name.
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

fn clients_draw_independently() {
    let shop = Shop::new();
    let endpoints = shop.pods(["pod-1", "pod-2"]);
    let _daemon = shop.start(&(sticky().yaml() + &cart_slices(endpoints).yaml()));
    for family in Family::ALL {
        // Two addresses of a client and two Pods draw on four frontends, each independently.
        // All sixteen draw the same endpoint with a probability of 2^-15.
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

fn a_client_keeps_its_endpoint_until_the_endpoint_is_removed() {
    let shop = Shop::new();
    let all = ["pod-1", "pod-2", "remote-1", "remote-2"];
    let daemon = shop.start(&(sticky().yaml() + &cart_slices(shop.pods(all)).yaml()));
    for (family, protocol) in everywhere() {
        for to in [(family.cluster_ip(1), 80), (family.lan(2), NODE_PORT)] {
            let probe = shop.cluster.client.probe(protocol, to);
            let had = only(&probe);
            // Another endpoint is removed: the client keeps its endpoint.
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
            // The client's endpoint is removed: the client draws another one and keeps it.
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

fn a_client_keeps_its_endpoint_through_a_restart_unless_it_is_removed() {
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
    // The endpoint is removed while the daemon is not running.
    let left = all.iter().filter(|pod| !had.starts_with(**pod));
    let left: Vec<_> = left.map(|pod| shop.cluster.pod(pod)).collect();
    shop.manifests
        .write("shop.yaml", &(sticky().yaml() + &cart_slices(left).yaml()));
    let _daemon = Daemon::start(&shop.cluster, &shop.manifests);
    assert_ne!(only(&probe), had);
}

fn a_removed_endpoint_gets_no_connection_during_the_cleanup() {
    let shop = Shop::new();
    let all = ["pod-1", "pod-2", "remote-1"];
    let daemon = shop.start_without_owner(&(sticky().yaml() + &cart_slices(shop.pods(all)).yaml()));
    let probe = shop
        .cluster
        .client
        .probe(Protocol::Tcp, (Family::V4.cluster_ip(1), 80));
    // The daemon needs seconds to read this many elements.
    shop.cluster
        .node
        .namespace
        .run(|| remember(MANY_CLIENTS, shop.cluster.pod("pod-3").ip(Family::V4)));
    // Only in the second round does the daemon know that the cleanup takes so long.
    for _ in 0..2 {
        let had = only(&probe);
        let left = all.iter().filter(|pod| !had.starts_with(**pod));
        let left = left.map(|pod| shop.cluster.pod(pod));
        daemon
            .manifests
            .write("shop.yaml", &(sticky().yaml() + &cart_slices(left).yaml()));
        shop.cluster
            .node
            .namespace
            .run(|| wait_for_endpoints(all.len() - 1));
        // A client whose packet is dropped retransmits it after a second.
        let gets = probe.clone().deadline(Duration::from_secs(10)).send();
        let gets = gets.answer().server;
        assert_ne!(gets, had);
        assert_eq!(only(&probe), gets, "the client keeps its new endpoint");
        let all_again = sticky().yaml() + &cart_slices(shop.pods(all)).yaml();
        daemon.manifests.write("shop.yaml", &all_again);
        shop.cluster
            .node
            .namespace
            .run(|| wait_for_endpoints(all.len()));
    }
}

/// Waits until the cart's `ClusterIP` has this number of endpoints. The function does not use nft,
/// which would list all clients.
fn wait_for_endpoints(count: usize) {
    let mut kernel = Kernel::open().expect("nf_tables");
    let IpAddr::V4(cluster_ip) = Family::V4.cluster_ip(1) else {
        panic!("the family is IPv4");
    };
    let tcp = kube_dnat::planner::model::Protocol::Tcp;
    let key = Key::Frontend(tcp, cluster_ip, 80);
    let count = u32::try_from(count).expect("a few");
    let chain = DynamicChain::Sticky(FrontendKind::Address, SlotRange::Own, count);
    let wanted = Value::Verdict(Verdict::Dynamic(chain));
    wait_until("the endpoints are programmed", || {
        let element = kernel.element(SetName::Services, &key);
        element
            .expect("an element")
            .is_some_and(|element| element.value == wanted)
    });
}

/// Returns the cart whose clients keep their endpoints for this number of seconds.
fn sticky_for(seconds: u32) -> Service {
    sticky().spec(
        "sessionAffinityConfig",
        json!({"clientIP": {"timeoutSeconds": seconds}}),
    )
}

fn a_client_keeps_its_endpoint_for_the_remaining_time() {
    let shop = Shop::new();
    let endpoints = cart_slices(shop.pods(["pod-1", "pod-2", "remote-1"])).yaml();
    let daemon = shop.start(&(sticky().yaml() + &endpoints));
    let to = (Family::V4.cluster_ip(1), 80);
    let probe = shop.cluster.client.probe(Protocol::Tcp, to);
    let had = only(&probe);
    let waits_for = |seconds: u64| {
        let client = shop.cluster.client.ip(Family::V4);
        let left = || shop.cluster.node.namespace.run(|| time_left(client));
        wait_until(
            &format!("the client has less than {seconds} s left"),
            || left().is_some_and(|left| (seconds - 100..=seconds).contains(&left)),
        );
    };
    waits_for(10_800);
    for seconds in [600, 7200, 300] {
        daemon.apply("shop.yaml", &(sticky_for(seconds).yaml() + &endpoints));
        waits_for(seconds.into());
    }
    drop(daemon);
    // The timeout changes while the daemon is not running.
    shop.manifests
        .write("shop.yaml", &(sticky_for(900).yaml() + &endpoints));
    let daemon = Daemon::start(&shop.cluster, &shop.manifests);
    waits_for(900);
    assert_eq!(only(&probe), had);
    // A new connection restarts the timeout.
    waits_for(900);
    drop(daemon);
}

/// Returns the seconds for which the client still keeps its endpoint of the cart's `ClusterIP`.
fn time_left(client: IpAddr) -> Option<u64> {
    let mut kernel = Kernel::open().expect("nf_tables");
    let (IpAddr::V4(client), IpAddr::V4(cluster_ip)) = (client, Family::V4.cluster_ip(1)) else {
        panic!("the family is IPv4");
    };
    let key = Key::Client(client, cluster_ip, 80);
    let tcp = kube_dnat::planner::model::Protocol::Tcp;
    let found = kernel.pinned_endpoint(tcp, &key).expect("an answer");
    found.map(|(_, left)| left.as_secs())
}

fn without_affinity_a_client_draws_for_each_connection() {
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

fn policy_local_and_affinity_work_together() {
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

fn a_change_to_policy_local_keeps_allowed_endpoints() {
    let shop = Shop::new();
    let remote = cart_slices(shop.pods(["remote-1"])).yaml();
    let both = cart_slices(shop.pods(["remote-1", "pod-1"])).yaml();
    let daemon = shop.start(&(sticky().yaml() + &remote));
    let (from_outside, from_pod) = (&shop.cluster.client, shop.cluster.pod("pod-3"));
    let each = || {
        everywhere().flat_map(|(family, protocol)| {
            let external = frontends(family).into_iter().skip(1);
            external.map(move |(what, to)| (what, protocol, to))
        })
    };
    for (_, protocol, to) in each() {
        only(&from_outside.probe(protocol, to));
        only(&from_pod.probe(protocol, to));
    }
    daemon.apply("shop.yaml", &(sticky().yaml() + &both));
    let local = sticky().spec("externalTrafficPolicy", json!("Local"));
    daemon.apply("shop.yaml", &(local.yaml() + &both));
    for (what, protocol, to) in each() {
        let probe = from_outside.probe(protocol, to);
        assert_eq!(only(&probe), "pod-1:8080", "{what}, {probe}");
        assert!(probe.send().answer().keeps_source(), "{what}, {probe}");
        let probe = from_pod.probe(protocol, to);
        assert_eq!(only(&probe), "remote-1:8080", "{what}, {probe}");
    }
    // After the change back to policy Cluster, both clients keep their endpoints.
    daemon.apply("shop.yaml", &(sticky().yaml() + &both));
    for (what, protocol, to) in each() {
        assert_eq!(
            only(&from_outside.probe(protocol, to)),
            "pod-1:8080",
            "{what}"
        );
        assert_eq!(
            only(&from_pod.probe(protocol, to)),
            "remote-1:8080",
            "{what}"
        );
    }
}

fn a_full_map_is_logged_and_its_clients_are_served() {
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
    let told = || daemon.logged(LogEvent::AffinityMapFull);
    // The daemon checks the map after a change, at most once a second. The test does not use nft,
    // which would list the map.
    let mut marks =
        (0..).map(|mark| Service::new(&format!("shop/mark-{mark}"), 9).both("http", 80));
    wait_until("the full map is logged", || {
        let mark = marks.next().expect("another");
        daemon.manifests.write("mark.yaml", &mark.yaml());
        thread::sleep(Duration::from_millis(100));
        !told().is_empty()
    });
    let told = told();
    assert!(told[0].contains("protocol=tcp connections=2"), "{told:?}");
}

/// Half of the clients expire while the daemon deletes their elements.
fn clients_that_expire_during_the_cleanup_cause_no_drift() {
    let shop = Shop::new();
    let with = |pod| sticky().yaml() + &cart_slices(shop.pods([pod])).yaml();
    let daemon = shop.start_without_owner(&with("pod-1"));
    let node = &shop.cluster.node.namespace;
    let (at, endpoint) = (
        Family::V4.cluster_ip(1),
        shop.cluster.pod("pod-1").ip(Family::V4),
    );
    let client = |number: u32| {
        let client = Ipv4Addr::from(0x0a00_0000 + number);
        let timeout = match number % 2 {
            0 => 2000 + number % 8192,
            _ => 3_600_000,
        };
        format!("{client} . {at} . 80 timeout {timeout}ms : {endpoint} . 8080")
    };
    let clients: Vec<_> = (1..150_000).map(client).collect();
    for clients in clients.chunks(10_000) {
        let remember = format!(
            "add element ip kube-dnat affinity-tcp {{ {} }}",
            clients.join(", ")
        );
        nft::load(node, &remember);
        // The daemon would read the tables again if it lost notifications of nft's changes.
        wait_until("the daemon has read nft's notifications", || {
            node.run(notifications).queued == 0
        });
    }
    shop.manifests.write("shop.yaml", &with("pod-2"));
    let forgetting = || daemon.logged(LogEvent::AffinityCleanup);
    wait_until("the cleanup is logged", || !forgetting().is_empty());
    // Another Service is programmed during the cleanup.
    daemon.await_programmed();
    node.run(|| wait_for_cleanup(endpoint));
    daemon.await_programmed();
    // The daemon reads the notifications of its own deletions, and does not mistake them for drift.
    assert_eq!(node.run(notifications).lost, 0);
    assert_no_drift(&daemon);
}

/// The notifications of nf_tables for the daemon, which is their only receiver.
struct Notifications {
    /// The bytes that the daemon has not read yet.
    queued: u64,
    /// The number of those that found its queue full.
    lost: u64,
}

/// Reads the state of the daemon's socket for notifications.
fn notifications() -> Notifications {
    const NETFILTER: &str = "12";
    /// The bit of `NFNLGRP_NFTABLES`.
    const GROUPS: &str = "00000040";
    let sockets = fs::read_to_string("/proc/thread-self/net/netlink").expect("netlink sockets");
    let of_daemon = sockets.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_wanted = fields[1] == NETFILTER && fields[3] == GROUPS;
        let number = |field: usize| fields[field].parse().expect("a number");
        is_wanted.then(|| Notifications {
            queued: number(4),
            lost: number(8),
        })
    });
    of_daemon.expect("the daemon is subscribed")
}

/// Waits until no client of the cart's `ClusterIP` can be pinned to an endpoint that is gone.
fn wait_for_cleanup(endpoint: IpAddr) {
    let mut kernel = Kernel::open().expect("nf_tables");
    let [IpAddr::V4(cluster_ip), IpAddr::V4(endpoint)] = [Family::V4.cluster_ip(1), endpoint]
    else {
        panic!("the family is IPv4");
    };
    let gone = SetName::Gone(kube_dnat::planner::model::Protocol::Tcp);
    let key = Key::Sent(cluster_ip, 80, endpoint, 8080);
    wait_until("the clients are unpinned", || {
        kernel.element(gone, &key).expect("an answer").is_none()
    });
}

/// A number of clients whose elements take seconds to read.
const MANY_CLIENTS: u32 = 200_000;

/// Adds clients of the cart's `ClusterIP` with this endpoint to the map of TCP over IPv4.
fn remember(count: u32, endpoint: IpAddr) {
    let mut kernel = Kernel::open().expect("nf_tables");
    let [IpAddr::V4(cluster_ip), IpAddr::V4(endpoint)] = [Family::V4.cluster_ip(1), endpoint]
    else {
        panic!("the family is IPv4");
    };
    let clients: Vec<_> = (0..count).map(Ipv4Addr::from).collect();
    for clients in clients.chunks(1 << 16) {
        let mut part = FamilyCommit::<Ipv4Addr>::default();
        part.transaction.operations = clients
            .iter()
            .map(|client| Operation {
                op: Op::Add(Element {
                    set: SetName::Affinity(kube_dnat::planner::model::Protocol::Tcp),
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
