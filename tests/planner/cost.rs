//! What each kind of change costs, in operations: by what changed, not by what exists.

use std::net::{IpAddr, Ipv4Addr};

use kube_dnat::model::{
    Addresses, Endpoint, EndpointSlice, Event, Kind, Object, Protocol, Service, ServiceName,
    ServicePort, SlicePort, TrafficPolicy,
};

use crate::world::{Tables, commit, key, state, update};

const NAME: &str = "shop/cart";

/// A Service with two frontends and, if it has one, a node port.
fn service(node_port: Option<u16>) -> Event {
    let service = Service {
        name: ServiceName::new("shop", "cart"),
        created: Some(0),
        has_selector: true,
        cluster_ips: vec![IpAddr::from([10, 96, 7, 7])],
        external_ips: vec![IpAddr::from([203, 0, 113, 5])],
        load_balancer_ips: Vec::new(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
        ports: vec![port(node_port)],
    };
    update(
        key(Kind::Service, NAME),
        Some(Object::Service(service.into())),
    )
}

/// The slice of its endpoints.
fn slice(endpoints: impl IntoIterator<Item = u32>) -> Event {
    slice_named(NAME, endpoints)
}

/// A Service of that name with one frontend, 10.96.0.`last`.
pub(crate) fn service_named(name: &str, last: u8) -> Event {
    let service = Service {
        name: ServiceName::of(&name.into()),
        created: Some(0),
        has_selector: true,
        cluster_ips: vec![IpAddr::from([10, 96, 0, last])],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
        ports: vec![port(None)],
    };
    update(
        key(Kind::Service, name),
        Some(Object::Service(service.into())),
    )
}

/// The only slice of that Service.
pub(crate) fn slice_named(name: &str, endpoints: impl IntoIterator<Item = u32>) -> Event {
    let slice = EndpointSlice {
        service: ServiceName::of(&name.into()),
        mirrored: false,
        ports: vec![SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        addresses: Addresses::Ipv4(endpoints.into_iter().map(endpoint).collect()),
    };
    update(
        key(Kind::EndpointSlice, name),
        Some(Object::Slices(vec![slice])),
    )
}

fn port(node_port: Option<u16>) -> ServicePort {
    ServicePort {
        name: "http".into(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port,
    }
}

/// An endpoint that is not on this node.
fn endpoint(number: u32) -> Endpoint<Ipv4Addr> {
    Endpoint {
        address: Ipv4Addr::from(0x0af4_0000 + number),
        ready: true,
        serving: true,
        terminating: false,
        local: false,
        hints: None,
    }
}

/// The operations that `change` takes when the Service had `count` endpoints.
fn cost(count: u32, node_port: Option<u16>, change: Event) -> usize {
    let (mut state, mut tables) = (state(), Tables::default());
    let _ = state.apply(service(node_port));
    let _ = state.apply(slice(0..count));
    commit(&mut state, &mut tables);
    let _ = state.apply(change);
    commit(&mut state, &mut tables)
}

#[test]
fn the_cost_of_a_change_is_the_change_whatever_exists() {
    let without = |gone: u32, count: u32| (0..count).filter(move |number| *number != gone);
    for count in [3, 10, 1000, 5000] {
        // Per frontend: the endpoint of one slot is deleted and another added.
        let replaced = || slice(without(1, count).chain([90_000]));
        assert_eq!(
            cost(count, None, replaced()),
            2 * 2,
            "one replaced of {count}"
        );
        assert_eq!(
            cost(count, Some(30080), replaced()),
            3 * 2,
            "one replaced of {count}"
        );
        // Per frontend: a slot and the verdict; and one new balance chain of each kind.
        let added = || slice(0..=count);
        assert_eq!(
            cost(count, None, added()),
            2 * (1 + 2) + 1,
            "one added to {count}"
        );
        assert_eq!(
            cost(count, Some(30080), added()),
            3 * (1 + 2) + 2,
            "one added to {count}"
        );
        // Per frontend: the hole is filled by the last, whose slot goes, and the verdict.
        let removed = || slice(without(1, count));
        assert_eq!(
            cost(count, None, removed()),
            2 * (3 + 2) + 1,
            "one removed of {count}"
        );
        let last = || slice(0..count - 1);
        assert_eq!(
            cost(count, None, last()),
            2 * (1 + 2) + 1,
            "the last removed of {count}"
        );
        // In another order they are the same endpoints.
        assert_eq!(
            cost(count, Some(30080), slice((0..count).rev())),
            0,
            "{count} turned round"
        );
        assert_eq!(
            cost(count, None, service(None)),
            0,
            "the same Service with {count} again"
        );
    }
}
