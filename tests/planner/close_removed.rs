//! `kube-dnat.io/close-removed`: which established connections are closed, and which chains exist.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kube_dnat::planner::conntrack::{ConntrackEntry, EntryScope};
use kube_dnat::planner::desired::NodeFacts;
use kube_dnat::planner::model::{Endpoint, Event, Object, ObjectKind, Protocol};
use kube_dnat::planner::ruleset::{ClientHook, DynamicChain, SetName, TcpPickup};
use kube_dnat::sync::State;

use crate::cost::{close_removed, maglev, pod_ip, service_with, slice, slice_with};
use crate::world::{Tables, commit, key, remote_endpoint, state, update};

/// The endpoints of the slice with this number, as [`slice`] numbers them.
fn endpoint(number: u32) -> (Ipv4Addr, u16) {
    (pod_ip(number), 8080)
}

/// Returns the slice with these endpoints, none of which is ready or serves.
fn slice_of_unready(numbers: &[u32]) -> Event {
    let endpoints = numbers.iter().map(|number| Endpoint {
        ready: false,
        serving: false,
        terminating: true,
        ..remote_endpoint(pod_ip(*number))
    });
    slice_with("shop/cart", endpoints.collect())
}

/// Returns the entry of an established connection to the ClusterIP of the Service.
fn established((address, port): (Ipv4Addr, u16)) -> ConntrackEntry<Ipv4Addr> {
    let source = ([10, 244, 9, 9].into(), 40_000);
    ConntrackEntry {
        protocol: Protocol::Tcp,
        established: true,
        source,
        destination: ([10, 96, 7, 7].into(), 80),
        reply_source: (address, port),
        reply_destination: source,
    }
}

/// Applies a change and commits it; returns the endpoints of 0 to 4 whose connections are closed,
/// if the cleanup reads established connections.
fn closed(state: &mut State, tables: &mut Tables, change: Event) -> Option<Vec<u32>> {
    let _ = state.apply(change);
    commit(state, tables);
    let dirty = state.take_dirty_frontends().ipv4;
    let frontends = state.families.ipv4.frontends(&dirty);
    let is_closed = |number: &u32| frontends.is_stale(&established(endpoint(*number)));
    let EntryScope {
        established_tcp, ..
    } = frontends.scope();
    established_tcp.then(|| (0..5).filter(is_closed).collect())
}

#[test]
fn only_connections_to_endpoints_that_are_in_no_slice_are_closed() {
    let (mut state, mut tables) = (state(), Tables::default());
    let service = || service_with(Some(30080), Some(Box::new(close_removed())));
    let _ = state.apply(service());
    // Only the removal of an endpoint costs a dump of established connections.
    assert_eq!(closed(&mut state, &mut tables, slice(0..4)), None);
    let unready = slice_of_unready(&[0, 1, 2, 3]);
    assert_eq!(closed(&mut state, &mut tables, unready), None);
    // 4 is no endpoint.
    let two = closed(&mut state, &mut tables, slice(2..4));
    assert_eq!(two, Some(vec![0, 1, 4]));
    // An endpoint that is added closes nothing.
    assert_eq!(closed(&mut state, &mut tables, slice(1..4)), None);
    let all = closed(&mut state, &mut tables, slice([]));
    assert_eq!(all, Some(vec![0, 1, 2, 3, 4]));
    // A Service that is gone closes nothing: no rule would answer.
    let gone = update(key(ObjectKind::Service, "shop/cart"), None);
    assert_eq!(closed(&mut state, &mut tables, gone), None);
}

#[test]
fn without_the_annotation_no_established_connection_is_read() {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(service_with(None, None));
    for change in [slice(0..4), slice(2..4), slice([])] {
        assert_eq!(closed(&mut state, &mut tables, change), None);
    }
    // The annotation closes what is removed from then on.
    let _ = closed(&mut state, &mut tables, slice(0..4));
    let service = service_with(None, Some(Box::new(close_removed())));
    assert_eq!(closed(&mut state, &mut tables, service), None);
    assert_eq!(
        closed(&mut state, &mut tables, slice(1..4)),
        Some(vec![0, 4])
    );
}

#[test]
fn the_base_chains_exist_while_a_service_needs_them() {
    for (pickup, set) in [
        (TcpPickup::Loose, SetName::CloseRemoved(TcpPickup::Loose)),
        (TcpPickup::Strict, SetName::CloseRemoved(TcpPickup::Strict)),
    ] {
        let mut state = State::new(NodeFacts {
            tcp_pickup: pickup,
            ..NodeFacts::default()
        });
        let mut tables = Tables::default();
        let both = [ClientHook::Output, ClientHook::Prerouting]
            .map(|hook| DynamicChain::Closed(pickup, hook));
        let _ = state.apply(slice(0..4));
        let _ = state.apply(service_with(None, None));
        commit(&mut state, &mut tables);
        assert!(tables.ipv4.dynamic_chains().is_empty());
        let _ = state.apply(service_with(None, Some(Box::new(close_removed()))));
        commit(&mut state, &mut tables);
        let chains: BTreeSet<_> = tables.ipv4.dynamic_chains().clone();
        assert_eq!(chains, both.into());
        assert_eq!(tables.ipv4.entries(set).count(), 2);
        let _ = state.apply(service_with(None, None));
        commit(&mut state, &mut tables);
        assert_eq!(tables.ipv4.entries(set).count(), 0);
        let unused = state.families.ipv4.applied().delete_unused_chains();
        unused.apply(&mut tables.ipv4).unwrap();
        // The next deletion of unused chains deletes the other one.
        let [output, _] = both;
        let left = tables.ipv4.dynamic_chains();
        assert_eq!(*left, [output].into());
    }
}

#[test]
fn a_hash_of_the_connection_answers_packets_of_unknown_connections() {
    let (mut state, mut tables) = (state(), Tables::default());
    let features = kube_dnat::planner::model::ServiceFeatures {
        close_removed: true,
        ..maglev()
    };
    let _ = state.apply(service_with(None, Some(Box::new(features))));
    assert_eq!(closed(&mut state, &mut tables, slice(0..4)), None);
    let removed = closed(&mut state, &mut tables, slice(1..4));
    assert_eq!(removed, Some(vec![0, 4]));
    let set = SetName::CloseRemoved(TcpPickup::Loose);
    assert_eq!(tables.ipv4.entries(set).count(), 0);
}

#[test]
fn a_port_with_another_name_or_no_slice_closes_nothing() {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(service_with(Some(30080), Some(Box::new(close_removed()))));
    assert_eq!(closed(&mut state, &mut tables, slice(0..4)), None);
    let Event::Update(mut renamed) = slice(0..4) else {
        panic!("an update");
    };
    if let Some(Object::Slices(slices)) = &mut renamed.object {
        for slice in slices.iter_mut() {
            for port in &mut slice.ports {
                port.name = "web".into();
                port.port = 9090;
            }
        }
    }
    let renamed = Event::Update(renamed);
    assert_eq!(closed(&mut state, &mut tables, renamed), None);
    let deleted = update(key(ObjectKind::EndpointSlice, "shop/cart"), None);
    assert_eq!(closed(&mut state, &mut tables, deleted), None);
}

#[test]
fn the_repetition_of_a_cleanup_reads_no_established_connection() {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(service_with(None, Some(Box::new(close_removed()))));
    for change in [slice(0..4), slice(1..4)] {
        let _ = state.take_dirty_frontends();
        let _ = state.apply(change);
        commit(&mut state, &mut tables);
    }
    let mut dirty = state.take_dirty_frontends().ipv4;
    let scope = state.families.ipv4.frontends(&dirty).scope();
    assert!(scope.established_tcp);
    dirty.connections_closed();
    let repeated = state.families.ipv4.frontends(&dirty).scope();
    assert_eq!(repeated, EntryScope::from(Protocol::Tcp));
}
