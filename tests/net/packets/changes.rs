//! Changes of the manifests under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kube_dnat::logging::LogEvent;
use libtest_mimic::Trial;

use super::shop::{NODE_PORT, Shop, cart, cart_on_every_frontend, cart_slices, frontends};
use super::{Daemon, Family, Probe, Protocol, everywhere, names, servers};
use crate::lab::{Flow, Outcome, Service, Slices, Tally, wait_until};

pub(super) fn tests() -> Vec<Trial> {
    use super::changes;
    crate::trials!(changes:
        no_request_fails_while_endpoints_come_and_go,
        established_connections_survive_their_endpoint_and_their_service,
        a_service_that_is_removed_is_no_longer_served_anywhere,
        a_service_that_changes_its_addresses_and_ports_is_served_at_the_new_ones_only,
        a_service_that_moves_to_another_file_is_served_all_the_time,
        changes_are_pending_for_the_minimum_sync_period_and_share_one_sync,
    )
}

/// Sends probes without a pause during a change, each probe from a thread of its own.
pub(super) fn under_load(probes: &[Probe<'_>], change: impl FnOnce()) -> Vec<Tally> {
    under_counted_load(probes, |_| change()).0
}

/// Does the same as [`under_load`]. The change can read the number of started probes, and its
/// result is returned too.
pub(super) fn under_counted_load<R>(
    probes: &[Probe<'_>],
    change: impl FnOnce(&AtomicUsize) -> R,
) -> (Vec<Tally>, R) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stopped, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    let more = || {
        thread::sleep(Duration::from_millis(1));
        begun.fetch_add(1, Ordering::Relaxed);
        !stopped.load(Ordering::Relaxed)
    };
    thread::scope(|scope| {
        // The guard also stops the threads when the change panics; the scope waits for them.
        let stop = Stop(&stopped);
        let running: Vec<_> = probes
            .iter()
            .map(|probe| scope.spawn(move || probe.send_while(more)))
            .collect();
        let changed = change(&begun);
        drop(stop);
        let tallies = running.into_iter();
        let tallies = tallies.map(|probe| probe.join().expect("probes"));
        (tallies.collect(), changed)
    })
}

fn no_request_fails_while_endpoints_come_and_go() {
    let shop = Shop::new();
    let with = |pods: &[&str]| {
        let pods = pods.iter().map(|name| shop.cluster.pod(name));
        cart_on_every_frontend().yaml() + &cart_slices(pods).yaml()
    };
    let daemon = shop.start(&with(&["pod-1", "pod-2"]));
    let mut probes = Vec::new();
    for (family, protocol) in everywhere() {
        probes.push(
            shop.cluster
                .pod("pod-3")
                .probe(protocol, (family.cluster_ip(1), 80)),
        );
        probes.push(
            shop.cluster
                .client
                .probe(protocol, (family.lan(2), NODE_PORT)),
        );
    }
    let tallies = under_load(&probes, || {
        for pods in [
            ["pod-1", "pod-2", "remote-1"].as_slice(),
            &["remote-1"],
            &["pod-2", "remote-1"],
            &["pod-1", "pod-2"],
        ] {
            for _ in 0..5 {
                daemon.apply("shop.yaml", &with(pods));
                daemon.apply("shop.yaml", &with(&["pod-1", "pod-2"]));
            }
        }
    });
    for (probe, tally) in probes.iter().zip(tallies) {
        assert!(
            tally.failures.is_empty(),
            "{probe}: {:?} {:?}",
            tally.failures,
            tally.servers
        );
        assert_eq!(tally.servers.len(), 3, "{probe}: {:?}", tally.servers);
    }
}

fn established_connections_survive_their_endpoint_and_their_service() {
    let shop = Shop::new();
    let [first, second] = shop.pods(["pod-1", "pod-2"]);
    let daemon = shop.start(&(cart_on_every_frontend().yaml() + &cart_slices([first]).yaml()));
    let mut flows = Vec::new();
    for (family, protocol) in everywhere() {
        for (_, to) in frontends(family) {
            for source in [
                &shop.cluster.client,
                &shop.cluster.node,
                shop.cluster.pod("pod-3"),
            ] {
                let probe = source.probe(protocol, to);
                let mut flow =
                    Flow::open(&probe).unwrap_or_else(|outcome| panic!("{probe}: {outcome:?}"));
                let greeting = flow.greeting().answer();
                flows.push((probe, flow, greeting));
            }
        }
    }
    let mut assert_alive = |change: &str| {
        for (probe, flow, greeting) in &mut flows {
            // The conntrack cleanup ends a UDP flow to a removed endpoint.
            if !probe.is_udp() {
                assert_eq!(
                    flow.ask(),
                    Outcome::Answered(greeting.clone()),
                    "{probe} {change}"
                );
            }
        }
    };
    assert_alive("before any change");
    daemon.apply(
        "shop.yaml",
        &(cart_on_every_frontend().yaml() + &cart_slices([first, second]).yaml()),
    );
    assert_alive("after an endpoint was added");
    daemon.apply(
        "shop.yaml",
        &(cart_on_every_frontend().yaml() + &cart_slices([second]).yaml()),
    );
    assert_alive("after its endpoint was removed");
    daemon.apply("shop.yaml", &cart_on_every_frontend().yaml());
    assert_alive("after the last endpoint was removed");
    daemon.remove("shop.yaml");
    assert_alive("after its Service was removed");
}

fn a_service_that_is_removed_is_no_longer_served_anywhere() {
    let shop = Shop::new();
    let other = Service::new("shop/list", 2).both("http", 80).yaml()
        + &Slices::of("shop/list")
            .both("http", 8080)
            .ready(shop.pods(["pod-1"]))
            .yaml();
    let daemon =
        shop.start(&(cart_on_every_frontend().yaml() + &cart_slices(shop.pods(["pod-1"])).yaml()));
    daemon.apply("other.yaml", &other);
    daemon.remove("shop.yaml");
    for (family, protocol) in everywhere() {
        let probe = |to| shop.cluster.client.probe(protocol, to).briefly();
        assert_eq!(
            probe((family.cluster_ip(1), 80)).send(),
            Outcome::TimedOut,
            "{protocol} {family}"
        );
        assert!(
            probe((family.lan(2), NODE_PORT))
                .send()
                .is_refused_at_once(),
            "{protocol} {family}"
        );
        assert_eq!(
            servers(&probe((family.external_ip(1), 80))),
            names(["gateway"]),
            "{protocol} {family}"
        );
        assert_eq!(
            servers(&probe((family.load_balancer_ip(1), 80))),
            names(["gateway"]),
            "{protocol} {family}"
        );
        assert_eq!(
            servers(&probe((family.cluster_ip(2), 80))),
            names(["pod-1:8080"]),
            "{protocol} {family}"
        );
    }
}

fn a_service_that_changes_its_addresses_and_ports_is_served_at_the_new_ones_only() {
    let shop = Shop::new();
    let slices = cart_slices(shop.pods(["pod-1"])).yaml();
    let daemon = shop.start(&(cart_on_every_frontend().yaml() + &slices));
    let changed = Service::new("shop/cart", 2)
        .both("http", 81)
        .node_port(NODE_PORT + 1);
    daemon.apply(
        "shop.yaml",
        &(changed.external_ip(2).load_balancer_ip(2).yaml() + &slices),
    );
    for (family, protocol) in everywhere() {
        let probe = |to| shop.cluster.client.probe(protocol, to).briefly();
        for to in [
            (family.cluster_ip(2), 81),
            (family.lan(2), NODE_PORT + 1),
            (family.external_ip(2), 81),
            (family.load_balancer_ip(2), 81),
        ] {
            assert_eq!(servers(&probe(to)), names(["pod-1:8080"]), "{}", probe(to));
        }
        for to in [
            (family.external_ip(1), 80),
            (family.external_ip(2), 80),
            (family.load_balancer_ip(1), 80),
        ] {
            assert_eq!(servers(&probe(to)), names(["gateway"]), "{}", probe(to));
        }
        assert_eq!(
            probe((family.cluster_ip(1), 80)).send(),
            Outcome::TimedOut,
            "{protocol} {family}"
        );
        for to in [(family.cluster_ip(2), 80), (family.lan(2), NODE_PORT)] {
            assert!(probe(to).send().is_refused_at_once(), "{}", probe(to));
        }
    }
}

fn a_service_that_moves_to_another_file_is_served_all_the_time() {
    let shop = Shop::new();
    let manifests = cart().yaml() + &cart_slices(shop.pods(["pod-1", "remote-1"])).yaml();
    let daemon = shop.start(&manifests);
    let source = shop.cluster.pod("pod-3");
    let probes: Vec<_> = everywhere()
        .map(|(family, protocol)| source.probe(protocol, (family.cluster_ip(1), 80)))
        .collect();
    let tallies = under_load(&probes, || {
        daemon.apply("moved.yaml", &manifests);
        daemon.remove("shop.yaml");
    });
    for (probe, tally) in probes.iter().zip(tallies) {
        assert!(tally.failures.is_empty(), "{probe}: {:?}", tally.failures);
        assert_eq!(
            servers(probe),
            names(["pod-1:8080", "remote-1:8080"]),
            "{probe}"
        );
    }
}

fn changes_are_pending_for_the_minimum_sync_period_and_share_one_sync() {
    let shop = Shop::new();
    let with = |pod: &str| cart().yaml() + &cart_slices([shop.cluster.pod(pod)]).yaml();
    shop.manifests.write("shop.yaml", &with("pod-1"));
    let cidrs = Family::ALL.map(Family::cluster_cidr).join(",");
    let flags = ["--cluster-cidr", &cidrs, "--min-sync-period=2s"];
    let daemon = Daemon::start_with(&shop.cluster, &shop.manifests, &flags);
    let commits = || daemon.logged(LogEvent::SyncCommitted).len();
    let (before, started) = (commits(), Instant::now());
    for pod in ["pod-2", "pod-3", "remote-1", "pod-2"] {
        daemon.manifests.write("shop.yaml", &with(pod));
        thread::sleep(Duration::from_millis(100));
    }
    daemon.await_programmed();
    // The daemon logs a commit after the conntrack cleanup.
    wait_until("a commit is logged", || commits() > before);
    let turns = commits() - before;
    let elapsed = started.elapsed();
    // One sync can be due immediately, and then one every two seconds. Five changes are more.
    let due = 1 + elapsed.as_secs() / 2;
    let due = usize::try_from(due).expect("a number");
    assert!(turns <= due, "{turns} in {elapsed:?}");
    let to = (Family::V4.cluster_ip(1), 80);
    let probe = shop.cluster.client.probe(Protocol::Tcp, to);
    assert_eq!(servers(&probe), names(["pod-2:8080"]));
}
