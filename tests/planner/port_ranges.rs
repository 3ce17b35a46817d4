//! `kube-dnat.io/port-ranges`: which addresses serve them, which flows are stale, and what exists.

use std::net::{IpAddr, Ipv4Addr};

use kube_dnat::planner::conntrack::ConntrackEntry;
use kube_dnat::planner::model::{Event, Node, Object, ObjectKind, Protocol, Service, ServiceName};
use kube_dnat::planner::ruleset::{DynamicChain, Key, RangesHook, SetName, Table};
use kube_dnat::sync::State;

use crate::cost::{pod_ip, port_ranges, service_with, slice};
use crate::reading::{apply_events, read_back};
use crate::world::{Tables, commit, key, state, update};

/// The addresses of the Service `shop/cart`.
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 7);
const EXTERNAL_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// Returns `shop/cart` with UDP ports 20,000 to 20,999 and `first` to 31,999 at its addresses.
fn ranged(first: u16) -> Event {
    service_with(None, Some(Box::new(port_ranges(first))))
}

/// Returns another Service like `shop/cart`, with another ClusterIP and these differences.
fn other(change: impl FnOnce(&mut Service)) -> Event {
    let Event::Update(cart) = ranged(30_000) else {
        panic!("an update")
    };
    let Some(Object::Service(cart)) = cart.object else {
        panic!("a Service")
    };
    let mut service = Service {
        name: ServiceName::new("shop", "other"),
        created: Some(1),
        cluster_ips: [IpAddr::from([10, 96, 7, 8])].into(),
        features: None,
        ..(*cart).clone()
    };
    for port in &mut service.ports {
        port.protocol = Protocol::Udp;
    }
    change(&mut service);
    let key = key(ObjectKind::Service, "shop/other");
    update(key, Some(Object::Service(service.into())))
}

/// Commits an event; returns the problems of `shop/cart` in words.
fn problems(state: &mut State, tables: &mut Tables, event: Event) -> Vec<String> {
    let _ = state.apply(event);
    let (_, effects) = state.plan_changes().split();
    let unserved = effects.ipv4.unserved.into_iter();
    let of_cart = unserved.filter(|(name, _)| name.as_str() == "shop/cart");
    let reasons = of_cart.flat_map(|(_, reasons)| reasons);
    let reasons = reasons.map(|reason| reason.to_string()).collect();
    commit(state, tables);
    reasons
}

/// Returns the addresses that have ranges.
fn served(table: &Table<Ipv4Addr>) -> Vec<Ipv4Addr> {
    let keys = table.entries(SetName::Ranges).map(|(key, _)| *key);
    let served: Vec<_> = keys
        .filter_map(|key| match key.frontend() {
            Some((Protocol::Udp, address, 0)) => address,
            _ => None,
        })
        .collect();
    // Each has both ranges.
    let ranges = table.entries(SetName::PortRanges).count();
    assert_eq!(ranges, 2 * served.len());
    served
}

const NO_EFFECT: &str = "annotation kube-dnat.io/port-ranges has no effect for udp at 203.0.113.5";

#[test]
fn a_port_of_another_service_in_a_range_ends_it_at_their_address() {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(slice(0..2));
    assert_eq!(problems(&mut state, &mut tables, ranged(30_000)), [""; 0]);
    assert_eq!(served(&tables.ipv4), [CLUSTER_IP, EXTERNAL_IP]);
    let with_port = |port| {
        other(|service| {
            for own in &mut service.ports {
                own.port = port;
            }
        })
    };
    let text = format!("{NO_EFFECT}: 31999/udp is a port of the Service shop/other there");
    for _ in 0..2 {
        let reported = problems(&mut state, &mut tables, with_port(31_999));
        assert_eq!(reported, [&*text]);
        assert_eq!(served(&tables.ipv4), [CLUSTER_IP]);
        // The ports on both sides of a range, and the same port in another protocol.
        let _ = problems(&mut state, &mut tables, with_port(32_000));
        assert_eq!(served(&tables.ipv4), [CLUSTER_IP, EXTERNAL_IP]);
        let _ = problems(&mut state, &mut tables, with_port(29_999));
        assert_eq!(served(&tables.ipv4), [CLUSTER_IP, EXTERNAL_IP]);
    }
    let _ = problems(&mut state, &mut tables, with_port(20_000));
    assert_eq!(served(&tables.ipv4), [CLUSTER_IP]);
    // A smaller range has no conflict, neither has one alone.
    let gone = update(key(ObjectKind::Service, "shop/other"), None);
    assert_eq!(problems(&mut state, &mut tables, gone), [""; 0]);
    assert_eq!(served(&tables.ipv4), [CLUSTER_IP, EXTERNAL_IP]);
}

#[test]
fn the_older_service_has_the_ranges_of_an_address() {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(slice(0..2));
    let _ = state.apply(ranged(30_000));
    commit(&mut state, &mut tables);
    let rival = |created| {
        other(|service| {
            service.created = Some(created);
            service.features = Some(Box::new(port_ranges(31_000)));
        })
    };
    assert_eq!(problems(&mut state, &mut tables, rival(1)), [""; 0]);
    let reported = problems(&mut state, &mut tables, rival(-1));
    let text = format!("{NO_EFFECT}: the older Service shop/other has udp port ranges there");
    assert_eq!(reported, [&*text]);
    let gone = update(key(ObjectKind::Service, "shop/other"), None);
    assert_eq!(problems(&mut state, &mut tables, gone), [""; 0]);
    assert_eq!(served(&tables.ipv4), [CLUSTER_IP, EXTERNAL_IP]);
}

#[test]
fn an_address_of_the_node_serves_no_range() {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(slice(0..2));
    let _ = state.apply(ranged(30_000));
    commit(&mut state, &mut tables);
    let node = |last: u8| {
        let addresses = vec![[192, 0, 2, 1].into(), [203, 0, 113, last].into()];
        let node = Node {
            addresses,
            ..Node::default()
        };
        update(key(ObjectKind::Node, "node-1"), Some(Object::Node(node)))
    };
    let text = format!("{NO_EFFECT}: it is an address of this node");
    assert_eq!(problems(&mut state, &mut tables, node(5)), [&*text]);
    assert_eq!(served(&tables.ipv4), [CLUSTER_IP]);
    assert_eq!(problems(&mut state, &mut tables, node(6)), [""; 0]);
    assert_eq!(served(&tables.ipv4), [CLUSTER_IP, EXTERNAL_IP]);
}

/// Commits an event; returns which of the entries to these ports are stale, as [`stale_now`] does.
fn stale(state: &mut State, tables: &mut Tables, event: Event, ports: &[u16]) -> Vec<[bool; 4]> {
    let _ = state.apply(event);
    commit(state, tables);
    stale_now(state, ports)
}

/// Returns which of the entries to these ports are stale: those to the endpoints 0 and 1, to another
/// port of endpoint 0, and the one without a translation.
fn stale_now(state: &mut State, ports: &[u16]) -> Vec<[bool; 4]> {
    let dirty = state.take_dirty_frontends().ipv4;
    let frontends = state.families.ipv4.frontends(&dirty);
    let source = ([192, 0, 2, 9].into(), 40_000);
    let is_stale = |port: u16, reply_source| {
        frontends.is_stale(&ConntrackEntry {
            protocol: Protocol::Udp,
            established: false,
            source,
            destination: (EXTERNAL_IP, port),
            reply_source,
            reply_destination: source,
        })
    };
    let of_port = |port: &u16| {
        let to = [
            (pod_ip(0), *port),
            (pod_ip(1), *port),
            (pod_ip(0), 9),
            (EXTERNAL_IP, *port),
        ];
        to.map(|reply_source| is_stale(*port, reply_source))
    };
    ports.iter().map(of_port).collect()
}

#[test]
fn flows_that_the_ranges_would_not_create_are_stale() {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(slice(0..2));
    let _ = state.apply(service_with(None, None));
    commit(&mut state, &mut tables);
    let _ = state.take_dirty_frontends();
    // A port in the range, one that leaves it later, and one that was never in it.
    let ports = [31_500, 30_500, 19_999];
    let none = [false; 4];
    let untranslated = [false, false, false, true];
    let added = stale(&mut state, &mut tables, ranged(30_000), &ports);
    assert_eq!(added, [untranslated, untranslated, none]);
    let removed = stale(&mut state, &mut tables, slice([1]), &ports);
    let of_gone = [true, false, false, true];
    assert_eq!(removed, [of_gone, of_gone, none]);
    let smaller = stale(&mut state, &mut tables, ranged(31_000), &ports);
    assert_eq!(smaller[1], [false, true, false, false]);
    let ended = stale(&mut state, &mut tables, service_with(None, None), &ports);
    assert_eq!(ended[0], [false, true, false, false]);
}

#[test]
fn the_base_chains_exist_while_a_service_has_ranges() {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(slice(0..2));
    let _ = state.apply(service_with(None, None));
    commit(&mut state, &mut tables);
    assert!(tables.ipv4.dynamic_chains().is_empty());
    let _ = state.apply(ranged(30_000));
    commit(&mut state, &mut tables);
    let chains = tables.ipv4.dynamic_chains();
    let hooks = RangesHook::ALL.map(DynamicChain::PortRanges);
    assert!(hooks.iter().all(|chain| chains.contains(chain)));
    assert_eq!(chains.len(), 4);
    let _ = state.apply(service_with(None, None));
    commit(&mut state, &mut tables);
    assert_eq!(tables.ipv4.entries(SetName::RangeEndpoints).count(), 0);
    // One chain after the other is unused.
    for _ in hooks {
        let unused = state.families.ipv4.applied().delete_unused_chains();
        unused.apply(&mut tables.ipv4).unwrap();
        state.families.ipv4.applied_mut().unused_chains_deleted();
    }
    assert!(tables.ipv4.dynamic_chains().is_empty());
}

/// Returns the state of a new process that has seen these events.
fn restarted(events: &[Event]) -> State {
    let mut state = state();
    apply_events(&mut state, events);
    state
}

#[test]
fn a_restart_adopts_ranges_and_a_changed_range_costs_its_elements() {
    let (mut state, mut tables) = (state(), Tables::default());
    let events = [slice(0..2), ranged(30_000)];
    for event in events.clone() {
        let _ = state.apply(event);
    }
    commit(&mut state, &mut tables);
    let before = tables.ipv4.clone();
    assert_eq!(read_back(&mut restarted(&events), &mut tables, &[]), 0);
    assert_eq!(tables.ipv4, before);
    let mut changed = restarted(&[slice(0..2), ranged(31_000)]);
    // At each address one range is deleted, and one added.
    assert_eq!(read_back(&mut changed, &mut tables, &[]), 4);
    let range = tables.ipv4.entries(SetName::PortRanges).map(|(key, _)| key);
    let texts: Vec<_> = range.map(Key::to_string).collect();
    assert_eq!(texts.len(), 4);
    assert!(texts.contains(&"203.0.113.5 . udp . 31000-31999".to_owned()));
}

#[test]
fn flows_of_ranges_that_ended_while_the_daemon_was_not_running_are_stale() {
    let wanted = [
        &[slice(0..2)][..],
        &[slice(0..2), service_with(None, None)],
        &[slice(0..2), ranged(31_000)],
    ];
    for events in wanted {
        let (mut before, mut tables) = (state(), Tables::default());
        apply_events(&mut before, &[slice(0..2), ranged(30_000)]);
        commit(&mut before, &mut tables);
        let mut state = restarted(events);
        read_back(&mut state, &mut tables, &[]);
        let of_endpoints = [true, true, false, false];
        let found = stale_now(&mut state, &[30_500, 19_999]);
        assert_eq!(found, [of_endpoints, [false; 4]], "{events:?}");
    }
}
